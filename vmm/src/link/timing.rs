//! The times of a channel, from the one that a user chooses.

use logchan::channel::Timing;
use logchan::time::Duration;

/// The shortest silence timeout in milliseconds: a heartbeat is then one millisecond, which a
/// blocked thread on a virtual host, tens of microseconds late, can still keep.
pub const SILENCE_MS_MIN: u64 = 10;

/// The longest.
pub const SILENCE_MS_MAX: u64 = 60_000;

/// The default of both ends.
pub const SILENCE_MS_DEFAULT: u64 = 100;

/// Longest pause until something is sent again: a link that comes back is used at once, however
/// patient the ends are with each other.
const RETRANSMIT_MAX: Duration = Duration::from_millis(100);

/// The times that go with a silence timeout: ten heartbeats, a lease of eight tenths, a margin of
/// one. Both ends must be given the same timeout.
///
/// # Panics
///
/// When `silence_ms` is not between [`SILENCE_MS_MIN`] and [`SILENCE_MS_MAX`].
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
    timing.check().expect("fixed shares of any timeout go together");
    timing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_timeout_go_together_and_the_default_is_the_channel_s() {
        for silence_ms in SILENCE_MS_MIN..=SILENCE_MS_MAX {
            let timing = timing(silence_ms);
            assert_eq!(timing.silence, Duration::from_millis(silence_ms));
            assert_eq!(timing.heartbeat * 10, timing.silence);
        }
        assert_eq!(timing(SILENCE_MS_DEFAULT), Timing::DEFAULT);
    }

    #[test]
    fn different_timeouts_have_different_fingerprints() {
        assert_ne!(timing(100).fingerprint(), timing(101).fingerprint());
    }
}
