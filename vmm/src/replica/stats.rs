//! What a replica counted.

use super::guard::Ignored;
use serde::{Deserialize, Serialize};

/// Counters since the replica was made. A plain copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStats {
    /// Backups that were given the memory, to the end.
    pub syncs: u64,
    /// Syncs that were broken off.
    pub syncs_broken: u64,
    /// Pages copied beside the running VM.
    pub pages_copied: u64,
    /// Checkpoints sent, closing ones included.
    pub checkpoints_sent: u64,
    /// Pages of those.
    pub checkpoint_pages: u64,
    /// Checkpoints applied.
    pub checkpoints_applied: u64,
    /// Outputs that left.
    pub released: u64,
    /// Those that left before the backup had their own entry: it would have made them by itself.
    pub released_early: u64,
    /// Outputs of a backup sent again when it went live.
    pub sent_again: u64,
    /// Outputs that a VM without a backup made when it had to stand still and nothing more could be
    /// held.
    pub outputs_dropped: u64,
    /// Times this host went live.
    pub takeovers: u64,
    /// Backups lost.
    pub backups_lost: u64,
    /// Divergences found.
    pub divergences: u64,
    /// Times the machine waited because the backup was too far behind.
    pub lag_waits: u64,
    /// Times the machine waited because its output had to.
    pub hold_waits: u64,
    /// What was ignored, by [`Ignored::index`].
    pub ignored: [u64; Ignored::ALL.len()],
}
