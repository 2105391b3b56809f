//! [`Announcer`]: when the frames go out.

use super::addresses::GuestAddresses;
use super::frames::Announcement;
use crate::limits::{ANNOUNCE_GAP_NS_MIN, ANNOUNCE_ROUNDS_NS, ANNOUNCEMENTS_MAX};

const LAST_ROUND: usize = ANNOUNCE_ROUNDS_NS.len() - 1;

/// What an announcer did since it was made. A plain copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnounceStats {
    /// Times it was started.
    pub starts: u64,
    /// Rounds begun.
    pub rounds: u64,
    /// Rounds left out because they were over before anybody polled.
    pub rounds_skipped: u64,
    /// Frames made.
    pub frames: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting { round: usize, due_ns: u64 },
    Sending { round: usize, begun_ns: u64, frame: usize },
}

/// Announces a guest's addresses in rounds, 0, 50, 200, 450 and 800 ms after the start: one frame
/// lost, or one switch that is not ready yet, must not cost the VM its clients.
///
/// ```text
///           start                    due                    last frame
///   Idle ----------> Waiting(round) -----> Sending(round) --+----------> Waiting(a later round)
///    ^                                                      |
///    +------------------------------------------------------+  after the last round; stop
/// ```
///
/// The caller sends what [`poll_transmit`](Self::poll_transmit) makes until it makes nothing, and
/// comes back at [`poll_timeout`](Self::poll_timeout). Late calls do not let rounds pile up: of
/// those that are due together one is sent. The first and the last are sent always, and no two
/// begin within 50 ms. Times are nanoseconds of the caller's monotonic clock.
#[derive(Clone, Debug)]
pub struct Announcer {
    announcements: [Option<Announcement>; ANNOUNCEMENTS_MAX],
    started_ns: u64,
    state: State,
    stats: AnnounceStats,
}

impl Announcer {
    /// Says nothing until it is started.
    pub fn new() -> Announcer {
        Announcer {
            announcements: [None; ANNOUNCEMENTS_MAX],
            started_ns: 0,
            state: State::Idle,
            stats: AnnounceStats::default(),
        }
    }

    /// Begins with the first round, whatever it was doing: at go-live, or because the network has
    /// only now become able to carry frames.
    pub fn start(&mut self, now_ns: u64, addresses: &GuestAddresses) {
        self.announcements = [None; ANNOUNCEMENTS_MAX];
        for (place, announcement) in self.announcements.iter_mut().zip(addresses.announcements()) {
            *place = Some(announcement);
        }
        self.started_ns = now_ns;
        self.state = State::Waiting { round: 0, due_ns: now_ns };
        self.stats.starts += 1;
    }

    /// Says nothing any more.
    pub fn stop(&mut self) {
        self.state = State::Idle;
    }

    /// Whether there is nothing left to say.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// What was counted since it was made.
    pub fn stats(&self) -> AnnounceStats {
        self.stats
    }

    /// Writes the next frame that is due to the front of `buffer` and returns its length; `None` when
    /// none is. Panics if the buffer is shorter than
    /// [`ANNOUNCEMENT_BYTES_MAX`](crate::limits::ANNOUNCEMENT_BYTES_MAX).
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

    /// When to call [`poll_transmit`](Self::poll_transmit) again; a time in the past means at once,
    /// `None` means not until the next start.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self.state {
            State::Idle => None,
            State::Waiting { due_ns, .. } => Some(due_ns),
            State::Sending { begun_ns, .. } => Some(begun_ns),
        }
    }

    /// The round that begins when `round` is due: that one, or the last of those due by now.
    fn begin(&mut self, round: usize, now_ns: u64) -> usize {
        let due = |later: &usize| self.started_ns + ANNOUNCE_ROUNDS_NS[*later] <= now_ns;
        let begins = match round {
            // Whoever comes late to the first one sends another at the end.
            0 => 0,
            _ => (round..=LAST_ROUND).rev().find(due).unwrap_or(round),
        };
        self.stats.rounds += 1;
        self.stats.rounds_skipped += (begins - round) as u64;
        begins
    }

    /// What follows a round.
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
