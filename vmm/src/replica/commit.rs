//! Output commit: which frame may leave now.
//!
//! | this host is | a frame leaves |
//! |---|---|
//! | standalone | at once |
//! | a primary that holds the claim of its term, and no backup that could take over | at once, unless it is told to `Block` |
//! | a primary with such a backup | once the backup holds the whole VM and all of the log that [led to](super::stretch) the frame, while the lease is held |
//! | a primary that asks for a claim; a backup; over | never |

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
    /// When the VM made it; `None` for an announcement of ours.
    pub made_at: Option<Time>,
}

impl Replica {
    /// The next frame that may leave for the LAN at `now`: a reading of the clock that is as fresh as
    /// can be, because the lease is checked against it. It stays until [`pop_tap`](Self::pop_tap).
    pub fn poll_tap(&mut self, now: Time) -> Option<TapFrame<'_>> {
        self.announce_pending = !self.may_announce(now);
        if self.announce_pending {
            // Announcements are made for the moment; a later round repeats them.
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
        if !self.may_leave(now, release_at) {
            return None;
        }
        let held = self.hold.front()?;
        Some(TapFrame { bytes: held.frame, made_at: Some(Time::from_nanos(held.made_at_ns)) })
    }

    /// The frame that [`poll_tap`](Self::poll_tap) showed was given to the LAN's port.
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

    /// The port has sent what it was given: the backup need not keep those outputs any more.
    pub fn tap_flushed(&mut self) {
        let Some(handed) = self.unflushed_output.take() else { return };
        let Role::Primary(Primary::Protected(_)) = self.role else { return };
        // Frames of before this session are nobody's to keep.
        let released = handed.saturating_sub(self.log_base);
        if let Some(channel) = self.channel_mut() {
            channel.set_executed(released);
        }
    }

    /// Whether the LAN may be told at `now` that the VM lives here. That needs the right to speak, but
    /// nobody's acknowledgement: it reveals nothing of the VM's state.
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

    fn may_leave(&self, now: Time, release_at: u64) -> bool {
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

    /// Whether this VM must do nothing that shows before a backup has it.
    pub(super) fn is_blocked(&self) -> bool {
        let may_go_on = match self.config.on_backup_loss {
            OnBackupLoss::Continue => true,
            OnBackupLoss::Block => false,
        };
        !may_go_on && matches!(self.role, Role::Primary(Primary::Alone | Primary::Copying(_)))
    }

    /// What the other host says of its progress.
    pub(super) fn peer_executed(&mut self, up_to: u64) {
        // A primary's progress is what it released: that much need not be kept here.
        if let Role::Backup(Backup::Following) = self.role {
            self.hold.drop_up_to(self.log_base + up_to);
        }
    }
}
