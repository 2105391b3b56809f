/* What CPL0 does when CPL3 calls. R8 is a random word, RBX may be folded into; RAX, RCX, RDX, RSI, RDI
 * and R9 are free. Both gates arrive with IF=0 and an IRETQ frame on the stack. */

/* Arithmetic for 1 to `mask`+1 turns: room for an interrupt or a kick to fall into. */
.macro SPIN mask
  mov %r8d, %ecx
  ror $5, %r8
  and $\mask, %ecx; inc %ecx
9:
  imul $0x343fd, %rbx, %rbx; add $0x269ec3, %rbx
  dec %ecx; jnz 9b
.endm

/* First, half of the time, an OUT that raises an interrupt while IF=0: it stays pending, an interrupt
 * window is asked for, and where that window opens is the question each variant puts. */
kernel_gate:
  mov %r8d, %eax
  ror $4, %r8
  test $1, %r8d; jz 1f
  mov $0x3f8, %edx; out %al, %dx
1:
  and $15, %eax
  jmp *kernel_table(, %rax, 8)

/* The window opens at CPL0, at whichever instruction the emulator next looks: no exact position. */
kernel_sti:
  SPIN 0x1f
  sti
  SPIN 0x3f
  SPIN 0x1f
  cli
  SPIN 0x0f
  iretq

/* The same, and IRETQ itself runs with IF=1. */
kernel_sti_iretq:
  SPIN 0x0f
  sti
  SPIN 0x3f
  iretq

/* Open for exactly one instruction after the shadow of STI. */
kernel_sti_nop_cli:
  SPIN 0x1f
  sti; nop; cli
  SPIN 0x1f
  iretq

/* Never open: the shadow covers the CLI. */
kernel_sti_cli:
  SPIN 0x0f
  sti; cli
  SPIN 0x0f
  iretq

/* POPFQ has no shadow. */
kernel_popfq:
  SPIN 0x1f
  pushfq
  orq $0x200, (%rsp)
  popfq
  SPIN 0x3f
  cli
  SPIN 0x07
  iretq

/* IRETQ from CPL0 to CPL0 sets IF. */
kernel_iretq:
  mov %rsp, %rax
  pushq $SEL_DATA0
  push %rax
  pushq $0x202
  pushq $SEL_CODE0
  pushq $1f
  iretq
1:
  SPIN 0x3f
  cli
  SPIN 0x07
  iretq

/* An interrupt that is pending wakes the HLT at once. */
kernel_halt:
  SPIN 0x0f
  sti; hlt; cli
  SPIN 0x0f
  iretq

/* A load of SS holds interrupts off for one more instruction, here a port access. */
kernel_mov_ss:
  SPIN 0x0f
  mov %ss, %eax
  sti
  mov %eax, %ss
  out %al, $0x80
  mov %eax, %ss
  nop; cli
  SPIN 0x0f
  iretq

/* A string instruction can be interrupted between two turns. */
kernel_string:
  mov %r8d, %ecx; and $0x7f, %ecx
  mov $arena + 0x100, %esi
  mov $arena + 0xf80, %edi
  sti
  rep movsb
  mov %ebx, %eax
  mov $0x1f, %ecx
  rep stosb
  cli
  SPIN 0x0f
  iretq

/* Port accesses with IF=0; what they raise waits for CPL3. */
kernel_ports:
  SPIN 0x0f
  mov $0x3f8, %edx
  mov %bl, %al
  out %al, %dx
  mov $0x3fa, %edx               /* identification: reading it takes the request back */
  in %dx, %al; FOLD %rax, %rbx
  mov $0x608, %edx; in %dx, %eax; FOLD %rax, %rbx
  SPIN 0x1f
  iretq

/* Port accesses with IF=1, the first in the shadow of STI. What is injected at its exit is delivered behind it. */
kernel_open_ports:
  mov $0x3f8, %edx
  sti
  out %al, %dx
  SPIN 0x0f
  in $0x40, %al; FOLD %rax, %rbx
  SPIN 0x0f
  out %al, %dx
  cli
  iretq

/* String I/O: the emulator reads ahead and hands out element by element. */
kernel_string_ports:
  mov %r8d, %ecx; and $0x1f, %ecx
  mov $arena + 0x1ff8, %edi
  mov $0x61, %edx
  rep insb
  sti
  mov $arena + 0x1ff8, %esi
  mov $0x80, %edx
  mov %r8d, %ecx; and $7, %ecx
  rep outsb
  SPIN 0x0f
  iretq

/* Registers that only checkpoints and CPL0 see: reads all, and writes all anew. */
kernel_registers:
  mov $msr_list, %esi
1:
  lodsl
  mov %eax, %ecx
  jecxz 2f
  rdmsr
  FOLD %rax, %rbx; FOLD %rdx, %rbx
  mov %ebx, %eax
  mov %ebx, %edx
  shr $18, %edx                  /* keeps addresses canonical */
  wrmsr
  jmp 1b
2:
  mov %cr2, %rax; FOLD %rax, %rbx
  mov %rbx, %cr2
  mov %cr8, %rax; FOLD %rax, %rbx
  mov %ebx, %eax; and $15, %eax
  mov %rax, %cr8
  mov %dr0, %rax; FOLD %rax, %rbx
  mov %dr3, %rax; FOLD %rax, %rbx
  mov %rbx, %rax; shr $17, %rax
  mov %rax, %dr0
  mov %rax, %dr3
  iretq

/* FS and GS into the arena, where CPL3 reads through them; and data selectors. (CPL3 must not load
 * selectors itself: a KVM that runs it on the bare CPU does not notice.) */
kernel_bases:
  xor %r9d, %r9d
  mov %ds, %eax; FOLD %rax, %rbx
  mov $SEL_DATA3, %eax
  test $1, %ebx
  cmovz %r9d, %eax               /* or none */
  mov %eax, %ds
  mov %eax, %es
  mov $0xc0000100, %ecx
1:
  rdmsr
  FOLD %rax, %rbx
  mov %ebx, %eax; and $0x7ff8, %eax; add $arena, %eax
  xor %edx, %edx
  wrmsr
  inc %ecx
  cmp $0xc0000102, %ecx; jne 1b
  iretq

/* The next use of x87 or SSE at CPL3 faults; or, with XSAVE, a switch to another task and back. */
kernel_task_switched:
  testb $2, FEATURES; jz 1f
  test $0x100, %r8d; jnz kernel_xsave
1:
  mov %cr0, %rax
  or $8, %rax
  mov %rax, %cr0
  iretq

/* Saves CPL3's registers, uses them with interrupts on, and restores them. What XSAVE says of the components in
 * use goes into the hash. */
kernel_xsave:
  mov $7, %eax
  xor %edx, %edx
  xsave KERNEL_AREA
  FOLD KERNEL_AREA + 512, %rbx
  sti
  vpcmpeqd %ymm3, %ymm3, %ymm3
  vpaddq %ymm3, %ymm3, %ymm4
  vzeroall
  SPIN 0x3f
  cli
  mov $7, %eax
  xor %edx, %edx
  xrstor KERNEL_AREA
  iretq

/* Starts the PIC anew, in the other mode of ending interrupts. */
kernel_pic:
  mov ICW4, %al
  xor $2, %al
  call start_pic
  iretq

/* Straight back: a pending interrupt enters at CPL3's first instruction. */
kernel_return:
  iretq

/* The page gate changes entries of the window's page tables, and never exits: the CPL3 code that
 * follows can end in a checkpoint that carries tables which KVM has shadowed as they were. */
page_gate:
  mov %r8d, %eax
  shr $4, %r8
  and $7, %eax
  jmp *page_table(, %rax, 8)

/* Forgets the translations of window page EDX, wherever the directory has its table now. */
.macro FORGET
  mov %edx, %eax; and $15, %eax; shl $12, %eax
  invlpg 0x200000(%rax)
  invlpg 0x400000(%rax)
.endm
/* The address of window page ESI's or EDX's entry: 16 in each of two tables. */
.macro ENTRY page, address
  mov \page, \address; and $16, \address; shl $8, \address
  mov \page, %eax; and $15, %eax
  lea window_tables(\address, %eax, 8), \address
.endm

/* Swaps two to eight pairs of entries, then INVLPG or a reload of CR3. */
page_swap:
  mov %r8d, %r9d; and $7, %r9d; inc %r9d
1:
  imul $0x19660d, %r8, %r8; add $0x3c6ef35f, %r8
  mov %r8d, %edx; shr $9, %edx; and $31, %edx
  mov %r8d, %esi; shr $18, %esi; and $31, %esi
  ENTRY %edx, %ecx
  ENTRY %esi, %edi
  mov (%rcx), %rax; xchg %rax, (%rdi)
  mov %rax, (%rcx)
  FORGET
  mov %esi, %edx
  FORGET
  dec %r9d; jnz 1b
  iretq
page_swap_cr3:
  mov %r8d, %edx; and $31, %edx
  mov %edx, %esi
  xor $17, %esi
  ENTRY %edx, %ecx
  ENTRY %esi, %edi
  mov (%rcx), %rax; xchg %rax, (%rdi)
  mov %rax, (%rcx)
page_reload:
  mov %cr3, %rax; mov %rax, %cr3
  iretq

/* Swaps the two tables: an entry of the directory changes, and no leaf. */
page_swap_tables:
  mov pd_low + 8, %rax; xchg %rax, pd_low + 16
  mov %rax, pd_low + 8
  jmp page_reload

/* Folds in, and clears, accessed and dirty. */
page_clear_used:
  mov %r8d, %edx; and $31, %edx
  ENTRY %edx, %ecx
  mov (%rcx), %rax
  FOLD %rax, %rbx
  andq $~0x60, (%rcx)
  FORGET
  iretq

/* Takes presence, or the right to write, from an entry: the next access faults. */
page_clear_rights:
  mov %r8d, %edx; and $31, %edx
  ENTRY %edx, %ecx
  test $32, %r8d; jz 1f
  andq $~1, (%rcx)
  jmp 2f
1:
  andq $~2, (%rcx)
2:
  FORGET
  iretq
