//! A lock that serializes tests: two VMs and their clients are as much as a small host can run at a
//! time.

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

/// Takes the lock, waiting for other tests of this process that hold it. A poisoned lock is taken as
/// well, because a failed test leaves nothing behind that could disturb others.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
