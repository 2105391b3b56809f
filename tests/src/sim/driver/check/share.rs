//! Checks that a guest that is to be slowed runs for its share of the time at most.

use logchan::time::Duration;
use replication::driver::PAUSE_MAX;
use replication::replica::GuestShare;

use crate::sim::{Checked, require};

/// The rate errors of clocks, and the resolution of times.
const TOLERANCE_PERCENT: u64 = 10;

/// How long a guest ran since it has its share of the time. Times are true, in nanoseconds.
#[derive(Debug, Default)]
pub(in crate::sim::driver) struct Share {
    share: GuestShare,
    since: u64,
    /// How long it ran, and for how long of that since the driver could pause it last.
    ran_ns: u64,
    slice_ns: u64,
    /// For how long it must have been paused.
    owed_ns: u64,
}

impl Share {
    /// The guest ran for `ns`.
    pub(in crate::sim::driver) fn ran(&mut self, ns: u64) {
        self.ran_ns += ns;
        self.slice_ns += ns;
    }

    /// The driver could pause the guest until `now`, and `share` is its share from then on.
    pub(in crate::sim::driver) fn check(&mut self, now: u64, share: GuestShare) -> Checked {
        if self.share != share || share.is_whole() {
            *self = Self { share, since: now, ..Self::default() };
            return Ok(());
        }
        let slice = Duration::from_nanos(std::mem::take(&mut self.slice_ns));
        self.owed_ns += share.pause_after(slice).min(PAUSE_MAX).as_nanos();
        let paused_ns = now - self.since - self.ran_ns;
        require!(
            paused_ns >= self.owed_ns * (100 - TOLERANCE_PERCENT) / 100,
            "a guest with a share of {share} ran for {} ns and was paused for {paused_ns} ns",
            self.ran_ns
        );
        Ok(())
    }
}
