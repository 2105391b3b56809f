//! Whether the copy of the disks comes to an end, how much the guest is slowed for it, and how fast it may be.
//!
//! A guest that writes to its disks about as fast as blocks are copied, or faster, leaves as many as before. It gets half
//! the share of time each time when [`PACE_SILENCES`] silence timeouts have not brought the copy nearer to its end than it
//! was; at the smallest share, the copy is given up. Nearer means by a part of what is left, so that a copy that would take
//! days does not count as one that comes to an end.

use super::converge::GuestShare;
use core::num::NonZeroU64;
use logchan::time::{Duration, Time};

/// Silence timeouts within which less has to be left. A disk may stand still for some.
const PACE_SILENCES: u64 = 100;

/// The part of what is left that has to be copied within that time: of 1 TiB, 256 MiB.
const PART: u64 = 4096;

/// What is to be done about a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing.
    Goes,
    /// The guest gets a smaller share of time than before.
    Slower,
    /// The copy is given up: the guest had the smallest share.
    GiveUp,
}

/// How near to its end a copy of disks has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskPace {
    /// Bytes that were left, and since when it is not nearer to the end than that.
    best: Option<(u64, Time)>,
    share: GuestShare,
}

impl DiskPace {
    pub(super) const NEW: DiskPace = DiskPace { best: None, share: GuestShare::WHOLE };

    /// Bytes that are left at `now`.
    pub(super) fn note(&mut self, now: Time, bytes_left: u64, silence: Duration) -> Pace {
        let (best, since) = *self.best.get_or_insert((bytes_left, now));
        if bytes_left < best - best / PART {
            self.best = Some((bytes_left, now));
            return Pace::Goes;
        }
        if now.since(since) < silence * PACE_SILENCES {
            return Pace::Goes;
        }
        self.best = Some((bytes_left, now));
        match self.share.halved() {
            Some(share) => {
                self.share = share;
                Pace::Slower
            }
            None => Pace::GiveUp,
        }
    }

    /// Returns the guest's share of time.
    pub(super) fn share(&self) -> GuestShare {
        self.share
    }
}

/// How late a copy with a rate may be and still catch up.
const RATE_BURST: Duration = Duration::from_millis(5);

/// Spreads the messages of a copy over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CopyRate {
    /// When the next message may be sent.
    next_at: Time,
}

impl CopyRate {
    pub(super) fn next_at(self) -> Time {
        self.next_at
    }

    /// A message of `bytes` bytes is sent at `now`. At most `per_s` bytes are sent a second.
    pub(super) fn sent(&mut self, now: Time, bytes: u64, per_s: NonZeroU64) {
        let spent = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / per_s);
        let earliest = Time::from_nanos(now.as_nanos().saturating_sub(RATE_BURST.as_nanos()));
        self.next_at = self.next_at.max(earliest) + spent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GUEST_SHARE_HALVINGS_MAX;

    const SILENCE: Duration = Duration::from_millis(100);

    /// A copy of 1 GiB at 100 MB/s, and a guest that changes `written_per_s` bytes of blocks that were copied. Returns the
    /// share at the end; `None` if the copy was given up.
    fn run(written_per_s: u64) -> Option<GuestShare> {
        let (mut now, mut pace) = (Time::from_nanos(1 << 40), DiskPace::NEW);
        let step = Duration::from_millis(10);
        let mut left: u64 = 1 << 30;
        while left > 0 {
            let written = written_per_s / 100 / pace.share().divisor();
            left = (left + written).min(1 << 30).saturating_sub(1_000_000);
            now = now + step;
            match pace.note(now, left, SILENCE) {
                Pace::Goes | Pace::Slower => {}
                Pace::GiveUp => return None,
            }
        }
        Some(pace.share())
    }

    #[test]
    fn guest_is_slowed_only_as_far_as_the_copy_needs() {
        assert_eq!(run(0), Some(GuestShare::WHOLE));
        assert_eq!(run(80_000_000), Some(GuestShare::WHOLE));
        for (written_per_s, divisor) in [(100_000_000, 2), (300_000_000, 4), (1_000_000_000, 16)] {
            assert_eq!(run(written_per_s).map(GuestShare::divisor), Some(divisor));
        }
        assert_eq!(run(100_000_000 << (GUEST_SHARE_HALVINGS_MAX + 1)), None);
    }

    #[test]
    fn copy_has_its_rate_whenever_it_is_called_and_does_not_catch_up_on_a_pause() {
        let per_s = NonZeroU64::new(10_000_000).unwrap();
        for step in [Duration::from_micros(100), Duration::from_millis(3)] {
            let (start, mut rate) = (Time::from_nanos(1 << 40), CopyRate::default());
            let mut send = |from: Time, span: Duration| {
                let (mut now, mut sent) = (from, 0);
                while now.since(from) < span {
                    while rate.next_at() <= now {
                        rate.sent(now, 30_000, per_s);
                        sent += 30_000;
                    }
                    now = now + step;
                }
                sent
            };
            let second = Duration::from_millis(1000);
            let sent = send(start, second);
            assert!((9_900_000..10_100_000).contains(&sent), "{sent}");
            let sent = send(start + second * 10, second);
            assert!((9_900_000..10_100_000).contains(&sent), "{sent}");
        }
    }

    #[test]
    fn disk_that_stands_still_for_a_moment_slows_nobody() {
        let start = Time::from_nanos(1 << 40);
        let mut pace = DiskPace::NEW;
        let span = SILENCE * PACE_SILENCES;
        let early = start + SILENCE * (PACE_SILENCES - 1);
        assert_eq!(pace.note(start, 1 << 30, SILENCE), Pace::Goes);
        assert_eq!(pace.note(early, 1 << 30, SILENCE), Pace::Goes);
        assert_eq!(pace.note(early, 1 << 29, SILENCE), Pace::Goes);
        assert_eq!(pace.note(start + span, 1 << 29, SILENCE), Pace::Goes);
        assert_eq!(pace.note(early + span, 1 << 29, SILENCE), Pace::Slower);
        assert_eq!(pace.note(early + span, 1 << 29, SILENCE), Pace::Goes);
    }
}
