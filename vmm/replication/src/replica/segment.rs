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
//!
//! With [`CommitPolicy::Strict`](super::CommitPolicy::Strict) a primary releases no output early, so nothing
//! depends on how fast the other host is. A host that goes live does a replay-out all the same, because it does
//! not know the policy of the dead primary.

use logchan::entry::Entry;
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
    pub(super) position: u64,
    /// When that entry was logged.
    pub(super) started_at: Time,
}

/// Returns whether an entry does not follow from the log before it.
pub(super) fn is_nondeterministic(entry: &Entry<'_>) -> bool {
    match entry {
        Entry::Exit { .. } | Entry::Output { .. } => false,
        // An interrupt at an exit follows from the machine's state, too. At a user window or after a
        // checkpoint it may not.
        Entry::Window { .. }
        | Entry::Clock { .. }
        | Entry::WallClock { .. }
        | Entry::Entropy(_)
        | Entry::Frame(_)
        | Entry::Console(_)
        | Entry::DiskDone { .. }
        | Entry::Interrupt { .. }
        | Entry::CheckpointBegin { .. }
        | Entry::Page { .. }
        | Entry::CheckpointEnd { .. }
        | Entry::End { .. }
        | Entry::HandOver
        | Entry::DiskCopy(_) => true,
    }
}

/// The replay-out of a machine that has just gone live: it finishes the segment of the dead primary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayOut(Option<Running>);

/// A replay-out in progress.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// Time that the vCPU must still run, at most.
    remaining: Duration,
    /// When the current run began.
    run_since: Time,
}

impl ReplayOut {
    /// Begins the replay-out of a machine whose primary released outputs early within `window`.
    pub(super) fn begin(&mut self, now: Time, window: Duration) {
        self.0 = Some(Running { remaining: window * SLOWDOWN_MAX, run_since: now });
    }

    /// Returns whether it is in progress: no input may enter the machine yet.
    pub(super) fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// Ends it: the guest asks for a nondeterministic value or has nothing to do. It made every output that
    /// the dead primary may have released before this point.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// The vCPU is about to run.
    pub(super) fn run_begins(&mut self, now: Time) {
        if let Some(running) = &mut self.0 {
            running.run_since = now;
        }
    }

    /// A run has ended, or was interrupted and will be resumed. Ends the replay-out if it has run for long
    /// enough.
    pub(super) fn run_ended(&mut self, now: Time) {
        let Some(running) = &mut self.0 else { return };
        let ran = now.since(running.run_since).min(RUN_MAX);
        running.run_since = now;
        running.remaining = running.remaining.saturating_sub(ran);
        if running.remaining == Duration::ZERO {
            self.0 = None;
        }
    }
}
