//! Checks that a backup whose protection does not last is not synced again and again without a pause.

use logchan::ids::Claimant;
use replication::replica::ReplicaEvent;

use crate::sim::system::process::RESYNC;
use crate::sim::{Checked, require};

/// The syncs that a process has begun, as a primary.
#[derive(Debug, Default)]
pub(crate) struct SyncPace {
    /// The process that it is in a session with.
    peer: Option<Claimant>,
    /// Syncs with this process in a row, none of which led to lasting protection.
    in_row: u32,
    begun_at: u64,
    protected_at: Option<u64>,
}

impl SyncPace {
    /// Takes note of an event at `now`, nanoseconds.
    pub(crate) fn check(&mut self, now: u64, event: &ReplicaEvent) -> Checked {
        match event {
            ReplicaEvent::PeerMet { peer, .. } => {
                let peer = Some(peer.identity.claimant);
                if self.peer != peer {
                    *self = SyncPace { peer, ..SyncPace::default() };
                }
            }
            ReplicaEvent::Protected => self.protected_at = Some(now),
            // Another row begins when this host is a primary again.
            ReplicaEvent::HandingOver | ReplicaEvent::WentLive { .. } => self.in_row = 0,
            ReplicaEvent::SyncBegun => {
                let protected_at = self.protected_at.take();
                if protected_at.is_some_and(|at| now - at >= RESYNC.stable.as_nanos()) {
                    self.in_row = 0;
                }
                self.in_row += 1;
                // The clocks of the hosts differ from the true time by less than that.
                let pause = RESYNC.delay_first.as_nanos() * 3 / 4;
                require!(
                    self.in_row <= RESYNC.free + 1 || now - self.begun_at >= pause,
                    "sync {} in a row begins {} ns after the last one",
                    self.in_row,
                    now - self.begun_at
                );
                self.begun_at = now;
            }
            ReplicaEvent::PeerRefused { .. }
            | ReplicaEvent::TermWon { .. }
            | ReplicaEvent::WitnessUnreachable { .. }
            | ReplicaEvent::WitnessLost
            | ReplicaEvent::WitnessBack
            | ReplicaEvent::ReleaseFailed
            | ReplicaEvent::SyncDelayed(_)
            | ReplicaEvent::SyncStalled { .. }
            | ReplicaEvent::GuestSlowed { .. }
            | ReplicaEvent::GuestSlowedForDisks { .. }
            | ReplicaEvent::GuestNotSlowed
            | ReplicaEvent::SyncGivenUp(_)
            | ReplicaEvent::DisksCopied(_)
            | ReplicaEvent::HandoverFailed
            | ReplicaEvent::LanLost
            | ReplicaEvent::LanBack
            | ReplicaEvent::BackupHealth { .. }
            | ReplicaEvent::BackupSilent { .. }
            | ReplicaEvent::BackupStalled { .. }
            | ReplicaEvent::BackupGone
            | ReplicaEvent::BackupLeft
            | ReplicaEvent::Following
            | ReplicaEvent::PrimarySilent { .. }
            | ReplicaEvent::PrimaryGone { .. }
            | ReplicaEvent::LogFinished
            | ReplicaEvent::Diverged
            | ReplicaEvent::DiskFault(_)
            | ReplicaEvent::Halted(_) => {}
        }
        Ok(())
    }
}
