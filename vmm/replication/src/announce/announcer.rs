//! [`Announcer`]: the schedule of the announcements.

use super::addresses::GuestAddresses;
use super::frames::Announcement;
use crate::limits::{ANNOUNCE_GAP_NS_MIN, ANNOUNCE_ROUNDS_NS, ANNOUNCEMENTS_MAX};

const LAST_ROUND: usize = ANNOUNCE_ROUNDS_NS.len() - 1;

/// Counters of an announcer since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnounceStats {
    /// Calls of [`Announcer::start`].
    pub starts: u64,
    /// Rounds begun.
    pub rounds: u64,
    /// Rounds skipped because a later round was already due when the caller polled.
    pub rounds_skipped: u64,
    /// Frames built.
    pub frames: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { round: usize, due_ns: u64 },
    Sending { round: usize, begun_ns: u64, frame: usize },
}

/// Announces a guest's addresses in rounds, 0, 50, 200, 450 and 800 ms after the start. The rounds
/// repeat the same frames, because a lost frame or a switch that is not ready yet must not cut the VM
/// off from its clients.
///
/// ```text
///           start                    due                    last frame
///   Idle ----------> Waiting(round) -----> Sending(round) --+----------> Waiting(a later round)
///    ^                                                      |
///    +------------------------------------------------------+  after the last round, or stop
/// ```
///
/// The caller sends the frames of [`poll_transmit`](Self::poll_transmit) until it returns `None`, and
/// polls again at [`poll_timeout`](Self::poll_timeout). Late polls do not make rounds pile up: of the
/// rounds that are due together only one is sent. The first and the last round are always sent, and
/// rounds begin at least 50 ms apart. Times are nanoseconds of the caller's monotonic clock.
#[derive(Clone, Debug)]
pub struct Announcer {
    announcements: [Option<Announcement>; ANNOUNCEMENTS_MAX],
    started_ns: u64,
    state: State,
    stats: AnnounceStats,
}

impl Announcer {
    /// Creates an idle announcer.
    pub fn new() -> Announcer {
        Announcer {
            announcements: [None; ANNOUNCEMENTS_MAX],
            started_ns: 0,
            state: State::Idle,
            stats: AnnounceStats::default(),
        }
    }

    /// Begins with the first round and abandons any rounds in progress. The addresses are those known
    /// now; later changes of `addresses` have no effect. To be called at go-live, and when the
    /// network becomes able to carry frames after that.
    pub fn start(&mut self, now_ns: u64, addresses: &GuestAddresses) {
        self.announcements = [None; ANNOUNCEMENTS_MAX];
        for (place, announcement) in self.announcements.iter_mut().zip(addresses.announcements()) {
            *place = Some(announcement);
        }
        self.started_ns = now_ns;
        self.state = State::Waiting { round: 0, due_ns: now_ns };
        self.stats.starts += 1;
    }

    /// Abandons the remaining rounds.
    pub fn stop(&mut self) {
        self.state = State::Idle;
    }

    /// Whether no frame is left to be sent.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Counters since the announcer was created.
    pub fn stats(&self) -> AnnounceStats {
        self.stats
    }

    /// Writes the next frame that is due to the front of `buffer` and returns its length in bytes, or
    /// `None` if no frame is due.
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than [`ANNOUNCEMENT_BYTES_MAX`](crate::limits::ANNOUNCEMENT_BYTES_MAX).
    pub fn poll_transmit(&mut self, now_ns: u64, buffer: &mut [u8]) -> Option<usize> {
        let (round, begun_ns, frame) = match self.state {
            State::Idle => return None,
            State::Waiting { due_ns, .. } if now_ns < due_ns => return None,
            State::Waiting { round, .. } => (self.begin(round, now_ns), now_ns, 0),
            State::Sending { round, begun_ns, frame } => (round, begun_ns, frame),
        };
        let announcement = self.announcements[frame].expect("a frame of the round");
        let next = frame + 1;
        self.state = if self.announcements.get(next).is_some_and(Option::is_some) {
            State::Sending { round, begun_ns, frame: next }
        } else {
            self.after(round, begun_ns)
        };
        self.stats.frames += 1;
        Some(announcement.build(buffer))
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) again. A time in the past means
    /// immediately; `None` means not before the next start.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Idle => None,
            State::Waiting { due_ns, .. } => Some(due_ns),
            State::Sending { begun_ns, .. } => Some(begun_ns),
        }
    }

    /// Begins a round when `round` is due, and returns which: `round` itself, or the last one that is
    /// due by now.
    fn begin(&mut self, round: usize, now_ns: u64) -> usize {
        let due = |later: &usize| self.started_ns + ANNOUNCE_ROUNDS_NS[*later] <= now_ns;
        let begins = match round {
            // The first round is never skipped, so that a caller whose first poll is late still sends two rounds.
            0 => 0,
            _ => (round..=LAST_ROUND).rev().find(due).unwrap_or(round),
        };
        self.stats.rounds += 1;
        self.stats.rounds_skipped += (begins - round) as u64;
        begins
    }

    /// Returns the state that follows the last frame of a round.
    fn after(&mut self, round: usize, begun_ns: u64) -> State {
        if round == LAST_ROUND {
            return State::Idle;
        }
        let ahead = |later: &usize| self.started_ns + ANNOUNCE_ROUNDS_NS[*later] > begun_ns;
        let next = (round + 1..=LAST_ROUND).find(ahead).unwrap_or(LAST_ROUND);
        self.stats.rounds_skipped += (next - round - 1) as u64;
        let due_ns = self.started_ns + ANNOUNCE_ROUNDS_NS[next];
        State::Waiting { round: next, due_ns: due_ns.max(begun_ns + ANNOUNCE_GAP_NS_MIN) }
    }
}

impl Default for Announcer {
    fn default() -> Self {
        Announcer::new()
    }
}

#[cfg(test)]
#[path = "announcer_tests.rs"]
mod tests;
