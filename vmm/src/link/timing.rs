//! The times of a channel, derived from the silence timeout that the user chooses.

use logchan::channel::Timing;
use logchan::time::Duration;

/// Shortest silence timeout, milliseconds. The heartbeat interval is then one millisecond. A blocked thread
/// on a virtual host wakes tens of microseconds late, and still keeps that interval.
pub const SILENCE_MS_MIN: u64 = 10;

/// Longest silence timeout, milliseconds.
pub const SILENCE_MS_MAX: u64 = 60_000;

/// Default silence timeout, milliseconds.
pub const SILENCE_MS_DEFAULT: u64 = 100;

/// Longest retransmission timeout. With a long silence timeout it still lets a link that comes back be used
/// at once.
const RETRANSMIT_MAX: Duration = Duration::from_millis(100);

/// Returns the times for a silence timeout: a heartbeat every tenth of it, a lease of eight tenths and a
/// lease margin of one tenth. Both hosts must use the same timeout.
///
/// # Panics
///
/// Panics if `silence_ms` is not between [`SILENCE_MS_MIN`] and [`SILENCE_MS_MAX`].
pub fn timing(silence_ms: u64) -> Timing {
    assert!((SILENCE_MS_MIN..=SILENCE_MS_MAX).contains(&silence_ms), "{silence_ms} ms");
    let tenth = Duration::from_micros(silence_ms * 100);
    let timing = Timing {
        heartbeat: tenth,
        silence: tenth * 10,
        lease: tenth * 8,
        lease_margin: tenth,
        retransmit_max: (tenth * 2).min(RETRANSMIT_MAX),
        ..Timing::DEFAULT
    };
    timing.check().expect("fixed fractions of any silence timeout are consistent");
    timing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timing_of_every_timeout_is_consistent_and_default_is_the_channels() {
        for silence_ms in SILENCE_MS_MIN..=SILENCE_MS_MAX {
            let timing = timing(silence_ms);
            assert_eq!(timing.silence, Duration::from_millis(silence_ms));
            assert_eq!(timing.heartbeat * 10, timing.silence);
        }
        assert_eq!(timing(SILENCE_MS_DEFAULT), Timing::DEFAULT);
    }

    #[test]
    fn fingerprint_of_different_timeouts_differs() {
        assert_ne!(timing(100).fingerprint(), timing(101).fingerprint());
    }
}
