//! Counters of a replica.

use super::guard::Ignored;
use serde::{Deserialize, Serialize};

/// Counters since the replica was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStats {
    /// Syncs completed.
    pub syncs: u64,
    /// Syncs aborted.
    pub syncs_broken: u64,
    /// Pages copied while the VM ran (precopy).
    pub pages_copied: u64,
    /// Passes over pages that were written during the pass before.
    pub copies_repeated: u64,
    /// Syncs in which the guest was slowed.
    pub guests_slowed: u64,
    /// Checkpoints sent, closing checkpoints of syncs included.
    pub checkpoints_sent: u64,
    /// Pages in the checkpoints sent.
    pub checkpoint_pages: u64,
    /// Checkpoints applied.
    pub checkpoints_applied: u64,
    /// Outputs released.
    pub released: u64,
    /// Outputs released before the backup acknowledged their own entries: the backup would have
    /// reproduced them.
    pub released_early: u64,
    /// Outputs that a backup sent again when it went live.
    pub sent_again: u64,
    /// Outputs dropped because the hold queue was full while the VM was blocked without a backup.
    pub outputs_dropped: u64,
    /// Times this host went live.
    pub takeovers: u64,
    /// Handovers begun, as a primary.
    pub handovers: u64,
    /// Handovers refused: no backup held the whole VM.
    pub handovers_refused: u64,
    /// Handovers after which this host continued.
    pub handovers_failed: u64,
    /// Frames of its own tap that this host passed on when it had handed the VM over.
    pub frames_passed_on: u64,
    /// Frames that the other host passed on, or this one in a handover that failed, and that the VM received here.
    pub passed_frames_taken: u64,
    /// Such frames that were dropped because the queue was full, or that the other host should not have sent.
    pub passed_frames_dropped: u64,
    /// Backups lost.
    pub backups_lost: u64,
    /// Divergences found.
    pub divergences: u64,
    /// Times this host left, as a backup, because of a disk.
    pub disk_faults: u64,
    /// Times the machine waited because the backup's lag was above its limit.
    pub lag_waits: u64,
    /// Times the machine waited because the hold queue was full.
    pub hold_waits: u64,
    /// Events that were dropped because nobody fetched them in time.
    pub events_dropped: u64,
    /// Ignored inputs, indexed by [`Ignored::index`].
    pub ignored: [u64; Ignored::ALL.len()],
}
