//! Conversion between guest nanoseconds and clock ticks without drift: it always starts from the time
//! since the guest started, and never from a sum of rounded intervals.

const NS_PER_SECOND: u128 = 1_000_000_000;

/// Returns how many ticks of an `hz` clock are complete at `now_ns`.
#[inline]
pub(crate) fn ticks_at(now_ns: u64, hz: u64) -> u64 {
    // The result is below 2^64 for every hz below 10^9.
    (u128::from(now_ns) * u128::from(hz) / NS_PER_SECOND) as u64
}

/// Returns the first nanosecond at which `tick` ticks are complete.
#[inline]
pub(crate) fn ns_of_tick(tick: u64, hz: u64) -> u64 {
    let ns = (u128::from(tick) * NS_PER_SECOND).div_ceil(u128::from(hz));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_boundary_is_the_first_nanosecond_of_the_tick() {
        for hz in [1_193_182, 3_579_545] {
            for tick in [1, 2, 3, 65_536, hz, hz * 86_400 * 365 + 7] {
                let ns = ns_of_tick(tick, hz);
                assert_eq!(ticks_at(ns, hz), tick);
                assert_eq!(ticks_at(ns - 1, hz), tick - 1);
            }
        }
    }

    #[test]
    fn every_second_of_a_year_has_exactly_hz_ticks() {
        let hz = 1_193_182;
        let year_s = 86_400 * 365;
        assert_eq!(ticks_at(year_s * 1_000_000_000, hz), year_s * hz);
    }

    #[test]
    fn largest_values_do_not_overflow() {
        assert!(ticks_at(u64::MAX, 3_579_545) > 0);
        assert_eq!(ns_of_tick(u64::MAX, 1_193_182), u64::MAX);
    }
}
