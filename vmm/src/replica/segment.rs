//! Stretches: what a VM does by itself, from one thing that nobody could have foreseen to the next.
//!
//! An output of a stretch needs the log up to the stretch's beginning and no more: whoever has that much
//! makes the same output, because what happens on the way to it follows from the machine's state. So a
//! primary lets it go once the *beginning* is acknowledged, which may have been sent, and acknowledged,
//! while the guest was still at work. For that to be true, whoever goes live must first come to the end
//! of the stretch that the dead primary may have been in, and take nothing in before.
//!
//! ```text
//!  log        frame, interrupt |  exit, exit, output            | clock, interrupt | ...
//!                              ^ beginning: the output needs     ^ the next thing that nobody foresaw
//!                                this much                         ends the stretch
//!
//!  primary    runs the guest --------------> output leaves: the beginning is acknowledged
//!  backup     goes live with the log's end anywhere in the stretch; no input, no interrupt but those
//!             that follow from the machine's state, until the guest reads what nobody can foresee, or
//!             halts with nothing to do: catching up
//! ```
//!
//! A guest may compute for ever without either, and then somebody must end its stretch; but not before it
//! has come as far as the primary did. No position in the middle of a region can be named, so time must
//! tell: a primary lets outputs go by this rule only in the first moments of a stretch
//! ([`early_release_window`](super::ReplicaConfig::early_release_window); later ones need their own entry acknowledged), and
//! whoever catches up does so for [`SLOWER_MAX`] times as long of running: it may be that much slower.

use super::engine::Replica;
use super::mutant::Mutant;
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::time::{Duration, Time};

/// How far into a stretch outputs leave without an acknowledgement of their own, unless told otherwise.
pub(super) const EARLY_RELEASE_WINDOW: Duration = Duration::from_micros(200);

/// How many times slower the machine may be that catches up.
const SLOWER_MAX: u64 = 100;

/// What one run, from an entry to the next exit or interruption, counts for at most: one that took longer
/// may have been one of a host that stood still.
const RUN_MAX: Duration = Duration::from_millis(1);

/// Of a primary: the stretch that its VM is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// Where its beginning ends, over all sessions.
    position: u64,
    /// When that was logged.
    begun_at: Time,
}

/// Of a machine that has just gone live: what it owes to the dead primary's stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplayOut {
    left: Duration,
    /// When the run began that it is in.
    since: Time,
}

/// Whether an entry tells of something that does not follow from what is before it.
fn is_nondeterministic(entry: &Entry<'_>) -> bool {
    match entry {
        Entry::Exit { .. } | Entry::Output { .. } => false,
        // An interrupt at an exit follows from the machine's state, too; at a window or after a
        // checkpoint it may not.
        Entry::UserWindow { .. }
        | Entry::Clock { .. }
        | Entry::WallClock { .. }
        | Entry::Entropy(_)
        | Entry::Frame(_)
        | Entry::Console(_)
        | Entry::Interrupt { .. }
        | Entry::CheckpointBegin { .. }
        | Entry::Page { .. }
        | Entry::CheckpointEnd { .. }
        | Entry::End { .. } => true,
    }
}

impl Replica {
    /// `entry` is in the log.
    pub(super) fn begin_segment(&mut self, now: Time, entry: &Entry<'_>) {
        let assumes_time = self.planted(Mutant::AssumeTimeDeterministic);
        if !is_nondeterministic(entry) || assumes_time && matches!(entry, Entry::Clock { .. }) {
            return;
        }
        let appended = self.channel().map_or(0, |channel| channel.appended(Lane::Latency).0);
        self.segment = Segment { position: self.log_base + appended, begun_at: now };
    }

    /// What an output that is made at `now` needs; its own entry ends at the watermark.
    pub(super) fn release_at(&self, now: Time) -> u64 {
        let Segment { position, begun_at } = self.segment;
        let is_early = now.since(begun_at) <= self.config.early_release_window;
        if is_early { position.min(self.watermark) } else { self.watermark }
    }

    /// Everything that waits to leave needs no more of this session's log than its first `sent` bytes.
    pub fn is_releasable_by(&self, sent: u64) -> bool {
        self.hold.newest_release_at().is_none_or(|release_at| release_at <= self.log_base + sent)
    }

    /// The machine goes live.
    pub(super) fn begin_replay_out(&mut self, now: Time) {
        let is_planted = self.planted(Mutant::InputsBeforeReplayOut);
        let replay_out =
            ReplayOut { left: self.config.early_release_window * SLOWER_MAX, since: now };
        self.replay_out = (!is_planted).then_some(replay_out);
    }

    /// Whether nothing may enter the machine yet.
    pub(super) fn is_replaying_out(&self) -> bool {
        self.replay_out.is_some()
    }

    /// The guest asks for what nobody can foresee, or has nothing to do: whatever the dead primary let go
    /// was made before.
    pub(super) fn end_replay_out(&mut self) {
        self.replay_out = None;
    }

    /// A run begins.
    pub(super) fn run_begins(&mut self, now: Time) {
        if let Some(replay_out) = &mut self.replay_out {
            replay_out.since = now;
        }
    }

    /// A run has ended, or was interrupted and goes on.
    pub(super) fn run_ended(&mut self, now: Time) {
        let Some(replay_out) = &mut self.replay_out else { return };
        let ran = now.since(replay_out.since).min(RUN_MAX);
        replay_out.since = now;
        replay_out.left = replay_out.left.saturating_sub(ran);
        if replay_out.left == Duration::ZERO {
            self.replay_out = None;
        }
    }
}
