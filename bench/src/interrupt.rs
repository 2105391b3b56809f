//! Handles Ctrl-C during a measurement: the current round ends, and all VMs and namespaces are removed.

use crate::error::BenchError;
use signal_hook::flag::{register, register_conditional_shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use testbed::TestbedError;
use vmm::cli::signals;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Returns the flag that the first signal sets; installs the handlers on the first call. A second
/// signal ends the process at once.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, BenchError> {
    if let Some(flag) = INTERRUPTED.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in signals::ending() {
        // The order matters: at the first signal the shutdown handler must find the flag still clear.
        register_conditional_shutdown(signal, 1, Arc::clone(&flag))
            .and_then(|_| register(signal, Arc::clone(&flag)))
            .map_err(BenchError::os("listening for signals"))?;
    }
    Ok(flag)
}

/// Returns [`TestbedError::Interrupted`] after a signal.
pub(crate) fn check() -> Result<(), BenchError> {
    match flag()?.load(Ordering::Relaxed) {
        true => Err(TestbedError::Interrupted.into()),
        false => Ok(()),
    }
}
