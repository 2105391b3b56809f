//! Load on the machine.

use super::run::Chaos;
use std::sync::atomic::AtomicBool;
use testbed::TestbedError;
use testbed::busy::{on_busy_cores, on_busy_memory};
use testbed::pair::Host;

/// Every core is busy about half of the time, in bursts of up to 20 ms.
pub(super) fn hog_cores(chaos: &mut Chaos<'_, '_, '_>, _primary: Host) -> Result<(), TestbedError> {
    let (seed, begin, stop) = (chaos.random.u64(..), AtomicBool::new(true), AtomicBool::new(false));
    on_busy_cores(seed, &begin, &stop, || chaos.hold(20..=80))?
}

/// A quarter of the available memory, 1 GiB at most, is taken, written and given back, again and again.
pub(super) fn hog_memory(
    chaos: &mut Chaos<'_, '_, '_>,
    _primary: Host,
) -> Result<(), TestbedError> {
    on_busy_memory(|| chaos.hold(20..=80))?
}
