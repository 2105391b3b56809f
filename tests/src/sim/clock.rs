//! A host's clock: an origin of its own, and a rate that is wrong.

use logchan::time::Time;

/// Parts that a rate is given in.
const BILLION: i128 = 1_000_000_000;

/// From here on the clock runs with this rate.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: u64,
    /// What it shows then, in billionths of a nanosecond, so that a change of the rate loses nothing.
    shows: i128,
    /// Billionths that it is too fast; negative: too slow.
    fast_ppb: i64,
}

/// A clock that drifts. It never goes back. It remembers how it ran, so that what it showed at any
/// time can be asked later.
#[derive(Clone, Debug)]
pub struct DriftingClock {
    stretches: Vec<Stretch>,
}

impl DriftingClock {
    /// A clock that shows `origin` at true time 0.
    pub fn new(origin: Time, fast_ppb: i64) -> Self {
        let shows = i128::from(origin.as_nanos()) * BILLION;
        Self { stretches: vec![Stretch { since: 0, shows, fast_ppb }] }
    }

    /// Runs with another rate from `now` on.
    pub fn set_rate(&mut self, now: u64, fast_ppb: i64) {
        let last = self.newest();
        assert!(now >= last.since, "the past is not changed");
        self.stretches.push(Stretch { since: now, shows: last.exactly(now), fast_ppb });
    }

    /// What it shows, or showed, at true time `at`.
    pub fn shows(&self, at: u64) -> Time {
        let stretch = self.stretches.iter().rev().find(|stretch| stretch.since <= at);
        let exactly = stretch.expect("time begins at 0").exactly(at);
        Time::from_nanos((exactly / BILLION) as u64)
    }

    /// The first true time at which it shows `time` or more, if its rate does not change before and
    /// that is not already past.
    pub fn when(&self, time: Time) -> u64 {
        let last = self.newest();
        let rest = i128::from(time.as_nanos()) * BILLION - last.shows;
        let rate = BILLION + i128::from(last.fast_ppb);
        last.since + (rest.max(0) + rate - 1).div_euclid(rate) as u64
    }

    fn newest(&self) -> Stretch {
        *self.stretches.last().expect("a clock has a rate")
    }
}

impl Stretch {
    fn exactly(&self, at: u64) -> i128 {
        self.shows + i128::from(at - self.since) * (BILLION + i128::from(self.fast_ppb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::Rng;

    #[test]
    fn clock_keeps_within_its_drift_and_is_found_again_when_it_shows_a_time() {
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
        assert_eq!(clock.shows(0), Time::from_nanos(origin), "the past is remembered");
        assert_eq!(clock.when(Time::from_nanos(0)), now, "what is past is now");
    }
}
