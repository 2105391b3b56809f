/* CPL0: boot, exceptions, interrupts, and the gate through which CPL3 asks for what only CPL0 can do. */

.set SEL_CODE0, 0x10             /* the numbers that Linux uses: a KVM that runs CPL3 on its own GDT */
.set SEL_DATA0, 0x18             /* has the same descriptors there */
.set SEL_DATA3, 0x28 + 3
.set SEL_CODE3, 0x30 + 3
.set SEL_TSS,   0x40

.set CR0_BASE, 0x80010033        /* PG | WP | NE | ET | MP | PE */
.set CR4_BASE, 0x624             /* PAE | TSD | OSFXSR | OSXMMEXCPT */

/* PVH boot: a Xen note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY) names the 32-bit entry point. */
.section .note.pvh, "a", @note
  .balign 4
  .long 4, 8, 18
  .asciz "Xen"
  .quad pvh_start

.section .stub.text, "ax", @progbits
.globl pvh_start
stub_text:
.code32
pvh_start:
  cld
  mov %ebx, start_info
  mov $pml4, %eax
  mov %eax, %cr3
  mov $CR4_BASE, %eax
  mov %eax, %cr4
  mov $0xc0000080, %ecx          /* EFER */
  rdmsr
  or $0x900, %eax                /* LME | NXE */
  wrmsr
  mov $CR0_BASE, %eax
  mov %eax, %cr0
  lgdt gdt_pointer
  ljmp $SEL_CODE0, $long_mode

.code64
long_mode:
  mov $SEL_DATA0, %eax
  mov %eax, %ss
  mov $SEL_DATA3, %eax
  mov %eax, %ds
  mov %eax, %es
  mov $cpl0_stack_top, %esp
  lidt idt_pointer
  mov $SEL_TSS, %eax
  ltr %ax
  jmp restart

/* Exceptions, except #UD of the gate: counts the vector, and starts CPL3 anew. No frame is read, because
 * the guest may have made the PIC deliver an interrupt as any vector. */
.macro EXCEPTION vector
exception_\vector:
  incq fault_counts + 8 * \vector
  jmp restart
.endm
.irp vector, 0,1,2,3,4,5,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  EXCEPTION \vector
.endr

restart:
  mov $pml4, %eax
  mov %rax, %cr3
  mov $CR0_BASE, %eax
  mov %rax, %cr0
  mov $CR4_BASE, %eax
  mov %rax, %cr4
  mov $cpl0_stack_top, %esp
  pushq $SEL_DATA3
  pushq $user_stack_top
  pushq $0x202
  pushq $SEL_CODE3
  pushq $hostile_main
  iretq

/* Any vector from 0x20 on: both PICs get an end of interrupt, wanted or not. A line that stays asserted, or
 * a timer that is too fast, would leave CPL3 no instruction, so each 256th interrupt ends the storm: it
 * masks all lines and slows the timer. */
interrupt:
  push %rax
  mov $0x20, %al
  out %al, $0xa0
  out %al, $0x20
  incb storm
  jnz 1f
  mov $0xff, %al
  out %al, $0x21
  out %al, $0xa1
  mov $0x34, %al; out %al, $0x43
  mov $0, %al; out %al, $0x40
  out %al, $0x40
1:
  pop %rax
  iretq

/* #UD: the gate, if it was `ud2` at CPL3. RAX: the operation. RCX, RDI, RSI: its arguments. Returns a
 * result in RAX and RDX; R8 is free. What faults in it starts CPL3 anew. */
exception_6:
  cmpl $SEL_CODE3, 8(%rsp); jne 1f
  mov (%rsp), %r8
  cmpw $0x0b0f, (%r8); jne 1f
  addq $2, (%rsp)
  cmp $(gate_table_end - gate_table) / 8, %rax; jae 1f
  jmp *gate_table(, %rax, 8)
1:
  incq fault_counts + 8 * 6
  jmp restart

/* Performs the accesses in the list at RSI, 16 bytes each: kind, port or address (32 bits each), value (64
 * bits). Reads replace the value. ECX: whether interrupts are on. */
gate_accesses:
  jecxz 1f
  sti
1:
  lodsl
  mov %eax, %r8d
  lodsl
  mov %eax, %edx
  mov (%rsi), %rax
  cmp $(access_table_end - access_table) / 8, %r8d; jae access_end
  jmp *access_table(, %r8, 8)
access_out_1:
  out %al, %dx; jmp 3f
access_out_2:
  out %ax, %dx; jmp 3f
access_out_4:
  out %eax, %dx; jmp 3f
access_in_1:
  in %dx, %al; jmp 3f
access_in_2:
  in %dx, %ax; jmp 3f
access_in_4:
  in %dx, %eax; jmp 3f
access_write_1:
  mov %al, (%rdx); jmp 3f
access_write_2:
  mov %ax, (%rdx); jmp 3f
access_write_4:
  mov %eax, (%rdx); jmp 3f
access_write_8:
  mov %rax, (%rdx); jmp 3f
access_read_1:
  mov (%rdx), %al; jmp 3f
access_read_2:
  mov (%rdx), %ax; jmp 3f
access_read_4:
  mov (%rdx), %eax; jmp 3f
access_read_8:
  mov (%rdx), %rax
3:
  mov %rax, (%rsi)
  add $8, %rsi
  jmp 1b
access_end:
  cli
  xor %eax, %eax
  iretq

gate_read_msr:
  rdmsr
  iretq
gate_write_msr:
  mov %rdi, %rax
  mov %rdi, %rdx
  shr $32, %rdx
  wrmsr
  iretq
gate_cr0:
  mov %rdi, %cr0
  mov %cr0, %rdx
  mov $CR0_BASE, %eax
  mov %rax, %cr0
  iretq
gate_cr4:
  mov %rdi, %cr4
  mov %cr4, %rdx
  mov $CR4_BASE, %eax
  mov %rax, %cr4
  iretq
gate_cr3:                        /* PWT and PCD; the tables stay */
  mov %rdi, %rax
  and $0x18, %eax
  or $pml4, %eax
  mov %rax, %cr3
  iretq
gate_cr8:
  mov %rdi, %cr8
  mov %cr8, %rax
  iretq
gate_debug:                      /* no breakpoint is enabled */
  mov %rdi, %dr0
  mov %rdi, %dr3
  mov %rdi, %rax
  and $0xe00f, %eax
  mov %rax, %dr6
  mov %dr6, %rax
  iretq
gate_breakpoint:
  mov %rdi, %dr0
  mov $0x401, %eax
  mov %rax, %dr7
  iretq
gate_halt:
  sti
  hlt
  cli
  iretq
gate_halt_for_ever:
  cli
  hlt
  iretq
gate_invlpg:
  invlpg (%rdi)
  iretq
gate_tables:
  mov %rdi, lidt_junk + 2
  lidt lidt_junk
  lidt idt_pointer
  lgdt gdt_pointer
  iretq
gate_lmsw:
  mov %edi, %eax
  or $1, %eax
  lmsw %ax
  mov $CR0_BASE, %eax
  mov %rax, %cr0
  iretq
gate_hypercall:
  mov %rcx, %rax
  vmcall
  iretq
gate_wbinvd:
  wbinvd
  iretq
gate_triple_fault:
  mov $0, %rax
  mov %rax, lidt_junk + 2
  lidt lidt_junk
  int3
  iretq

.section .stub.data, "aw", @progbits
stub_data:
.balign 8
gdt:
  .quad 0, 0
  .quad 0x00af9b000000ffff       /* 0x10: CPL0 code, 64-bit */
  .quad 0x00cf93000000ffff       /* 0x18: CPL0 data */
  .quad 0x00cffb000000ffff       /* 0x20: CPL3 code, 32-bit, unused */
  .quad 0x00cff3000000ffff       /* 0x28: CPL3 data */
  .quad 0x00affb000000ffff       /* 0x30: CPL3 code, 64-bit */
  .quad 0
  .word tss_end - tss - 1        /* 0x40: TSS, 64-bit, 16 bytes */
  .word (tss - stub_data) + 0x2000
  .byte 0x10, 0x89, 0, 0
  .quad 0
gdt_end:

.macro GATE handler
  .word \handler - stub_text     /* the stub begins at 0x100000 */
  .word SEL_CODE0
  .byte 0, 0x8e
  .word 0x10
  .quad 0
.endm
.balign 8
idt:
.irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  GATE exception_\vector
.endr
.rept 224
  GATE interrupt
.endr
idt_end:

gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt
idt_pointer:
  .word idt_end - idt - 1
  .quad idt
lidt_junk:
  .word 0
  .quad 0

.balign 8
gate_table:
  .quad gate_accesses, gate_read_msr, gate_write_msr, gate_cr0, gate_cr4, gate_cr3, gate_cr8
  .quad gate_debug, gate_halt, gate_invlpg, gate_tables, gate_lmsw, gate_hypercall, gate_wbinvd
  .quad gate_breakpoint, gate_halt_for_ever, gate_triple_fault
gate_table_end:
access_table:
  .quad access_end, access_out_1, access_out_2, access_out_4, access_in_1, access_in_2, access_in_4
  .quad access_write_1, access_write_2, access_write_4, access_write_8
  .quad access_read_1, access_read_2, access_read_4, access_read_8
access_table_end:

.globl start_info
start_info:
  .quad 0
storm:
  .quad 0
fault_counts:
  .fill 32, 8, 0

/* 64-bit TSS: RSP0, and an I/O bitmap that allows CPL3 every port. */
.balign 4096
tss:
  .long 0
  .quad cpl0_stack_top
  .fill 90, 1, 0
  .word io_bitmap - tss
io_bitmap:
  .fill 0x2000, 1, 0
  .byte 0xff
tss_end:

/* Page tables. Accessed and dirty bits are set, so that no processor has a reason to write them: one that
 * does so in speculation would differ from its replay. */
.balign 4096
.set ENTRY, 0x67                 /* present | writable | user | accessed | dirty */
.set LARGE_PAGE, 0x80
pml4:
  .quad pdpt + ENTRY
  .fill 511, 8, 0
pdpt:
  .quad pd_low + ENTRY, pd_window + ENTRY, 0
  .quad pd_mmio + ENTRY
  .fill 508, 8, 0
pd_low:                          /* the first 64 MiB, one to one */
.set page, 0
.rept 32
  .quad page + ENTRY + LARGE_PAGE
  .set page, page + 0x200000
.endr
  .fill 480, 8, 0
pd_mmio:                         /* 3 to 4 GiB; there is no RAM */
.set page, 0xc0000000
.rept 512
  .quad page + ENTRY + LARGE_PAGE
  .set page, page + 0x200000
.endr
.globl pd_window
pd_window:                       /* from 1 GiB on: two page tables that CPL3 fills */
  .quad window_tables + ENTRY, window_tables + 0x1000 + ENTRY
  .fill 510, 8, 0
.globl window_tables
window_tables:
  .fill 1024, 8, 0

.section .memory, "aw", @nobits
.balign 4096
  .skip 0x4000
cpl0_stack_top:
  .skip 0x4000
user_stack_top:
