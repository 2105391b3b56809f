//! Output commit: decides which frame may leave for the LAN now.
//!
//! | role of this host | when a frame leaves |
//! |---|---|
//! | standalone | at once |
//! | primary that holds the claim of its term, while no backup can take over | at once, except with [`OnBackupLoss::Block`] |
//! | primary whose backup may be able to take over | when the backup has acknowledged the whole VM and the log up to the frame's [`release_at`](super::segment), while the lease is held |
//! | primary that is making a claim; backup; halted | never |

use super::config::OnBackupLoss;
use super::engine::Replica;
use super::mutant::Mutant;
use super::role::{Backup, Primary, Role};
use logchan::time::Time;

/// A frame for the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFrame<'a> {
    /// The frame.
    pub bytes: &'a [u8],
    /// When the VM sent it; `None` for an announcement, which this host makes.
    pub made_at: Option<Time>,
}

impl Replica {
    /// Returns the next frame that may leave for the LAN at `now`. Read the clock immediately before each
    /// call: the lease is checked against `now`. The frame stays in the queue until
    /// [`pop_tap`](Self::pop_tap).
    pub fn poll_tap(&mut self, now: Time) -> Option<TapFrame<'_>> {
        self.announce_pending = !self.may_announce(now);
        if self.announce_pending {
            // An announcement is not kept for later: the next round repeats it.
            self.announcement_bytes = 0;
        } else if self.announcement_bytes == 0 {
            let made = self.announcer.poll_transmit(now.as_nanos(), &mut self.announcement);
            self.announcement_bytes = made.unwrap_or(0);
        }
        if self.announcement_bytes > 0 {
            let bytes = &self.announcement[..self.announcement_bytes];
            return Some(TapFrame { bytes, made_at: None });
        }
        let release_at = self.hold.front()?.release_at;
        if !self.may_release(now, release_at) {
            return None;
        }
        let held = self.hold.front()?;
        Some(TapFrame { bytes: held.frame, made_at: Some(Time::from_nanos(held.made_at_ns)) })
    }

    /// Removes the frame that [`poll_tap`](Self::poll_tap) returned, after it was given to the tap port.
    ///
    /// # Panics
    ///
    /// Panics if [`poll_tap`](Self::poll_tap) returned no frame.
    pub fn pop_tap(&mut self) {
        if self.announcement_bytes > 0 {
            self.announcement_bytes = 0;
            return;
        }
        let held = self.hold.front().expect("poll_tap showed a frame");
        let watermark = held.watermark;
        self.unflushed_output = Some(watermark);
        self.hold.pop();
        if let Role::Primary(Primary::Protected(_)) = self.role
            && let Some(channel) = self.channel()
        {
            let is_early = watermark > self.log_base + channel.acked().0;
            self.stats.released_early += u64::from(is_early);
        }
        self.stats.released += 1;
    }

    /// The tap port has sent the frames that it was given. Reports this to the backup, which then drops
    /// its copies of those outputs.
    pub fn tap_flushed(&mut self) {
        let Some(flushed) = self.unflushed_output.take() else { return };
        let Role::Primary(Primary::Protected(_)) = self.role else { return };
        // The backup of this session does not keep outputs of earlier sessions.
        let released = flushed.saturating_sub(self.log_base);
        if let Some(channel) = self.channel_mut() {
            channel.set_executed(released);
        }
    }

    /// Returns whether this host may announce the VM on the LAN at `now`. An announcement needs the claim
    /// of the term and the lease, but no acknowledgement: it reveals nothing of the VM's state.
    fn may_announce(&self, now: Time) -> bool {
        match &self.role {
            Role::Primary(_) if self.planted(Mutant::AnnounceWithoutRight) => true,
            Role::Primary(Primary::Alone | Primary::Copying(_)) => true,
            Role::Primary(Primary::Protected(_)) => {
                self.channel().is_some_and(|channel| channel.lease_held(now))
            }
            Role::Primary(Primary::Starting(_) | Primary::Losing(_))
            | Role::Standalone
            | Role::Backup(_)
            | Role::Halted(_) => false,
        }
    }

    /// Returns whether an output with this `release_at` may leave at `now`.
    fn may_release(&self, now: Time, release_at: u64) -> bool {
        match &self.role {
            Role::Standalone => true,
            Role::Primary(primary) => match primary {
                Primary::Alone | Primary::Copying(_) => {
                    !self.is_blocked() || self.planted(Mutant::SpeakWhileBlocked)
                }
                Primary::Protected(protected) => {
                    if !protected.is_confirmed && self.planted(Mutant::FreeUntilProtected) {
                        return true;
                    }
                    let Some(channel) = self.channel() else { return false };
                    let acked = channel.acked();
                    let committed =
                        acked >= protected.sync_end && release_at <= self.log_base + acked.0;
                    (committed || self.planted(Mutant::ReleaseBeforeAck))
                        && (channel.lease_held(now) || self.planted(Mutant::ReleaseWithoutLease))
                }
                Primary::Losing(_) => self.planted(Mutant::ReleaseWhileClaiming),
                Primary::Starting(_) => false,
            },
            Role::Backup(Backup::Finishing | Backup::Claiming(_)) => {
                self.planted(Mutant::TapBeforeClaim)
            }
            Role::Backup(_) | Role::Halted(_) => false,
        }
    }

    /// Returns whether the VM must not run or send output until a backup holds it ([`OnBackupLoss::Block`]).
    pub(super) fn is_blocked(&self) -> bool {
        let may_go_on = match self.config.on_backup_loss {
            OnBackupLoss::Continue => true,
            OnBackupLoss::Block => false,
        };
        !may_go_on && matches!(self.role, Role::Primary(Primary::Alone | Primary::Copying(_)))
    }

    /// Handles the progress that the other host reported.
    pub(super) fn peer_executed(&mut self, up_to: u64) {
        // A primary reports the position up to which it has released outputs; those need not be kept.
        if let Role::Backup(Backup::Following) = self.role {
            self.hold.drop_up_to(self.log_base + up_to);
        }
    }
}
