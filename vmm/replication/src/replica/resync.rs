//! When a backup is synced again whose protection does not last.
//!
//! A guest can end the protection of its own VM: with code that no backup can repeat (an RDTSC that it makes at run time),
//! or by writing more pages than the log link carries. A slow link, or one that loses frames, does the same. Each time, the
//! backup comes back and receives the whole memory, which loads both hosts and the link, to no avail.
//!
//! So a primary counts the syncs of one backup process that failed, or whose protection lasted for less than
//! [`ResyncPace::stable`], in a row. After some of them, the next sync begins after a delay that doubles. A process that
//! was started again is another one: its first sync begins at once.

use super::converge::CopyProgress;
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::role::{Primary, Role};
use super::stall::StallCause;
use crate::mutant::Mutant;
use core::fmt::{self, Display};
use logchan::ids::Claimant;
use logchan::limits::PAGE_BYTES;
use logchan::time::{Duration, Time};

/// How soon a backup whose protection did not last is synced again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncPace {
    /// Failures in a row after which the next sync begins at once.
    pub free: u32,
    /// Delay after one failure more. It doubles with each further one.
    pub delay_first: Duration,
    /// Longest delay.
    pub delay_max: Duration,
    /// Protection that lasted for this long is no failure.
    pub stable: Duration,
    /// Longest time from the beginning of a sync until its closing checkpoint.
    pub sync_max: Duration,
}

impl Default for ResyncPace {
    fn default() -> ResyncPace {
        ResyncPace {
            free: 3,
            delay_first: Duration::from_millis(1_000),
            delay_max: Duration::from_millis(300_000),
            stable: Duration::from_millis(60_000),
            sync_max: Duration::from_millis(600_000),
        }
    }
}

impl ResyncPace {
    /// Returns the delay after `failures` in a row.
    fn delay(&self, failures: u32) -> Option<Duration> {
        let beyond = failures.checked_sub(self.free + 1)?;
        let factor = 1_u64.checked_shl(beyond).unwrap_or(u64::MAX);
        let nanos = self.delay_first.as_nanos().saturating_mul(factor);
        Some(Duration::from_nanos(nanos).min(self.delay_max))
    }
}

/// Why a backup did not stay in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncLoss {
    /// No frame of it arrived for the silence timeout, and its process lived.
    Silent,
    /// It was heard, and acknowledged nothing in time.
    Stalled(StallCause),
    /// It left: its VM diverged, or it could not apply a checkpoint.
    Left,
    /// Its sync took too long.
    TooLong,
    /// Requests to disks, or the copy of what they wrote last, did not end in time.
    DisksBusy,
    /// The guest writes to its disks faster than they are copied, although it was slowed.
    DisksWrittenTooFast {
        /// Bytes that were left to copy.
        bytes_left: u64,
    },
    /// This host's disk could not be read for the copy.
    DiskFailed {
        /// Index of the disk.
        disk: u8,
    },
    /// The backup sent an invalid message of the disks' copy.
    BadCopy,
    /// The guest writes pages faster than the link carries them, although it was slowed: to send those of the last pass,
    /// the VM would be paused for too long.
    WritesTooFast {
        /// Pages written during the last pass.
        pages: u64,
        /// What the link carried, bytes per second.
        carried_per_s: u64,
    },
}

/// The reason, as the end of a sentence.
impl Display for SyncLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            SyncLoss::Silent => "no frame of the backup arrived in time",
            SyncLoss::Stalled(StallCause::LongFramesLost) => "the log link loses long frames",
            SyncLoss::Stalled(StallCause::Slow) => {
                "the backup's answers took too long: the link, or the backup, is too slow for this VM"
            }
            SyncLoss::Left => "the backup's VM diverged, or it left",
            SyncLoss::TooLong => "the link is too slow to copy the VM",
            SyncLoss::DisksBusy => {
                "requests to disks did not end in time: a disk of this host or of the backup, or the link, is too slow"
            }
            SyncLoss::DisksWrittenTooFast { bytes_left } => {
                let mib = bytes_left >> 20;
                return write!(
                    f,
                    "the guest writes to its disks faster than they are copied ({mib} MiB are left), although it \
                     was slowed: the link or a disk is too slow"
                );
            }
            SyncLoss::DiskFailed { disk } => {
                return write!(f, "disk {disk} of this host could not be read: check it");
            }
            SyncLoss::BadCopy => "the backup sent an invalid message of the disks' copy",
            SyncLoss::WritesTooFast { pages, carried_per_s } => {
                let kib = pages * PAGE_BYTES as u64 / 1024;
                return write!(
                    f,
                    "the guest writes memory faster than the log link carries it: {kib} KiB again and again, \
                     at {} KiB/s",
                    carried_per_s / 1024
                );
            }
        })
    }
}

/// A sync that has not begun yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncDelay {
    /// When it begins.
    pub until: Time,
    /// Failures in a row.
    pub failures: u32,
    /// The last one.
    pub cause: SyncLoss,
}

/// The syncs of one backup that failed in a row.
#[derive(Debug, Default)]
pub(super) struct Resync {
    /// The backup of this session.
    peer: Option<Claimant>,
    failures: u32,
    last: Option<SyncLoss>,
    /// Since when the VM is protected.
    protected_at: Option<Time>,
}

impl Resync {
    /// The host that this session is with.
    pub(super) fn met(&mut self, peer: Claimant) {
        if self.peer.replace(peer) != Some(peer) {
            *self = Resync { peer: Some(peer), ..Resync::default() };
        }
    }

    pub(super) fn protected(&mut self, now: Time) {
        self.protected_at = Some(now);
    }

    fn failed(&mut self, now: Time, cause: SyncLoss, stable: Duration) {
        let protected_at = self.protected_at.take();
        if protected_at.is_some_and(|at| now.since(at) >= stable) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last = Some(cause);
    }
}

impl Replica {
    /// The backup is lost, or its sync is. It may come back.
    pub(super) fn sync_failed(&mut self, now: Time, cause: SyncLoss) {
        self.resync.failed(now, cause, self.config.resync.stable);
    }

    /// Returns the delay of a sync that could begin now.
    pub(super) fn sync_delay_from(&self, now: Time) -> Option<SyncDelay> {
        let delay = self.config.resync.delay(self.resync.failures)?;
        let (failures, cause) = (self.resync.failures, self.resync.last?);
        (!self.planted(Mutant::NeverBackOff)).then_some(SyncDelay {
            until: now + delay,
            failures,
            cause,
        })
    }

    /// Returns the delay of the sync that this primary waits to begin.
    pub fn sync_delay(&self) -> Option<SyncDelay> {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return None };
        precopy.delay
    }

    /// Returns when [`handle_resync`](Self::handle_resync) must be called.
    pub(super) fn resync_timeout(&self) -> Option<Time> {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return None };
        match precopy.delay {
            Some(delay) => Some(delay.until),
            None if self.closes_sync() => None,
            None => precopy.gives_up_at(),
        }
    }

    /// Begins a sync whose delay is over, or gives up one that takes too long.
    pub(super) fn handle_resync(&mut self, now: Time) {
        if self.resync_timeout().is_none_or(|at| at > now) {
            return;
        }
        let ends_at = now + self.config.resync.sync_max;
        let Role::Primary(Primary::Copying(precopy)) = &mut self.role else { return };
        if precopy.delay.take().is_some() {
            precopy.ends_at = ends_at;
            self.emit(ReplicaEvent::SyncBegun);
        } else {
            let cause = match precopy.progress() {
                Some(_) if precopy.is_closing() => SyncLoss::DisksBusy,
                Some(CopyProgress {
                    pass, pages_left, carried_per_s: Some(carried_per_s), ..
                }) if pass > 1 => SyncLoss::WritesTooFast { pages: pages_left, carried_per_s },
                Some(_) | None => SyncLoss::TooLong,
            };
            self.give_up_sync(now, cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_begins_after_the_free_failures_and_doubles() {
        let second = Duration::from_millis(1_000);
        let pace = ResyncPace::default();
        assert_eq!([0, 1, 2, 3].map(|failures| pace.delay(failures)), [None; 4]);
        assert_eq!(pace.delay(4), Some(second));
        assert_eq!(pace.delay(6), Some(second * 4));
        for failures in [20, 80, u32::MAX] {
            assert_eq!(pace.delay(failures), Some(pace.delay_max));
        }
    }

    #[test]
    fn lasting_protection_and_another_process_end_the_row() {
        let (start, stable) = (Time::from_nanos(1 << 40), ResyncPace::default().stable);
        let mut resync = Resync::default();
        resync.met(Claimant(1));
        for _ in 0..3 {
            resync.protected(start);
            resync.failed(start + Duration::from_millis(5), SyncLoss::Left, stable);
            resync.met(Claimant(1));
        }
        assert_eq!(resync.failures, 3);
        resync.protected(start);
        resync.failed(start + stable, SyncLoss::Silent, stable);
        assert_eq!(resync.failures, 1);
        // A sync that did not end in protection is a failure, however long the time since the last one.
        resync.failed(start + stable * 9, SyncLoss::TooLong, stable);
        assert_eq!((resync.failures, resync.last), (2, Some(SyncLoss::TooLong)));
        resync.met(Claimant(2));
        assert_eq!(resync.failures, 0);
    }
}
