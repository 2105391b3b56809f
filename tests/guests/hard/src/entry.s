/* Boot, exceptions and interrupts. Registers everywhere: RBX the running hash, R12 the random sequence
 * (both CPL3's), R8 the random word that CPL3 hands to a gate. */

.set SEL_CODE0, 0x10             /* the numbers that Linux uses: a KVM that runs CPL3 on its own GDT */
.set SEL_DATA0, 0x18             /* has the same descriptors there */
.set SEL_DATA3, 0x28 + 3
.set SEL_CODE3, 0x30 + 3
.set SEL_TSS,   0x40

/* Mixes a source into an accumulator; any changed bit changes about half of it, a few folds later. */
.macro FOLD source, hash
  xor \source, \hash
  imul $0x2545f491, \hash, \hash
  rol $17, \hash
.endm

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
  mov 24(%ebx), %esi             /* start information: the command line */
  test %esi, %esi; jz 1f
  mov (%esi), %al
  mov %al, COMMAND
1:
  movl $0xc330cd, int_page       /* int $0x30; ret */
  mov $pml4, %eax
  mov %eax, %cr3
  mov $0x624, %eax               /* CR4: PAE | TSD | OSFXSR | OSXMMEXCPT */
  mov %eax, %cr4
  mov $0xc0000080, %ecx          /* EFER */
  rdmsr
  or $0x900, %eax                /* LME | NXE */
  wrmsr
  mov $0x80010033, %eax          /* CR0: PG | WP | NE | ET | MP | PE */
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

  mov $1, %eax                   /* what does the CPU model offer? */
  cpuid
  and $0x980201, %ecx            /* SSE3, SSSE3, SSE4.1, SSE4.2, POPCNT */
  cmp $0x980201, %ecx; jne 1f
  orb $1, FEATURES
1:
  xor %eax, %eax
  cpuid
  cmp $0xd, %eax; jb 1f          /* a KVM that adds bits to other leaves does not raise this number */
  mov $1, %eax
  cpuid
  and $0x14000000, %ecx          /* XSAVE, AVX */
  cmp $0x14000000, %ecx; jne 1f
  mov $7, %eax
  xor %ecx, %ecx
  cpuid
  test $0x20, %bl; jz 1f         /* AVX2 */
  mov %cr4, %rax
  or $0x40000, %eax              /* OSXSAVE */
  mov %rax, %cr4
  xor %ecx, %ecx
  xor %edx, %edx
  mov $7, %eax                   /* x87, SSE, AVX */
  xsetbv
  orb $2, FEATURES
1:
  mov $0x3fc, %edx               /* UART: loopback, interrupt on received data */
  mov $0x10, %al; out %al, %dx
  mov $0x3f9, %edx
  mov $1, %al; out %al, %dx
  mov $3, %al; call start_pic
  mov $0x34, %al                 /* PIT channel 0: rate generator at 1 kHz */
  out %al, $0x43
  mov $1193 & 0xff, %al; out %al, $0x40
  mov $1193 >> 8, %al; out %al, $0x40

  mov $0xc0000100, %ecx          /* FS and GS: kernel_bases moves them about */
  mov $arena, %eax
  xor %edx, %edx
  wrmsr
  inc %ecx
  wrmsr

  in $0xe8, %eax                 /* the seed; never zero, where xorshift would stay */
  mov $0x9e3779b97f4a7c15, %r12
  xor %rax, %r12
  mov %r12, %rbx
  pushq $SEL_DATA3
  pushq $user_stack_top
  pushq $0x202
  pushq $SEL_CODE3
  pushq $user_main
  iretq

/* Initializes the 8259 pair, vectors 0x20 and 0x28, lines 0 and 4 unmasked. AL: ICW4, which is 1 for
 * explicit and 3 for automatic end of interrupt. Requests that are latched are lost. */
start_pic:
  mov %al, ICW4
  mov $0x11, %al; out %al, $0x20
  out %al, $0xa0
  mov $0x20, %al; out %al, $0x21
  mov $0x28, %al; out %al, $0xa1
  mov $4, %al; out %al, $0x21
  mov $2, %al; out %al, $0xa1
  mov ICW4, %al
  out %al, $0x21
  out %al, $0xa1
  mov $0xee, %al; out %al, $0x21
  mov $0xff, %al; out %al, $0xa1
  ret

/* Every handler folds what it interrupted, and how many ticks there were, into a hash of its own: one
 * instruction off is another RIP. The main loop folds that into RBX. Frame above the two pushes: RIP,
 * CS, RFLAGS, RSP. */
.macro SAVE
  push %rax; push %rdx
  mov EVENT_HASH, %rax
  FOLD 16(%rsp), %rax; FOLD 24(%rsp), %rax; FOLD 32(%rsp), %rax
  FOLD 40(%rsp), %rax; FOLD (%rsp), %rax; FOLD 8(%rsp), %rax
  FOLD %rbx, %rax; FOLD %rcx, %rax; FOLD %rsi, %rax
  FOLD %rdi, %rax; FOLD TICKS, %rax
  mov %rax, EVENT_HASH
.endm
.macro RESTORE
  pop %rdx; pop %rax
  iretq
.endm
/* Acknowledges, and then sometimes lets the next interrupt in right here, but only one level deep. */
.macro END_OF_INTERRUPT
  cmpb $3, ICW4; je 1f
  mov $0x20, %al; out %al, $0x20
1:
  incb NESTED
  cmpb $1, NESTED; jne 2f
  testb $0x18, EVENT_HASH; jnz 2f
  sti
  incq NESTABLE
  mov NESTABLE, %rdx
  FOLD %rdx, %rdx
  cli
2:
  decb NESTED
.endm

/* IRQ 0 */
timer:
  SAVE
  incq TICKS
  END_OF_INTERRUPT
  RESTORE

/* IRQ 4: the UART's loopback. Its model raises the line when data comes to an empty identification
 * register, so everything must be taken out. */
serial:
  SAVE
1:
  mov $0x3f8, %edx; in %dx, %al
  movzbl %al, %eax
  xor %rax, EVENT_HASH
  mov $0x3fd, %edx; in %dx, %al
  test $1, %al; jnz 1b
  END_OF_INTERRUPT
  RESTORE

/* INT 0x30 at CPL3. The RFLAGS that it pushed go into the hash: RF must not be among them. */
software_interrupt:
  SAVE
  RESTORE

/* A line that is masked: the PIC's spurious interrupt. */
spurious:
  SAVE
  incq SPURIOUS
  RESTORE

/* #UD: the gate to kernel.s, if it was `ud2` at CPL3. */
invalid_opcode:
  cmpl $SEL_CODE3, 8(%rsp); jne 1f
  mov (%rsp), %rax
  cmpw $0x0b0f, (%rax); jne 1f
  addq $2, (%rsp); jmp kernel_gate
1:
  pushq $0
  pushq $6
  jmp fault

/* #GP: the gate for page tables, if it was `hlt` at CPL3; the clock, if it was `rdtsc` (CR4.TSD). */
general_protection:
  cmpl $0, (%rsp); jne 1f
  cmpl $SEL_CODE3, 16(%rsp); jne 1f
  mov 8(%rsp), %rax
  cmpw $0x310f, (%rax); je 2f
  cmpb $0xf4, (%rax); jne 1f
  incq 8(%rsp)
  add $8, %rsp
  jmp page_gate
2:
  addq $2, 8(%rsp)
  add $8, %rsp
  in $0xe8, %eax
  mov %eax, %edx
  in $0xec, %eax
  xchg %eax, %edx
  iretq
1:
  pushq $13
  jmp fault

/* #NM: CR0.TS was set behind CPL3's back. */
no_coprocessor:
  clts
  SAVE
  RESTORE

/* #PF: the page gate took a right away from an entry of the window; gives it back. The address and the
 * error code go into the hash: an exception that is pending across a checkpoint must keep both. */
page_fault:
  testl $4, (%rsp)               /* not from CPL3: an error */
  jz 1f
  push %rax; push %rdx
  mov EVENT_HASH, %rax
  mov %cr2, %rdx; FOLD %rdx, %rax
  FOLD 16(%rsp), %rax            /* error code */
  FOLD 24(%rsp), %rax            /* RIP */
  FOLD %rbx, %rax
  mov %rax, EVENT_HASH
  mov %rdx, %rax
  shr $21, %rax                  /* which entry of the page directory */
  dec %rax
  cmp $1, %rax                   /* the window's are 1 and 2 */
  ja 2f
  mov pd_low + 8(, %rax, 8), %rax; and $~0xfff, %rax
  mov %rdx, FAULT_ADDRESS
  shr $12, %edx; and $511, %edx
  orq $7, (%rax, %rdx, 8)
  mov FAULT_ADDRESS, %rdx
  invlpg (%rdx)
  pop %rdx; pop %rax
  add $8, %rsp
  iretq
2:
  pop %rdx; pop %rax
1:
  pushq $14
  jmp fault

/* Exceptions that are errors. Each vector pushes an error code where the CPU does not, and its number. */
.macro EXCEPTION vector
exception_\vector:
  .if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21
  .else
  pushq $0
  .endif
  pushq $\vector
  jmp fault
.endm
.irp vector, 0,1,2,3,4,5,8,9,10,11,12,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  EXCEPTION \vector
.endr

/* Frame: vector, error code, RIP. Says so and resets. */
fault:
  mov $fault_text, %esi; call print
  pop %rdi; call print_number
  pop %rdi; call print_number
  pop %rdi; call print_number
  mov %cr2, %rdi; call print_number
  call print_end
  mov $0xfe, %al                 /* i8042: pulse the CPU's reset line */
  out %al, $0x64
1:
  cli
  hlt
  jmp 1b
