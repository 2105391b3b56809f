//! One after the other: two VMs and their clients are as much as a small host can do at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other test of this process holds what this returns. Whoever failed with it left nothing that
/// could disturb.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
