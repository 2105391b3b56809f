//! Limits how many tests of a process run VMs at a time, because a small host can't run many.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many tests that only wait most of the time run together.
const TOGETHER: usize = 2;

static FREE: Mutex<usize> = Mutex::new(TOGETHER);
static GIVEN_BACK: Condvar = Condvar::new();

/// The permission to run VMs; it ends on drop, also if the test fails.
#[derive(Debug)]
#[must_use]
pub struct Turn(usize);

/// Waits until no other test of this process has a turn, and lets none begin: for a test that keeps the host
/// busy or compares short times.
pub fn alone() -> Turn {
    take(TOGETHER)
}

/// Waits until another test may run VMs beside those that do.
pub fn together() -> Turn {
    take(1)
}

fn take(turns: usize) -> Turn {
    let mut free = free();
    while *free < turns {
        free = GIVEN_BACK.wait(free).unwrap_or_else(PoisonError::into_inner);
    }
    *free -= turns;
    Turn(turns)
}

fn free() -> MutexGuard<'static, usize> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Turn {
    fn drop(&mut self) {
        *free() += self.0;
        GIVEN_BACK.notify_all();
    }
}
