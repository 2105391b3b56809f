//! Proof that `logchan` and `replication` link no std, and so reach no clock, file, socket or thread.
//!
//! This library defines the panic handler that std also defines. If any crate in its dependency graph links
//! std, the compiler rejects the second definition (E0152). The library is built and never run.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use {logchan as _, replication as _};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// An allocator without memory: `alloc` needs one, and std would bring its own.
struct NoMemory;

// SAFETY: every allocation fails, which the contract allows at any time, so there is never a block to return.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;
