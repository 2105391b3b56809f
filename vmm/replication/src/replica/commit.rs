//! Output commit: decides which frame may leave for the LAN now.
//!
//! | role of this host | when a frame leaves |
//! |---|---|
//! | standalone | at once |
//! | primary that holds the claim of its term, while no backup can take over | at once, except with [`OnBackupLoss::Block`] |
//! | primary whose backup may be able to take over | when the backup has acknowledged the whole VM and the log up to the frame's [`release_at`](super::segment), and has executed the completion of the last flush of a disk before the frame, while the lease is held |
//! | primary that is making a claim; backup; halted | never |

use super::config::OnBackupLoss;
use super::engine::Replica;
use super::role::{Backup, Primary, Role};
use super::segment::Segment;
use crate::hold::{Held, HoldLimits, HoldQueue, Positions};
use crate::mutant::Mutant;
use logchan::time::{Duration, Time};

/// A frame for the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFrame<'a> {
    /// The frame.
    pub bytes: &'a [u8],
    /// When the VM sent it; `None` for an announcement, which this host makes.
    pub made_at: Option<Time>,
}

/// Outputs that may not leave yet, or, on a backup, that the primary may not have released. Log positions
/// are counted over all sessions.
#[derive(Debug)]
pub(super) struct OutputCommit {
    hold: HoldQueue,
    /// Log position behind the newest output's entry.
    watermark: u64,
    /// Log position behind the completion of the newest flush of a disk that outputs wait for.
    durable_at: u64,
    /// The deterministic segment that the VM is in.
    segment: Segment,
    /// How long after the start of a segment its outputs leave early; zero if none does.
    early_release_window: Duration,
    /// Watermark of the newest output that was given to the tap port and has not been flushed.
    unflushed: Option<u64>,
    /// When a frame was last allowed to leave.
    spoke_at: Time,
}

impl OutputCommit {
    pub(super) fn new(limits: HoldLimits, early_release_window: Duration) -> OutputCommit {
        OutputCommit {
            hold: HoldQueue::new(limits),
            watermark: 0,
            durable_at: 0,
            segment: Segment::default(),
            early_release_window,
            unflushed: None,
            spoke_at: Time::default(),
        }
    }

    /// Returns the outputs, for queries.
    pub(super) fn queue(&self) -> &HoldQueue {
        &self.hold
    }

    /// Returns the log position behind the newest output's entry.
    pub(super) fn watermark(&self) -> u64 {
        self.watermark
    }

    /// A nondeterministic entry was logged, which ends at `position`: it begins a new segment.
    pub(super) fn begin_segment(&mut self, now: Time, position: u64) {
        self.segment = Segment { position, started_at: now };
    }

    /// The log of another session begins behind the newest output.
    pub(super) fn log_begins(&mut self) {
        self.durable_at = self.durable_at.min(self.watermark);
    }

    /// The completion of a flush was logged, which ends at `position`: outputs from here on wait until the backup has
    /// executed it.
    pub(super) fn flush_logged(&mut self, position: u64) {
        self.durable_at = position;
    }

    /// The entry of an output was logged or executed, and ends at `position`.
    pub(super) fn output_logged(&mut self, position: u64) {
        self.watermark = position;
    }

    /// Returns the log position that must be acknowledged before an output made at `now` may leave: the
    /// segment's beginning within the early-release window, and otherwise the watermark, which is the end of
    /// the output's own entry.
    pub(super) fn release_at(&self, now: Time) -> u64 {
        let Segment { position, started_at } = self.segment;
        // With a window of zero, not even an output at the segment's start is early.
        let is_early = now.since(started_at) < self.early_release_window;
        if is_early { position.min(self.watermark) } else { self.watermark }
    }

    /// Keeps `frame`, for which the queue has room, until `release_at` is acknowledged.
    pub(super) fn hold(&mut self, now: Time, release_at: u64, frame: &[u8]) {
        let &mut OutputCommit { watermark, durable_at, .. } = self;
        let durable_at = durable_at.min(watermark);
        let positions = Positions { release_at, durable_at, watermark };
        self.hold.push(positions, now.as_nanos(), frame).expect("there was room");
    }

    /// Returns whether every output needs at most the log up to `position`.
    fn is_releasable_by(&self, position: u64) -> bool {
        self.hold.newest_release_at().is_none_or(|release_at| release_at <= position)
    }

    /// Returns when a frame was last allowed to leave.
    pub(super) fn spoke_at(&self) -> Time {
        self.spoke_at
    }

    fn front(&self) -> Option<Held<'_>> {
        self.hold.front()
    }

    /// Removes the oldest output, which was given to the tap port, and returns its watermark.
    fn pop(&mut self) -> u64 {
        let watermark = self.hold.front().expect("poll_tap showed a frame").watermark;
        self.unflushed = Some(watermark);
        self.hold.pop();
        watermark
    }

    /// Drops the outputs up to `position`: the primary has released them.
    pub(super) fn drop_up_to(&mut self, position: u64) {
        self.hold.drop_up_to(position);
    }

    /// Drops every output.
    pub(super) fn clear(&mut self) {
        self.hold.clear();
        self.unflushed = None;
    }
}

impl Replica {
    /// Returns the next frame that may leave for the LAN at `now`. Read the clock immediately before each
    /// call: the lease is checked against `now`. The frame stays in the queue until
    /// [`pop_tap`](Self::pop_tap).
    pub fn poll_tap(&mut self, now: Time) -> Option<TapFrame<'_>> {
        let may_announce = self.may_announce(now);
        if self.announcements.poll(now, may_announce) {
            self.commit.spoke_at = now;
            return Some(TapFrame { bytes: self.announcements.frame(), made_at: None });
        }
        let Held { release_at, durable_at, .. } = self.commit.front()?;
        if !self.may_release(now, release_at, durable_at) {
            return None;
        }
        self.commit.spoke_at = now;
        let held = self.commit.front()?;
        Some(TapFrame { bytes: held.frame, made_at: Some(Time::from_nanos(held.made_at_ns)) })
    }

    /// Removes the frame that [`poll_tap`](Self::poll_tap) returned, after it was given to the tap port.
    ///
    /// # Panics
    ///
    /// Panics if [`poll_tap`](Self::poll_tap) returned no frame.
    pub fn pop_tap(&mut self) {
        if self.announcements.pop() {
            return;
        }
        let watermark = self.commit.pop();
        if let Role::Primary(Primary::Protected(_)) = self.role
            && let Some(channel) = self.session.channel()
        {
            let is_early = watermark > self.session.absolute(channel.acked().0);
            self.stats.released_early += u64::from(is_early);
        }
        self.stats.released += 1;
    }

    /// The tap port has sent the frames that it was given. Reports this to the backup, which then drops
    /// its copies of those outputs.
    pub fn tap_flushed(&mut self) {
        let Some(flushed) = self.commit.unflushed.take() else { return };
        let Role::Primary(Primary::Protected(_)) = self.role else { return };
        // The backup of this session does not keep outputs of earlier sessions.
        let released = self.session.relative(flushed);
        if let Some(channel) = self.session.channel_mut() {
            channel.set_executed(released);
        }
    }

    /// Returns whether no held output needs more of this session's log than its first `sent` bytes.
    pub fn is_releasable_by(&self, sent: u64) -> bool {
        self.commit.is_releasable_by(self.session.absolute(sent))
    }

    /// Returns whether this host speaks for the VM at `now`: whether output may be shown that waits for no
    /// acknowledgement.
    pub fn speaks(&self, now: Time) -> bool {
        match &self.role {
            Role::Standalone => true,
            Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => self.may_announce(now),
        }
    }

    /// Returns whether this host may announce the VM on the LAN at `now`. An announcement needs the claim
    /// of the term and the lease, but no acknowledgement: it reveals nothing of the VM's state.
    fn may_announce(&self, now: Time) -> bool {
        match &self.role {
            Role::Primary(_) if self.planted(Mutant::AnnounceWithoutRight) => true,
            Role::Primary(Primary::Alone | Primary::Copying(_)) => true,
            Role::Primary(Primary::Protected(_)) => {
                self.session.channel().is_some_and(|channel| channel.lease_held(now))
            }
            Role::Primary(Primary::Starting(_) | Primary::HandingOver(_) | Primary::Losing(_))
            | Role::Standalone
            | Role::Backup(_)
            | Role::Halted(_) => false,
        }
    }

    /// Returns whether an output with these positions may leave at `now`.
    fn may_release(&self, now: Time, release_at: u64, durable_at: u64) -> bool {
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
                    let Some(channel) = self.session.channel() else { return false };
                    let acked = channel.acked();
                    let is_durable = durable_at
                        <= self.session.absolute(self.session.peer_executed())
                        || self.planted(Mutant::FlushLocalOnly);
                    let committed = acked >= protected.sync_end
                        && release_at <= self.session.absolute(acked.0)
                        && is_durable;
                    (committed || self.planted(Mutant::ReleaseBeforeAck))
                        && (channel.lease_held(now) || self.planted(Mutant::ReleaseWithoutLease))
                }
                Primary::HandingOver(_) => self.planted(Mutant::ReleaseAfterHandover),
                Primary::Losing(_) => self.planted(Mutant::ReleaseWhileClaiming),
                Primary::Starting(_) => false,
            },
            Role::Backup(Backup::Finishing | Backup::Claiming(_)) => {
                self.planted(Mutant::TapBeforeClaim)
            }
            Role::Backup(
                Backup::Seeking | Backup::Syncing | Backup::Following | Backup::Leaving,
            )
            | Role::Halted(_) => false,
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
            self.commit.drop_up_to(self.session.absolute(up_to));
        }
    }
}
