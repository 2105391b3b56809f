//! The deadline of a pending input: how long a guest that makes no exit may keep one waiting.
//!
//! A one-shot timer kicks the vCPU. It is armed before a region is entered, if it is not armed
//! already, and stays armed across exits, so that the cost is one timer call for each `deadline` of
//! guest time and not one for each exit. When it fires in the region it was armed for, the guest
//! has made no exit for `deadline`: a pending input then ends the region in a checkpoint. When it
//! fires in a later region it is armed anew; an input waits for at most twice the deadline.

use crate::kvm::KvmError;
use crate::kvm::clock::monotonic_ns;
use crate::kvm::kick::KickTimer;
use std::time::Duration;

/// Watches one vCPU thread; belongs to it.
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
    /// Positions reached before.
    position: u64,
}

impl Deadline {
    /// For the calling thread.
    pub(super) fn new(after: Duration) -> Result<Deadline, KvmError> {
        Ok(Deadline { timer: KickTimer::new()?, after, armed: None })
    }

    /// The region after `position` is about to be entered.
    pub(super) fn entering(&mut self, position: u64) -> Result<(), KvmError> {
        if self.armed.is_none() {
            self.arm(position)?;
        }
        Ok(())
    }

    fn arm(&mut self, position: u64) -> Result<(), KvmError> {
        // Read before arming: a kick of this timer then never looks early, however late we run on.
        let at_ns = monotonic_ns();
        self.timer.arm(self.after)?;
        self.armed = Some(Armed { at_ns, position });
        Ok(())
    }

    /// The vCPU was kicked in the region after `position`: has that region lasted `after`? Arms
    /// the timer anew when it was the timer that kicked.
    pub(super) fn passed(&mut self, position: u64) -> Result<bool, KvmError> {
        let Some(armed) = self.armed else { return Ok(false) };
        let waited = monotonic_ns().saturating_sub(armed.at_ns);
        if u128::from(waited) < self.after.as_nanos() {
            return Ok(false);
        }
        self.arm(position)?;
        Ok(armed.position == position)
    }

    /// The guest waits: no kick until the next entry.
    pub(super) fn idle(&mut self) -> Result<(), KvmError> {
        if self.armed.take().is_some() {
            self.timer.disarm()?;
        }
        Ok(())
    }
}
