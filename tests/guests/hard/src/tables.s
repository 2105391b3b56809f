/* What the CPU reads: segments, gates, TSS, page tables. And memory. */

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
  .word (tss - stub_data) + 0x3000
  .byte 0x10, 0x89, 0, 0
  .quad 0
gdt_end:

/* Interrupt gates (0x8e): IF is off in every handler. 0xee is for CPL3. */
.macro GATE handler, type=0x8e
  .word \handler - stub_text     /* the stub begins at 0x100000 */
  .word SEL_CODE0
  .byte 0, \type
  .word 0x10
  .quad 0
.endm
.balign 8
idt:
.irp handler, exception_0, exception_1, exception_2, exception_3, exception_4, exception_5, invalid_opcode, no_coprocessor, exception_8, exception_9, exception_10, exception_11, exception_12, general_protection, page_fault, exception_15, exception_16, exception_17, exception_18, exception_19, exception_20, exception_21, exception_22, exception_23, exception_24, exception_25, exception_26, exception_27, exception_28, exception_29, exception_30, exception_31
  GATE \handler
.endr
  GATE timer
.irp handler, spurious, spurious, spurious, serial, spurious, spurious, spurious
  GATE \handler
.endr
.rept 8
  GATE spurious
.endr
  GATE software_interrupt, 0xee
idt_end:

gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt
idt_pointer:
  .word idt_end - idt - 1
  .quad idt

/* 64-bit TSS: RSP0, and an I/O bitmap that allows CPL3 the ports below 0x1000. */
.balign 8
tss:
  .long 0
  .quad cpl0_stack_top
  .fill 90, 1, 0
  .word io_bitmap - tss
io_bitmap:
  .fill 0x200, 1, 0
  .byte 0xff
tss_end:

.balign 8
kernel_table:
  .quad kernel_sti, kernel_sti_iretq, kernel_sti_nop_cli, kernel_sti_cli
  .quad kernel_popfq, kernel_iretq, kernel_halt, kernel_mov_ss
  .quad kernel_string, kernel_ports, kernel_open_ports, kernel_string_ports
  .quad kernel_registers, kernel_bases, kernel_task_switched, kernel_pic
page_table:
  .quad page_swap, page_swap, page_swap_cr3, page_swap_cr3
  .quad page_reload, page_swap_tables, page_clear_used, page_clear_rights
/* SYSENTER_CS, _ESP, _EIP, STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE */
msr_list:
  .long 0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0

.org stub_data + 0x2000
  .skip 4096
cpl0_stack_top:

/* Page tables. Accessed and dirty are clear: it is KVM that sets them, in guest memory, and its log of
 * dirty pages must know. */
.set ENTRY_USER, 7               /* present | writable | user */
.set ENTRY_CPL0, 3
.set LARGE_PAGE, 0x80
.set NX,         0x8000000000000000
pml4:
  .quad pdpt + ENTRY_USER
  .fill 511, 8, 0
pdpt:
  .quad pd_low + ENTRY_USER
  .quad 0, 0
  .quad pd_mmio + ENTRY_USER
  .fill 508, 8, 0
pd_low:
  .quad pt_image + ENTRY_USER
  .quad window_tables + ENTRY_USER
  .quad window_tables + 0x1000 + ENTRY_USER
  .fill 509, 8, 0
/* 3 to 4 GiB; there is no RAM. */
pd_mmio:
.set page, 0xc0000000
.rept 512
  .quad page + ENTRY_USER + LARGE_PAGE + NX
  .set page, page + 0x200000
.endr
pt_image:
  .fill 0x100, 8, 0
  .quad 0x100000 + ENTRY_CPL0, 0x101000 + ENTRY_CPL0
  .quad 0x102000 + 5             /* CPL3 code: not writable */
.set page, 0x103000
.rept 8
  .quad page + ENTRY_CPL0 + NX
  .set page, page + 0x1000
.endr
.rept 0x140 - 0x10b              /* from the window's tables on */
  .quad page + ENTRY_USER + NX
  .set page, page + 0x1000
.endr
  .quad 0x140000 + 5             /* code of one instruction, in a page of its own */
  .fill 512 - 0x141, 8, 0
window_tables:
.set page, 0x120000
.rept 2
  .rept 16
  .quad page + ENTRY_USER + NX
  .set page, page + 0x1000
  .endr
  .fill 496, 8, 0
.endr

.section .memory, "aw", @nobits
.balign 4096
state:
.set HASH,          state        /* RBX as of the last operation */
.set EVENT_HASH,    state + 0x08 /* of everything that interrupted */
.set TICKS,         state + 0x10
.set OPERATIONS,    state + 0x18
.set PRINTED,       state + 0x20 /* ticks at the last report */
.set SPURIOUS,      state + 0x28
.set NESTABLE,      state + 0x30
.set FAULT_ADDRESS, state + 0x38
.set CONTROL,       state + 0x40 /* two words of scratch for op_float */
.set ICW4,          state + 0x50 /* what the PIC was last started with */
.set NESTED,        state + 0x51 /* interrupt handlers that are open */
.set COMMAND,       state + 0x52 /* first character of the command line */
.set FEATURES,      state + 0x53 /* bit 0: SSE4.2 and POPCNT; bit 1: AVX2, and XSAVE is enabled */
.set KERNEL_AREA,   state + 0x400 /* XSAVE areas of the gate and of CPL3, 832 bytes each */
.set USER_AREA,     state + 0x800
  .skip 4096
  .skip 4096
user_stack_top:
  .skip 4096
arena:
  .skip 0x10000
  .skip 0x20000                  /* the window's frames */
int_page:
  .skip 4096
