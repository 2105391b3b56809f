/* CPL3: the main loop. Exits of every kind are rare in its computations, so that checkpoints fall into
 * them; XMM0-15 and three x87 registers stay live across everything else that happens. */

.section .user.text, "ax", @progbits
.globl user_main

/* xorshift64 of R12; RAX is the next number. */
random:
  mov %r12, %rax; shl $13, %rax; xor %rax, %r12
  mov %r12, %rax; shr $7, %rax; xor %rax, %r12
  mov %r12, %rax; shl $17, %rax; xor %rax, %r12
  mov %r12, %rax
  ret

user_main:
  fninit
  fld1
  fldpi
  fldl2e
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  FOLD %r12, %rbx
  movq %rbx, %xmm\n
  .endr

next:
  incq OPERATIONS
  FOLD EVENT_HASH, %rbx
  mov %rbx, HASH
  mov TICKS, %rax
  sub PRINTED, %rax; cmp $2000, %rax; jae report
  call random
  mov %r12, %rcx
  shr $30, %rcx                  /* a random word for the operation */
  mov %rcx, %r8
  shr $20, %eax; and $31, %eax
  jmp *operations(, %rax, 8)

/* Nothing but registers, and a write now and then: RCX turns of about 1 ns. */
op_short:
  and $0xfff, %ecx
  jmp compute
op_medium:
  and $0x3ffff, %ecx
  jmp compute
op_long:
  call random
  test $0x70, %al; jnz next
  and $0xffffff, %ecx
compute:
  inc %rcx
1:
  imul $0x5bd1e995, %rbx, %rbx; add %rcx, %rbx
  rol $13, %rbx
  test $0xffff, %ecx; jnz 2f
  mov %rbx, %rdx; shr $20, %rdx; and $7, %edx
  shl $12, %edx
  mov %rbx, arena(%rdx)
2:
  dec %rcx; jnz 1b
  jmp next

/* A computation in all of the SSE registers that never starts anew. */
op_sse:
  test $0x20000, %ecx; jz 1f
  testb $2, FEATURES; jnz op_avx
1:
  test $0x40000, %ecx; jz 1f
  testb $1, FEATURES; jnz op_sse4
1:
  and $0x1ffff, %ecx; inc %rcx
1:
  .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  paddq %xmm\n, %xmm0
  pshufd $0x4b, %xmm0, %xmm0
  pxor %xmm0, %xmm\n
  .endr
  dec %rcx; jnz 1b
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  movq %xmm\n, %rax; FOLD %rax, %rbx
  .endr
  jmp next

/* The same with SSE4; CRC32 and POPCNT of the hash. */
op_sse4:
  and $0xffff, %ecx; inc %rcx
1:
  crc32q %rbx, %rdx
  popcnt %rdx, %rax
  FOLD %rax, %rbx
  pmulld %xmm1, %xmm0
  pshufb %xmm2, %xmm3
  phaddd %xmm0, %xmm4
  paddq %xmm4, %xmm5
  dec %rcx; jnz 1b
  .irp n, 0,3,4,5
  movq %xmm\n, %rax; FOLD %rax, %rbx
  .endr
  jmp next

/* A computation in the AVX registers, which are then sometimes zero in one of two ways: forgotten, or computed.
 * XSAVE must say the same of them when a checkpoint, an interrupt or another task of the host came between. */
op_avx:
  mov %ecx, %r9d
  and $0x3fff, %ecx; inc %rcx
  vpbroadcastq %xmm0, %ymm0
1:
  .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vpaddq %ymm\n, %ymm0, %ymm0
  vpermq $0x93, %ymm0, %ymm0
  vpxor %ymm0, %ymm\n, %ymm\n
  .endr
  dec %rcx; jnz 1b
  test $0x40000, %r9d; jz 1f
  vzeroupper
1:
  test $0x80000, %r9d; jz 1f
  vpcmpeqd %ymm15, %ymm15, %ymm15
  vpabsd %ymm15, %ymm14
  vpaddd %ymm14, %ymm15, %ymm15
1:
  call fold_area
  and $0x3ffff, %r9d; inc %r9d
1:
  imul $0x5bd1e995, %rbx, %rbx; add %r9, %rbx
  dec %r9d; jnz 1b
  call fold_area
  mov $7, %eax
  xor %edx, %edx
  xrstor USER_AREA
  jmp next
fold_area:
  mov $7, %eax
  xor %edx, %edx
  xsave USER_AREA
  mov $832 / 8 - 1, %edx
1:
  FOLD USER_AREA(, %rdx, 8), %rbx
  dec %edx; jns 1b
  ret

/* Rounding mode and results of x87 and SSE; the x87 stack is a queue of three square roots. */
op_float:
  mov %ecx, %eax; and $0x6000, %eax
  or $0x1f80, %eax
  mov %eax, CONTROL
  ldmxcsr CONTROL
  shr $3, %eax; and $0x0c00, %eax
  or $0x037f, %eax
  mov %eax, CONTROL
  fldcw CONTROL
  and $0x3fff, %ecx; inc %rcx
1:
  mov %ebx, CONTROL
  fildq CONTROL                  /* the upper half stays zero */
  fsqrt
  fxch %st(3)
  fstpl CONTROL + 8
  FOLD CONTROL + 8, %rbx
  cvtsi2sd %rbx, %xmm7
  divsd CONTROL + 8, %xmm7
  movq %xmm7, %rax; FOLD %rax, %rbx
  dec %rcx; jnz 1b
  jmp next

/* Reads and writes all over the arena, and through FS and GS. */
op_memory:
  and $0x3ff, %ecx; inc %rcx
1:
  call random
  mov %r12, %rdx
  and $0xfff8, %edx
  add %rax, arena(%rdx)
  dec %rcx; jnz 1b
  FOLD %fs:0, %rbx; FOLD %gs:8, %rbx
  jmp next
op_string:
  mov %ecx, %esi; and $0x7fff, %esi; add $arena, %esi
  shr $5, %ecx
  mov %ecx, %edi; and $0x3fff, %edi; add $arena + 0x9000, %edi
  shr $3, %ecx; and $0x1fff, %ecx
  rep movsb
  jmp next

op_in:
  and $7, %ecx
  movzwl in_ports(, %rcx, 2), %edx
  test $0x100, %r8d; jz 1f
  in %dx, %eax
1:
  in %dx, %al; FOLD %rax, %rbx
  jmp next
op_out:
  and $3, %ecx
  movzwl out_ports(, %rcx, 2), %edx
  mov %ebx, %eax
  out %al, %dx
  jmp next

/* Memory without RAM: reads, writes, and accesses that KVM splits in two. */
op_mmio:
  mov $0xd0000ffc, %edx
  test $1, %ecx; jz 1f
  mov %ebx, (%rdx)
  mov 16(%rdx), %eax
  FOLD %rax, %rbx
  jmp next
1:
  test $2, %ecx; jz 2f
  mov %rbx, (%rdx)               /* across a page */
  mov (%rdx), %rax
  FOLD %rax, %rbx
  jmp next
2:
  movups %xmm3, 4(%rdx)          /* 16 bytes */
  add %rbx, 4(%rdx)
  jmp next

/* Reads the clock, and goes on from another random state. */
op_clock:
  rdtsc
  xor %rax, %r12
  FOLD %rdx, %rbx
  test %r12, %r12; jnz next
  inc %r12
  jmp next

/* The timer's rate: 0.5 to 2.2 ms. */
op_rate:
  and $0x7ff, %ecx; add $600, %ecx
  mov $0x34, %al; out %al, $0x43
  mov %cl, %al
  out %al, $0x40
  mov %ch, %al
  out %al, $0x40
  jmp next

op_kernel:
  ud2
  jmp next

/* As op_idle, but reads by the two entries for a while, without an exit, and then looks whether their accessed bits are
 * set again. They are if the translations were forgotten meanwhile, for example by a checkpoint. A processor with nested
 * paging may forget one at any time, so the command line must ask for this. It sets the bits again at the end: the first
 * write to a page after a checkpoint is a page fault for KVM in a recording, whose log of dirty pages starts anew, and
 * sets the bit there only. */
op_aging:
  cmpb $'a', COMMAND; jne next
  mov %ecx, %edi; and $15, %edi
  shr $4, %ecx; and $0x3ffff, %ecx; inc %rcx
  mov %edi, %edx; shl $12, %edx
  FOLD 0x200000(%rdx), %rbx; FOLD 0x400000(%rdx), %rbx
  andq $~0x20, window_tables(, %rdi, 8)
  andq $~0x20, window_tables + 0x1000(, %rdi, 8)
1:
  FOLD 0x200000(%rdx), %rbx; FOLD 0x400000(%rdx), %rbx
  dec %rcx; jnz 1b
  FOLD window_tables(, %rdi, 8), %rbx
  FOLD window_tables + 0x1000(, %rdi, 8), %rbx
  orq $0x20, window_tables(, %rdi, 8)
  orq $0x20, window_tables + 0x1000(, %rdi, 8)
  jmp next

/* INT 0x30, a few times, each fetched from a page that nothing else is in: a checkpoint may take away the page's entry in
 * the nested page tables. The command line must ask for this: a KVM without VMX or SVM does not execute it. */
op_int:
  cmpb $'s', COMMAND; jne next
  and $0x1f, %ecx; inc %ecx
1:
  call int_page
  dec %ecx; jnz 1b
  jmp next

/* Clears the accessed bit of two entries and forgets no translation, as kernels do that look for idle
 * pages; swaps them later, and forgets then. An entry may be cached although its bit is clear. CPL3
 * writes these entries itself: a KVM that emulates CPL0 would see each write of the stub's. */
op_idle:
  mov %ecx, %edi; and $15, %edi
  mov %edi, %edx; shl $12, %edx
  FOLD 0x200000(%rdx), %rbx; FOLD 0x400000(%rdx), %rbx
  andq $~0x20, window_tables(, %rdi, 8)
  andq $~0x20, window_tables + 0x1000(, %rdi, 8)
  out %al, $0x80                 /* replay runs to here, and then perhaps not at all to the HLT */
  mov window_tables(, %rdi, 8), %rax
  xchg %rax, window_tables + 0x1000(, %rdi, 8)
  mov %rax, window_tables(, %rdi, 8)
  mov $4, %r8d                   /* page_reload; the next operation calls it */
/* Changes page tables, then computes over the window, long enough for a checkpoint now and then. */
op_window_long:
  hlt
  call random
  mov %rax, %rcx
  and $0x7ffff, %ecx
  jmp window
op_window:
  hlt
  and $0xfff, %ecx
window:
  inc %rcx
1:
  mov %rbx, %rdx; shr $17, %rdx
  and $0x20fff8, %edx            /* table, page, word */
  FOLD 0x200000(%rdx), %rbx
  test $0x3f, %ecx; jnz 2f
  mov %rbx, 0x200000(%rdx)
2:
  dec %rcx; jnz 1b
  jmp next

/* One line on the console, with the UART's loopback off. */
report:
  mov TICKS, %rax
  mov %rax, PRINTED
  mov $report_text, %esi; call print
  mov TICKS, %rdi; call print_number
  mov OPERATIONS, %rdi; call print_number
  mov HASH, %rdi; call print_number
  call print_end
  jmp next

print:
  mov $0x3fc, %edx
  xor %eax, %eax
  out %al, %dx
  mov $0x3f8, %edx
1:
  lodsb
  test %al, %al; jz 2f
  out %al, %dx
  jmp 1b
2:
  ret
/* RDI in hexadecimal. */
print_number:
  mov $0x3f8, %edx
  mov $' ', %al; out %al, %dx
  mov $16, %ecx
1:
  rol $4, %rdi
  mov %edi, %eax; and $15, %eax
  mov hex_digits(%rax), %al
  out %al, %dx
  dec %ecx; jnz 1b
  ret
print_end:
  mov $0x3f8, %edx
  mov $'\n', %al; out %al, %dx
  mov $0x3fc, %edx
  mov $0x10, %al; out %al, %dx
  ret

fault_text:  .asciz "hardguest: exception (vector, error, rip, cr2)"
report_text: .asciz "hardguest: ticks, operations, hash"
hex_digits:  .ascii "0123456789abcdef"

.balign 8
operations:
  .quad op_short, op_short, op_short, op_medium, op_long, op_sse, op_sse, op_memory
  .quad op_float, op_memory, op_string, op_memory, op_in, op_in, op_out, op_out
  .quad op_mmio, op_clock, op_rate, op_window, op_window, op_window_long, op_window_long, op_idle
  .quad op_kernel, op_kernel, op_kernel, op_kernel, op_kernel, op_kernel, op_int, op_aging
/* PM timer, PIT, speaker, UART identification and status, RTC, PIC, scratch */
in_ports:  .word 0x608, 0x40, 0x61, 0x3fa, 0x3fd, 0x71, 0x20, 0x3ff
/* progress code, RTC index, loopback (an interrupt), scratch */
out_ports: .word 0x80, 0x70, 0x3f8, 0x3ff
