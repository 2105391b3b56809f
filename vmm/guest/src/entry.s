/* The CPL0 stub: everything in this guest that runs with privilege.
 *
 * It enters long mode, drops to CPL3 and from then on only serves CPL3: interrupts, the halting gate,
 * trapped RDTSC, and exceptions. It stays this small because CPL0 code is the expensive part on a KVM
 * that emulates it, and because less code at CPL0 leaves less that replay has to be exact about.
 *
 * No compiled code runs here, so the SSE state belongs to CPL3 and is never saved. Every entry from
 * CPL3 switches to the CPL0 stack, so the red zone below the CPL3 stack pointer is safe.
 *
 * Constants in braces are filled in by main.rs from gate.rs. */

.set STUB_TEXT, 0x100000
.set STUB_DATA, 0x101000
.set SEL_CODE0, 0x08
.set SEL_DATA0, 0x10
.set SEL_DATA3, 0x20 + 3
.set SEL_CODE3, 0x28 + 3
.set SEL_TSS,   0x30

/* PVH boot: a Xen note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY) names the 32-bit entry point. */
.section .note.pvh, "a", @note
  .balign 4
  .long 4, 8, 18
  .asciz "Xen"
  .quad pvh_start

.section .shared, "aw", @nobits
.balign 4096
SHARED:
  .skip 4096

.section .user_stack, "aw", @nobits
.balign 4096
  .skip 65536
user_stack_top:

.section .stub.text, "ax", @progbits
.globl pvh_start
stub_text:

/* Entry: 32-bit protected mode, flat segments, paging off, EBX = physical address of hvm_start_info. */
.code32
pvh_start:
  cld
  mov %ebx, %ebp                 /* CPUID below overwrites EBX */
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
  mov %eax, %ds
  mov %eax, %es
  mov $cpl0_stack_top, %esp
  lidt idt_pointer(%rip)
  mov $SEL_TSS, %eax
  ltr %ax
  mov %ebp, SHARED+{START_INFO}(%rip)

  /* UMIP where the CPU has it (CPUID.7.0:ECX[2]): SGDT and its kin would otherwise tell CPL3 about the
   * host's choices. */
  xor %eax, %eax
  cpuid
  cmp $7, %eax
  jb 1f
  mov $7, %eax
  xor %ecx, %ecx
  cpuid
  test $4, %ecx
  jz 1f
  mov %cr4, %rax
  or $0x800, %eax
  mov %rax, %cr4
1:
  /* 8259 pair: vectors 0x20 and 0x28, cascade on line 2, 8086 mode with automatic end of interrupt:
   * handlers here never nest, so an EOI would only be one more exit per interrupt. All lines stay
   * masked until their drivers are ready. */
  mov $0x11, %al
  out %al, $0x20
  out %al, $0xa0
  mov $0x20, %al
  out %al, $0x21
  mov $0x28, %al
  out %al, $0xa1
  mov $4, %al
  out %al, $0x21
  mov $2, %al
  out %al, $0xa1
  mov $3, %al
  out %al, $0x21
  out %al, $0xa1
  mov $0xff, %al
  out %al, $0x21
  out %al, $0xa1
  mov ${USER_MAIN}, %eax

/* Starts the CPL3 function in RAX on a fresh stack, interrupts enabled. The ABI wants RSP as after a
 * call: 8 below a multiple of 16. */
enter_user:
  pushq $SEL_DATA3
  pushq $user_stack_top - 8
  pushq $0x202
  pushq $SEL_CODE3
  push %rax
  iretq

/* #GP from CPL3 with error code 0 is how CPL3 calls: `hlt` is the gate, `rdtsc` a clock reading.
 * Frame: error, RIP, CS, RFLAGS, RSP, SS. */
general_protection:
  cmpl $0, (%rsp)
  jne 1f
  cmpl $SEL_CODE3, 16(%rsp)
  jne 1f
  mov 8(%rsp), %rax
  movzwl (%rax), %eax
  cmp $0x310f, %eax
  je rdtsc_trapped
  cmp $0xf4, %al
  je gate
1:
  pushq $13
  jmp fault

/* CR4.TSD makes RDTSC fault; the answer is logged input from the clock port. Reading the low half
 * latches the high half. */
rdtsc_trapped:
  addq $2, 8(%rsp)
  add $8, %rsp
  in $0xe8, %eax
  mov %eax, %edx
  in $0xec, %eax
  xchg %eax, %edx
  iretq

/* The halting gate. RDI = event count the caller has seen, RSI = tick to wait for, EDX = queues to kick
 * (bit n: queue n). Kicks, then sleeps until either count moves on. RAX is clobbered. Interrupts are
 * off outside the HLT, so an event between the check and the HLT cannot be missed: STI holds them off
 * for one more instruction. */
gate:
  incq 8(%rsp)
  add $8, %rsp
  test $2, %dl
  jz 1f
  mov SHARED+{NOTIFY_TX}(%rip), %rax
  movw $1, (%rax)
1:
  test $1, %dl
  jz 2f
  mov SHARED+{NOTIFY_RX}(%rip), %rax
  movw $0, (%rax)
2:
  cmp %rdi, SHARED+{EVENTS}(%rip)
  jne 3f
  cmp %rsi, SHARED+{TICKS}(%rip)
  jae 3f
  sti
  hlt
  cli
  jmp 2b
3:
  iretq

/* IRQ 0: the PIT. */
irq_tick:
  incq SHARED+{TICKS}(%rip)
  iretq

/* Every other IRQ. Only the lines of the network device and of a disk are unmasked; reading their ISR
 * registers lowers the level-triggered lines, which must happen before IRETQ enables interrupts again. */
irq_device:
  push %rax
  mov SHARED+{ISR}(%rip), %rax
  test %rax, %rax
  jz 1f
  movzbl (%rax), %eax
1:
  mov SHARED+{DISK_ISR}(%rip), %rax
  test %rax, %rax
  jz 2f
  movzbl (%rax), %eax
2:
  incq SHARED+{EVENTS}(%rip)
  pop %rax
  iretq

/* Exceptions that are errors. Each vector pushes an error code where the CPU does not, and its number. */
.macro EXCEPTION vector
  .if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
  .else
  .set no_code_\vector, 1
  .endif
exception_\vector:
  .ifdef no_code_\vector
  pushq $0
  .endif
  pushq $\vector
  jmp fault
.endm
.altmacro
.macro EXCEPTION_N n
  EXCEPTION %n
.endm
.set vector, 0
.rept 32
  .if vector != 13
  EXCEPTION_N vector
  .endif
  .set vector, vector + 1
.endr

/* Hands the report to CPL3, which owns the console. A second fault while reporting ends it here. */
fault:
  cmpq $0, SHARED+{FAULTED}(%rip)
  jne reset
  movq $1, SHARED+{FAULTED}(%rip)
  pop %rax
  mov %rax, SHARED+{FAULT_VECTOR}(%rip)
  pop %rax
  mov %rax, SHARED+{FAULT_ERROR}(%rip)
  pop %rax
  mov %rax, SHARED+{FAULT_RIP}(%rip)
  mov %cr2, %rax
  mov %rax, SHARED+{FAULT_CR2}(%rip)
  mov $cpl0_stack_top, %esp
  mov ${FAULT_MAIN}, %eax
  jmp enter_user

reset:
  mov $0xfe, %al                 /* i8042: pulse the CPU's reset line */
  out %al, $0x64
1:
  cli
  hlt
  jmp 1b
