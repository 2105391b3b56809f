//! Deterministic segments: the execution between two nondeterministic log entries.
//!
//! Within a segment, everything that the VM does follows from its state at the segment's beginning. So an
//! output needs only the log up to the beginning of its segment: a backup that holds that much reproduces
//! the output. The primary releases the output as soon as the *beginning* is acknowledged. That part of the
//! log can be sent, and acknowledged, while the guest still computes the output.
//!
//! This is safe only if a backup that goes live first finishes the segment that the dead primary may have
//! been in, and accepts no input before that. This is called the replay-out.
//!
//! ```text
//!  log        frame, interrupt |  exit, exit, output            | clock, interrupt | ...
//!                              ^ beginning: the output's         ^ the next nondeterministic entry
//!                                release_at                        ends the segment
//!
//!  primary    runs the guest --------------> output leaves: the beginning is acknowledged
//!  backup     goes live while the end of its log is anywhere in the segment. Replay-out: no input, and no
//!             interrupts but those that follow from the machine's state, until the guest asks for a
//!             nondeterministic value or halts with nothing to do
//! ```
//!
//! A guest may compute for ever and do neither. Then the replay-out must be ended, but not before the guest
//! has come as far as it did on the primary. A point in the middle of a region cannot be named, so the bound
//! is a time. The primary releases outputs by this rule only during the
//! [`early_release_window`](super::ReplicaConfig::early_release_window) at the start of a segment; later
//! outputs need their own entries acknowledged. A replay-out lasts [`SLOWDOWN_MAX`] times that window, in
//! time that the vCPU runs, because the new host may be that much slower.

use super::engine::Replica;
use super::mutant::Mutant;
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::time::{Duration, Time};

/// Default of [`early_release_window`](super::ReplicaConfig::early_release_window).
pub(super) const EARLY_RELEASE_WINDOW: Duration = Duration::from_micros(200);

/// How many times slower than the primary the machine in a replay-out may be.
const SLOWDOWN_MAX: u64 = 100;

/// Longest time that one run, from a vCPU entry to the next exit or interruption, counts for. In a longer
/// run the host itself may have been stopped, and the guest with it.
const RUN_MAX: Duration = Duration::from_millis(1);

/// The deterministic segment that a primary's VM is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// Log position behind the nondeterministic entry that began it, counted over all sessions.
    position: u64,
    /// When that entry was logged.
    started_at: Time,
}

/// Replay-out of a machine that has just gone live: it finishes the segment of the dead primary.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplayOut {
    /// Time that the vCPU must still run, at most.
    remaining: Duration,
    /// When the current run began.
    run_since: Time,
}

/// Returns whether an entry does not follow from the log before it.
fn is_nondeterministic(entry: &Entry<'_>) -> bool {
    match entry {
        Entry::Exit { .. } | Entry::Output { .. } => false,
        // An interrupt at an exit follows from the machine's state, too. At a user window or after a
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
    /// Begins a new segment if `entry`, which was just appended to the log, is nondeterministic.
    pub(super) fn begin_segment(&mut self, now: Time, entry: &Entry<'_>) {
        let assumes_time = self.planted(Mutant::AssumeTimeDeterministic);
        if !is_nondeterministic(entry) || assumes_time && matches!(entry, Entry::Clock { .. }) {
            return;
        }
        let appended = self.channel().map_or(0, |channel| channel.appended(Lane::Latency).0);
        self.segment = Segment { position: self.log_base + appended, started_at: now };
    }

    /// Returns the log position that must be acknowledged before an output made at `now` may leave: the
    /// segment's beginning within the early-release window, and otherwise the watermark, which is the end
    /// of the output's own entry.
    pub(super) fn release_at(&self, now: Time) -> u64 {
        let Segment { position, started_at } = self.segment;
        let is_early = now.since(started_at) <= self.config.early_release_window;
        if is_early { position.min(self.watermark) } else { self.watermark }
    }

    /// Returns whether no held output needs more of this session's log than its first `sent` bytes.
    pub fn is_releasable_by(&self, sent: u64) -> bool {
        self.hold.newest_release_at().is_none_or(|release_at| release_at <= self.log_base + sent)
    }

    /// Begins the replay-out, when this host goes live.
    pub(super) fn begin_replay_out(&mut self, now: Time) {
        let is_planted = self.planted(Mutant::InputsBeforeReplayOut);
        let replay_out = ReplayOut {
            remaining: self.config.early_release_window * SLOWDOWN_MAX,
            run_since: now,
        };
        self.replay_out = (!is_planted).then_some(replay_out);
    }

    /// Returns whether a replay-out is in progress: no input may enter the machine yet.
    pub(super) fn is_replaying_out(&self) -> bool {
        self.replay_out.is_some()
    }

    /// Ends the replay-out: the guest asks for a nondeterministic value or has nothing to do. It made
    /// every output that the dead primary may have released before this point.
    pub(super) fn end_replay_out(&mut self) {
        self.replay_out = None;
    }

    /// The vCPU is about to run.
    pub(super) fn run_begins(&mut self, now: Time) {
        if let Some(replay_out) = &mut self.replay_out {
            replay_out.run_since = now;
        }
    }

    /// A run has ended, or was interrupted and will be resumed. Ends the replay-out if it has run for long
    /// enough.
    pub(super) fn run_ended(&mut self, now: Time) {
        let Some(replay_out) = &mut self.replay_out else { return };
        let ran = now.since(replay_out.run_since).min(RUN_MAX);
        replay_out.run_since = now;
        replay_out.remaining = replay_out.remaining.saturating_sub(ran);
        if replay_out.remaining == Duration::ZERO {
            self.replay_out = None;
        }
    }
}
