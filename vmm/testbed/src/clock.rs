//! The clocks whose times are compared with those of other processes and of the kernel.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Returns CLOCK_BOOTTIME, the clock of the event logs, in nanoseconds.
pub(crate) fn boottime_ns() -> u64 {
    read_ns(ClockId::CLOCK_BOOTTIME)
}

/// Returns CLOCK_REALTIME, the clock of the kernel's timestamps of frames, in nanoseconds.
pub(crate) fn realtime_ns() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME)
}

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("every kernel has this clock");
    Duration::from(time).as_nanos() as u64
}
