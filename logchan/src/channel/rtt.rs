//! Round-trip time and retransmission timeout.

use crate::time::{Duration, Time};

/// The `G` of RFC 6298. A shorter timer is useless, because drivers wake up later than that anyway.
const GRANULARITY: Duration = Duration::from_micros(20);

/// Number of times that the timeout is doubled at most.
const BACKOFF_MAX: u32 = 16;

/// Smoothed round-trip time, its variation, and the retransmission timeout as in RFC 6298, section 2.
/// The bounds differ: they are those of one Ethernet segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RttEstimator {
    /// Smoothed time and variation, once there is a sample.
    smoothed: Option<(Duration, Duration)>,
    latest: Duration,
    backoff: u32,
    timeout_initial: Duration,
    timeout_min: Duration,
    timeout_max: Duration,
}

impl RttEstimator {
    pub(super) fn new(initial: Duration, min: Duration, max: Duration) -> Self {
        Self {
            smoothed: None,
            latest: Duration::ZERO,
            backoff: 0,
            timeout_initial: initial,
            timeout_min: min,
            timeout_max: max,
        }
    }

    /// Adds a sample: the time from sending a frame to the arrival of its acknowledgement, less the
    /// delay at the peer. Every transmission has a number of its own, so no sample is ambiguous and
    /// Karn's algorithm (RFC 6298, section 3) is not needed.
    pub(super) fn sample(&mut self, rtt: Duration) {
        self.latest = rtt;
        self.smoothed = Some(match self.smoothed {
            None => (rtt, Duration::from_nanos(rtt.as_nanos() / 2)),
            Some((srtt, rttvar)) => {
                let (srtt, rttvar, rtt) = (srtt.as_nanos(), rttvar.as_nanos(), rtt.as_nanos());
                // RFC 6298 (2.3): beta = 1/4 with the old SRTT, then alpha = 1/8.
                let rttvar = rttvar - rttvar / 4 + srtt.abs_diff(rtt) / 4;
                let srtt = srtt - srtt / 8 + rtt / 8;
                (Duration::from_nanos(srtt), Duration::from_nanos(rttvar))
            }
        });
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(srtt, _)| srtt)
    }

    /// Returns when something sent at `sent` must be retransmitted.
    pub(super) fn retransmit_at(&self, sent: Time) -> Time {
        let timeout = match self.smoothed {
            None => self.timeout_initial,
            Some((srtt, rttvar)) => srtt + (rttvar * 4).max(GRANULARITY),
        };
        let timeout = timeout.max(self.timeout_min);
        sent + (timeout * (1 << self.backoff)).min(self.timeout_max)
    }

    /// RFC 6298 (5.5): doubles the timeout after the timer expired.
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// Resets the timeout after something new was acknowledged.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Returns how late an overtaken frame may be before it is declared lost: 9/8 of a round trip, RFC
    /// 9002 section 6.1.2.
    pub(super) fn reordering_max(&self) -> Duration {
        let srtt = self.smoothed.map_or(self.timeout_initial, |(srtt, _)| srtt);
        let rtt = srtt.max(self.latest);
        Duration::from_nanos(rtt.as_nanos() + rtt.as_nanos() / 8).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimator() -> RttEstimator {
        let us = Duration::from_micros;
        RttEstimator::new(us(10_000), us(200), us(20_000))
    }

    #[test]
    fn timeout_of_steady_samples_falls_to_the_minimum() {
        let mut rtt = estimator();
        let start = Time::default();
        assert_eq!(rtt.retransmit_at(start), start + Duration::from_micros(10_000));
        for _ in 0..100 {
            rtt.sample(Duration::from_micros(60));
        }
        assert_eq!(rtt.retransmit_at(start), start + Duration::from_micros(200));
    }

    #[test]
    fn timeout_follows_rfc_6298_on_its_first_samples() {
        let mut rtt = estimator();
        rtt.sample(Duration::from_micros(800));
        // SRTT = R, RTTVAR = R/2: 800 + 4 * 400.
        assert_eq!(rtt.retransmit_at(Time::default()).as_nanos(), 2_400_000);
        rtt.sample(Duration::from_micros(1600));
        // RTTVAR = 3/4 * 400 + 1/4 * 800 = 500, SRTT = 7/8 * 800 + 1/8 * 1600 = 900.
        assert_eq!(rtt.retransmit_at(Time::default()).as_nanos(), 2_900_000);
    }

    #[test]
    fn backoff_doubles_up_to_the_maximum_and_ends_with_an_acknowledgement() {
        let mut rtt = estimator();
        rtt.sample(Duration::from_micros(100));
        let first = rtt.retransmit_at(Time::default()).as_nanos();
        rtt.back_off();
        assert_eq!(rtt.retransmit_at(Time::default()).as_nanos(), 2 * first);
        for _ in 0..100 {
            rtt.back_off();
        }
        assert_eq!(rtt.retransmit_at(Time::default()).as_nanos(), 20_000_000);
        rtt.reset_backoff();
        assert_eq!(rtt.retransmit_at(Time::default()).as_nanos(), first);
    }
}
