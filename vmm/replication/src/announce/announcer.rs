//! [`Announcer`]: the schedule of the announcements.

use super::addresses::GuestAddresses;
use super::frames::Announcement;
use crate::limits::{
    ANNOUNCE_EXTRA_GAP_NS_MIN, ANNOUNCE_EXTRA_ROUNDS_MAX, ANNOUNCE_GAP_NS_MIN, ANNOUNCE_IP_ROUNDS,
    ANNOUNCE_ROUNDS_NS, ANNOUNCEMENTS_MAX,
};

const LAST_ROUND: usize = ANNOUNCE_ROUNDS_NS.len() - 1;

/// Counters of an announcer since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnounceStats {
    /// Calls of [`Announcer::start`] and [`Announcer::start_again`].
    pub starts: u64,
    /// Rounds begun, additional ones included.
    pub rounds: u64,
    /// Additional rounds begun: see [`Announcer::request_round`].
    pub extra_rounds: u64,
    /// Rounds skipped because a later round was already due when the caller polled.
    pub rounds_skipped: u64,
    /// Frames built.
    pub frames: u64,
}

/// The next round of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scheduled {
    round: usize,
    due_ns: u64,
}

/// A round of which frames are left to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sending {
    begun_ns: u64,
    /// Position of the next frame.
    frame: usize,
}

/// Announces a guest's addresses in rounds: 0, 50, 200, 450 and 800 ms after the start, and then every 10
/// seconds for a minute. The rounds repeat the frames, because a lost frame, or a switch that is not ready or
/// learns the address from a late frame of the other host, must not cut the VM off from its clients. Each
/// round announces the addresses that are known when it begins.
///
/// Only the first five rounds after [`start`](Self::start) announce IP addresses. All others announce MAC
/// addresses, which is enough for switches: by then, the guest may have left an IP address to another host.
///
/// ```text
///           start                    due                    last frame
///   Idle ----------> Waiting(round) -----> Sending(round) --+----------> Waiting(a later round)
///    ^                                                      |
///    +------------------------------------------------------+  after the last round, or stop
/// ```
///
/// [`request_round`](Self::request_round) adds a round, in any state: a second after the round before at the
/// earliest, and a limited number of times per start.
///
/// The caller sends the frames of [`poll_transmit`](Self::poll_transmit) until it returns `None`, and
/// polls again at [`poll_timeout`](Self::poll_timeout). Late polls do not make rounds pile up: of the
/// rounds that are due together only one is sent. The first and the last round are always sent, and
/// rounds begin at least 50 ms apart. Times are nanoseconds of the caller's monotonic clock.
#[derive(Clone, Debug)]
pub struct Announcer {
    announcements: [Option<Announcement>; ANNOUNCEMENTS_MAX],
    started_ns: u64,
    /// Rounds of the schedule, from its beginning, that announce IP addresses, too.
    ip_rounds: usize,
    scheduled: Option<Scheduled>,
    sending: Option<Sending>,
    /// When an additional round is due.
    extra_due_ns: Option<u64>,
    /// Additional rounds that may still begin.
    extra_left: u32,
    /// When the last round began.
    last_ns: Option<u64>,
    stats: AnnounceStats,
}

impl Announcer {
    /// Creates an idle announcer.
    pub fn new() -> Announcer {
        Announcer {
            announcements: [None; ANNOUNCEMENTS_MAX],
            started_ns: 0,
            ip_rounds: 0,
            scheduled: None,
            sending: None,
            extra_due_ns: None,
            extra_left: ANNOUNCE_EXTRA_ROUNDS_MAX,
            last_ns: None,
            stats: AnnounceStats::default(),
        }
    }

    /// Begins with the first round and abandons any rounds in progress. To be called at go-live.
    pub fn start(&mut self, now_ns: u64) {
        self.begin(now_ns, ANNOUNCE_IP_ROUNDS);
    }

    /// Like [`start`](Self::start), but announces only MAC addresses. To be called when the LAN can be reached
    /// again, after it could not.
    pub fn start_again(&mut self, now_ns: u64) {
        self.begin(now_ns, 0);
    }

    fn begin(&mut self, now_ns: u64, ip_rounds: usize) {
        self.stop();
        self.started_ns = now_ns;
        self.ip_rounds = ip_rounds;
        self.scheduled = Some(Scheduled { round: 0, due_ns: now_ns });
        self.extra_left = ANNOUNCE_EXTRA_ROUNDS_MAX;
        self.stats.starts += 1;
    }

    /// Adds a round: the LAN has shown that it expects the VM elsewhere. The round begins now, or a second after
    /// the round before. Requests come together with the next round, whichever that is.
    pub fn request_round(&mut self, now_ns: u64) {
        if self.extra_due_ns.is_none() && self.extra_left > 0 {
            let earliest = self.last_ns.map_or(now_ns, |last| last + ANNOUNCE_EXTRA_GAP_NS_MIN);
            self.extra_due_ns = Some(now_ns.max(earliest));
        }
    }

    /// Abandons the remaining rounds.
    pub fn stop(&mut self) {
        (self.scheduled, self.sending, self.extra_due_ns) = (None, None, None);
    }

    /// Whether no frame is left to be sent.
    pub fn is_idle(&self) -> bool {
        self.poll_timeout().is_none()
    }

    /// Counters since the announcer was created.
    pub fn stats(&self) -> AnnounceStats {
        self.stats
    }

    /// Writes the next frame that is due to the front of `buffer` and returns its length in bytes, or
    /// `None` if no frame is due. A round that begins announces `addresses`.
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than [`ANNOUNCEMENT_BYTES_MAX`](crate::limits::ANNOUNCEMENT_BYTES_MAX).
    pub fn poll_transmit(
        &mut self,
        now_ns: u64,
        addresses: &GuestAddresses,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let Sending { begun_ns, frame } = match self.sending {
            Some(sending) => sending,
            None => self.begin_due(now_ns, addresses)?,
        };
        let announcement = self.announcements[frame].expect("a frame of the round");
        let next = frame + 1;
        let is_last = self.announcements.get(next).is_none_or(Option::is_none);
        self.sending = (!is_last).then_some(Sending { begun_ns, frame: next });
        self.stats.frames += 1;
        Some(announcement.build(buffer))
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) again. A time in the past means
    /// immediately; `None` means not before the next start or request.
    pub fn poll_timeout(&self) -> Option<u64> {
        let sending = self.sending.map(|sending| sending.begun_ns);
        let scheduled = self.scheduled.map(|scheduled| scheduled.due_ns);
        sending.or_else(|| scheduled.into_iter().chain(self.extra_due_ns).min())
    }

    /// Begins the round that is due, if there is one.
    fn begin_due(&mut self, now_ns: u64, addresses: &GuestAddresses) -> Option<Sending> {
        let is_due = |due_ns: &u64| *due_ns <= now_ns;
        let due = self.scheduled.filter(|next| is_due(&next.due_ns));
        let announces_ip = if let Some(Scheduled { round, .. }) = due {
            let begins = self.latest_due(round, now_ns);
            self.scheduled = self.after(begins, now_ns);
            begins < self.ip_rounds
        } else {
            self.extra_due_ns.filter(is_due)?;
            // A request that a regular round satisfies costs nothing.
            self.extra_left -= 1;
            self.stats.extra_rounds += 1;
            if let Some(next) = &mut self.scheduled {
                next.due_ns = next.due_ns.max(now_ns + ANNOUNCE_GAP_NS_MIN);
            }
            false
        };
        // Any round does what was requested.
        self.extra_due_ns = None;
        self.last_ns = Some(now_ns);
        self.stats.rounds += 1;
        self.announcements = [None; ANNOUNCEMENTS_MAX];
        let announced = addresses.announcements().filter(|each| announces_ip || each.is_rarp());
        for (place, announcement) in self.announcements.iter_mut().zip(announced) {
            *place = Some(announcement);
        }
        Some(Sending { begun_ns: now_ns, frame: 0 })
    }

    /// Returns which round begins when `round` is due: `round` itself, or the last one that is due by now.
    fn latest_due(&mut self, round: usize, now_ns: u64) -> usize {
        let due = |later: &usize| self.started_ns + ANNOUNCE_ROUNDS_NS[*later] <= now_ns;
        let begins = match round {
            // The first round is never skipped, so that a caller whose first poll is late still sends two rounds.
            0 => 0,
            _ => (round..=LAST_ROUND).rev().find(due).unwrap_or(round),
        };
        self.stats.rounds_skipped += (begins - round) as u64;
        begins
    }

    /// Returns the round that follows `round`, which began at `begun_ns`.
    fn after(&mut self, round: usize, begun_ns: u64) -> Option<Scheduled> {
        if round == LAST_ROUND {
            return None;
        }
        let ahead = |later: &usize| self.started_ns + ANNOUNCE_ROUNDS_NS[*later] > begun_ns;
        let next = (round + 1..=LAST_ROUND).find(ahead).unwrap_or(LAST_ROUND);
        self.stats.rounds_skipped += (next - round - 1) as u64;
        let due_ns = self.started_ns + ANNOUNCE_ROUNDS_NS[next];
        Some(Scheduled { round: next, due_ns: due_ns.max(begun_ns + ANNOUNCE_GAP_NS_MIN) })
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
