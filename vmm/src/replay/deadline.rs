//! The deadline of a pending input: how long a guest that makes no exit may delay it.
//!
//! A one-shot timer kicks the vCPU. It is armed before a region is entered, unless it is already armed,
//! and stays armed across exits. So it costs one timer call per `after` of guest time, and not one per
//! exit. If it fires in the region that it was armed for, the guest has made no exit for `after`; a
//! pending input then ends the region in a checkpoint. If it fires in a later region, it is armed again.
//! An input therefore waits for at most twice the deadline.

use crate::kvm::KvmError;
use crate::kvm::clock::monotonic_ns;
use crate::kvm::kick::KickTimer;
use std::time::Duration;

/// The deadline timer of one vCPU thread. It belongs to that thread.
#[derive(Debug)]
pub(super) struct Deadline {
    timer: KickTimer,
    after: Duration,
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    /// Host monotonic time, nanoseconds.
    at_ns: u64,
    /// Number of positions that were reached before it was armed.
    position: u64,
}

impl Deadline {
    /// Creates the timer for the calling thread.
    pub(super) fn new(after: Duration) -> Result<Deadline, KvmError> {
        Ok(Deadline { timer: KickTimer::new()?, after, armed: None })
    }

    /// Arms the timer if necessary. Call it before the region after `position` is entered.
    pub(super) fn entering(&mut self, position: u64) -> Result<(), KvmError> {
        if self.armed.is_none() {
            self.arm(position)?;
        }
        Ok(())
    }

    fn arm(&mut self, position: u64) -> Result<(), KvmError> {
        // The clock is read before the timer is armed, so a kick of this timer never seems early, no
        // matter how long this thread is delayed in between.
        let at_ns = monotonic_ns();
        self.timer.arm(self.after)?;
        self.armed = Some(Armed { at_ns, position });
        Ok(())
    }

    /// Returns whether the region after `position`, in which the vCPU was kicked, has lasted `after`. If
    /// the deadline has passed, the timer is armed again.
    pub(super) fn passed(&mut self, position: u64) -> Result<bool, KvmError> {
        let Some(armed) = self.armed else { return Ok(false) };
        let waited = monotonic_ns().saturating_sub(armed.at_ns);
        if u128::from(waited) < self.after.as_nanos() {
            return Ok(false);
        }
        self.arm(position)?;
        Ok(armed.position == position)
    }

    /// Disarms the timer, because the guest waits. There is no kick until the next entry.
    pub(super) fn idle(&mut self) -> Result<(), KvmError> {
        if self.armed.take().is_some() {
            self.timer.disarm()?;
        }
        Ok(())
    }
}
