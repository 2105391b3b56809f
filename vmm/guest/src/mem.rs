//! Memory: the functions the compiler calls by name, and statics that are handed out once.
//!
//! `memcpy` and its family are assembly because a loop written in Rust may be compiled into a call to
//! itself. Up to 32 bytes, the usual header field or small packet, take two overlapping moves; the rest
//! is left to the string instructions, which real CPUs do fast.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

global_asm!(
    r#"
.section .text.mem, "ax", @progbits
.globl memcpy, memmove, memset, memcmp, bcmp

/* All loads of a small copy come before its stores, so it serves overlapping areas too. */
memmove:
    cmp rdx, 32
    jbe small_copy
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx                    /* unsigned: destination starts inside the source */
    jb backward_copy
memcpy:
    cmp rdx, 32
    jbe small_copy
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

small_copy:
    mov rax, rdi
    cmp edx, 16
    jb 1f
    movups xmm0, [rsi]
    movups xmm1, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + rdx - 16], xmm1
    ret
1:  cmp edx, 8
    jb 2f
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
2:  cmp edx, 4
    jb 3f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
3:  cmp edx, 2
    jb 4f
    movzx ecx, word ptr [rsi]
    movzx r8d, byte ptr [rsi + rdx - 1]
    mov [rdi], cx
    mov [rdi + rdx - 1], r8b
    ret
4:  test edx, edx
    jz 5f
    movzx ecx, byte ptr [rsi]
    mov [rdi], cl
5:  ret

/* From the end, 8 bytes at a time; the last few bytes at the start one by one. */
backward_copy:
    mov rax, rdi
6:  mov rcx, [rsi + rdx - 8]
    mov [rdi + rdx - 8], rcx
    sub rdx, 8
    cmp rdx, 8
    jae 6b
    test rdx, rdx
    jz 8f
7:  movzx ecx, byte ptr [rsi + rdx - 1]
    mov [rdi + rdx - 1], cl
    dec rdx
    jnz 7b
8:  ret

memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

memcmp:
bcmp:
    xor ecx, ecx
9:  lea r8, [rcx + 8]
    cmp r8, rdx
    ja 10f
    mov rax, [rdi + rcx]
    cmp rax, [rsi + rcx]
    jne 10f
    mov rcx, r8
    jmp 9b
10: cmp rcx, rdx
    je 11f
    movzx eax, byte ptr [rdi + rcx]
    movzx r8d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r8d
    jz 10b
    ret
11: xor eax, eax
    ret
"#
);

/// A static buffer with one owner: whoever takes it first has it for good.
pub(crate) struct Once<T> {
    value: UnsafeCell<T>,
    taken: AtomicBool,
}

// SAFETY: `take` gives out the only reference there will ever be, and moving it to another context is
// what `T: Send` allows.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), taken: AtomicBool::new(false) }
    }

    /// # Panics
    ///
    /// On the second call.
    #[expect(clippy::mut_from_ref, reason = "it can only be called once")]
    pub(crate) fn take(&'static self) -> &'static mut T {
        assert!(!self.taken.swap(true, Relaxed), "a static buffer was taken twice");
        // SAFETY: the flag was clear, and it is never cleared again: this reference is the only one, and
        // the static it points to lives for ever.
        unsafe { &mut *self.value.get() }
    }
}

/// The `Once` around a zeroed or constant static of the given type, taken on the spot.
macro_rules! once {
    ($type:ty, $init:expr) => {{
        static CELL: $crate::mem::Once<$type> = $crate::mem::Once::new($init);
        CELL.take()
    }};
}
pub(crate) use once;
