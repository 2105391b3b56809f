//! Ctrl-C in a measurement with VMs and namespaces: the turn under way ends, and everything is taken down.

use crate::error::BenchError;
use signal_hook::flag::{register, register_conditional_shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use vmm::cli::signals;
use vmm::demo::DemoError;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// What the first signal sets, once this was called. A second one ends the process at once.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, BenchError> {
    if let Some(flag) = INTERRUPTED.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in signals::ending() {
        // In this order: the first signal finds the flag clear.
        register_conditional_shutdown(signal, 1, Arc::clone(&flag))
            .and_then(|_| register(signal, Arc::clone(&flag)))
            .map_err(BenchError::os("listening for signals"))?;
    }
    Ok(flag)
}

/// Fails after a signal.
pub(crate) fn check() -> Result<(), BenchError> {
    match flag()?.load(Ordering::Relaxed) {
        true => Err(DemoError::Interrupted.into()),
        false => Ok(()),
    }
}
