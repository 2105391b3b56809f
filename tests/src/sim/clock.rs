//! A host's clock, with its own origin and a rate error.

use logchan::time::Time;

/// Unit of a rate error: parts per billion.
const BILLION: i128 = 1_000_000_000;

/// A period in which the clock runs at a constant rate, until the next segment begins.
#[derive(Clone, Copy, Debug)]
struct Segment {
    since: u64,
    /// The reading at `since`, in billionths of a nanosecond, so that a change of the rate loses no
    /// precision.
    shows: i128,
    /// Rate error in parts per billion; positive is fast.
    fast_ppb: i64,
}

/// A clock that drifts but never goes back. It keeps its history, so that its reading at any earlier time
/// can be computed.
#[derive(Clone, Debug)]
pub struct DriftingClock {
    segments: Vec<Segment>,
}

impl DriftingClock {
    /// Creates a clock that shows `origin` at true time 0.
    pub fn new(origin: Time, fast_ppb: i64) -> Self {
        let shows = i128::from(origin.as_nanos()) * BILLION;
        Self { segments: vec![Segment { since: 0, shows, fast_ppb }] }
    }

    /// Changes the rate error from `now` on.
    pub fn set_rate(&mut self, now: u64, fast_ppb: i64) {
        let last = self.newest();
        assert!(now >= last.since, "a rate change in the past");
        self.segments.push(Segment { since: now, shows: last.reading_at(now), fast_ppb });
    }

    /// The reading at true time `at`.
    pub fn shows(&self, at: u64) -> Time {
        let segment = self.segments.iter().rev().find(|segment| segment.since <= at);
        let reading = segment.expect("the first segment begins at 0").reading_at(at);
        Time::from_nanos((reading / BILLION) as u64)
    }

    /// The first true time at which the clock shows `time` or more, if its rate does not change until then.
    /// Not earlier than the last change of the rate.
    pub fn when(&self, time: Time) -> u64 {
        let last = self.newest();
        let rest = i128::from(time.as_nanos()) * BILLION - last.shows;
        let rate = BILLION + i128::from(last.fast_ppb);
        last.since + (rest.max(0) + rate - 1).div_euclid(rate) as u64
    }

    fn newest(&self) -> Segment {
        *self.segments.last().expect("a clock has a segment")
    }
}

impl Segment {
    /// The reading at `at`, in billionths of a nanosecond.
    fn reading_at(&self, at: u64) -> i128 {
        self.shows + i128::from(at - self.since) * (BILLION + i128::from(self.fast_ppb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::Rng;

    #[test]
    fn clock_stays_within_its_drift_and_when_inverts_shows() {
        const DRIFT_PPB: i64 = 500_000;
        let mut rng = Rng::new(3);
        let origin = 1 << 50;
        let mut clock = DriftingClock::new(Time::from_nanos(origin), DRIFT_PPB);
        let mut now = 0;
        for _ in 0..1000 {
            now += rng.below(10_000_000);
            clock.set_rate(now, rng.within(0..=2 * DRIFT_PPB as u64) as i64 - DRIFT_PPB);
            let at = now + rng.below(1_000_000);
            let shown = clock.shows(at);
            let passed = i128::from(shown.as_nanos() - origin);
            let (least, most) = (i128::from(at) * 9995 / 10_000, i128::from(at) * 10_005 / 10_000);
            assert!((least - 1..=most).contains(&passed), "{passed} of {at}");
            let when = clock.when(shown);
            assert!(when <= at && clock.shows(when) == shown);
            assert!(when == 0 || clock.shows(when - 1) < shown || when == now);
        }
        assert_eq!(clock.shows(0), Time::from_nanos(origin), "the history is kept");
        assert_eq!(
            clock.when(Time::from_nanos(0)),
            now,
            "an earlier time gives the last rate change"
        );
    }
}
