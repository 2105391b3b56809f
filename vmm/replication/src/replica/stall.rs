//! A log link on which the other host is heard, and no output may leave.
//!
//! - It loses long frames only: an interface or a switch whose MTU became smaller does this. The heartbeats are short and
//!   pass, so neither host falls silent, and the lease is extended. But the log does not arrive.
//! - It is slow: every acknowledgement arrives after the lease that it gives has ended, but frames arrive all the time.
//!
//! Every output would wait for as long as this lasts. So a primary gives up such a backup, as if it were silent. The
//! backup hears no more of this session then, and both hosts claim the next term, the primary first.
//!
//! During the precopy no output waits. So the stall is only reported, and the sync is not closed before the link is
//! repaired: see [`is_bulk_received`](Replica::is_bulk_received).

use super::engine::Replica;
use super::event::ReplicaEvent;
use super::resync::SyncLoss;
use super::role::{HandingOver, Primary, Role};
use logchan::ids::Lane;
use logchan::time::{Duration, Time};

/// How long nothing is acknowledged in time before that counts as a stall, in silence timeouts. Every lost segment is
/// sent again five times in one silence timeout at least, so this is more evidence than silence is.
const STALL_SILENCES: u64 = 2;

/// Why no output may leave although the other host is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallCause {
    /// Frames that carry log or memory are lost, and others are not.
    LongFramesLost,
    /// Acknowledgements arrive too late for the lease.
    Slow,
}

impl Replica {
    /// Returns since when no output may leave, although the other host is heard, and why.
    fn stalled(&self) -> Option<(Time, StallCause)> {
        let channel = self.session.channel().filter(|channel| channel.is_open())?;
        let unacked = channel.unacked_since().map(|since| (since, StallCause::LongFramesLost));
        let unleased = channel.unleased_since().map(|since| (since, StallCause::Slow));
        unacked.into_iter().chain(unleased).min_by_key(|&(since, _cause)| since)
    }

    /// Returns when [`handle_stall`](Self::handle_stall) must be called, if nothing changes before.
    pub(super) fn stall_timeout(&self) -> Option<Time> {
        let is_awaited = match &self.role {
            Role::Primary(primary) => match primary {
                Primary::Protected(_) | Primary::HandingOver(_) => true,
                Primary::Copying(precopy) => precopy.stalled_since.is_none(),
                Primary::Starting(_) | Primary::Alone | Primary::Losing(_) => false,
            },
            Role::Standalone | Role::Backup(_) | Role::Halted(_) => false,
        };
        let (since, _cause) = self.stalled().filter(|_| is_awaited)?;
        Some(since + self.stall_max())
    }

    fn stall_max(&self) -> Duration {
        self.config.timing.silence * STALL_SILENCES
    }

    /// Gives up a backup that acknowledges nothing in time, if this has lasted long enough.
    pub(super) fn handle_stall(&mut self, now: Time) {
        if self.stall_timeout().is_none_or(|at| at > now) {
            return;
        }
        let Some((since, cause)) = self.stalled() else { return };
        let handed_over = match &mut self.role {
            Role::Primary(Primary::Copying(precopy)) => {
                precopy.stalled_since = Some(since);
                return self.emit(ReplicaEvent::SyncStalled { since, cause });
            }
            &mut Role::Primary(Primary::HandingOver(HandingOver { after, .. })) => Some(after),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        };
        if let Some(channel) = self.session.channel_mut() {
            // Ends the lease, and sends nothing more: the backup must fall silent, too.
            channel.declare_silent(now);
        }
        self.lose_backup(now, handed_over);
        if handed_over.is_none() {
            self.sync_failed(now, SyncLoss::Stalled(cause));
            self.stats.backups_lost += 1;
            self.emit(ReplicaEvent::BackupStalled { since, cause });
        }
    }

    /// Returns why a sync in progress makes no progress; `None` if it does.
    pub fn sync_stall(&self) -> Option<StallCause> {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return None };
        let (since, cause) = self.stalled()?;
        (precopy.stalled_since == Some(since)).then_some(cause)
    }

    /// Returns whether the backup has received all pages that were sent, and acknowledges in time. A sync is not closed
    /// before: from the closing checkpoint on, output waits for the backup.
    pub(super) fn is_bulk_received(&self) -> bool {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return false };
        self.session.channel().is_some_and(|channel| {
            channel.lane_acked(Lane::Bulk) >= precopy.pages_end
                && channel.unleased_since().is_none()
        })
    }

    /// Returns whether the sync is to be closed: the pages that the backup lacks are few enough for the closing
    /// checkpoint, no request to a disk is in flight, and the backup's disks have the same contents. Once this is true, it stays true until the checkpoint was given to the channel.
    pub(super) fn closes_sync(&self) -> bool {
        matches!(&self.role, Role::Primary(Primary::Copying(precopy)) if precopy.is_closing())
            && self.disks_are_ready()
    }
}
