//! [`RateLimits`]: how fast a guest may take entropy, receive frames and write to its console.
//!
//! A limit is a token bucket over the host's monotonic clock. Its decisions are made here, where the world is read, and
//! not in a device: the log contains what passed (the bytes of entropy, the frames that entered), so a replay and a backup
//! repeat the decisions without knowing a limit or a clock. Console output is no part of the log or of the machine's state.
//!
//! | limit | beyond it |
//! |---|---|
//! | entropy | the guest gets one byte for each request, instead of what it has room for; it asks again |
//! | frames | frames are taken from the tap and dropped |
//! | console | bytes are dropped |
//!
//! The guest never waits. All three are counted.

use serde::Serialize;
use std::time::Duration;

/// Time whose rate may be used at once. Less than two of them pass at once after a pause, because a bucket is filled when
/// it is empty.
const BURST: Duration = Duration::from_secs(1);

/// Rates of the limits: units a second. Zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bytes of entropy.
    pub entropy_bytes: u64,
    /// Frames from the tap.
    pub frames: u64,
    /// Bytes of console output.
    pub console_bytes: u64,
}

impl Default for Rates {
    /// More than a guest that works needs: a Linux guest draws some kilobytes of entropy a minute, a frame costs a guest
    /// more than 5 us, and a real serial port has 11 kB/s.
    fn default() -> Rates {
        Rates { entropy_bytes: 64 << 10, frames: 200_000, console_bytes: 256 << 10 }
    }
}

/// What was beyond a limit, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OverLimit {
    /// Requests for entropy that were answered with one byte.
    pub entropy_requests: u64,
    /// Frames dropped.
    pub frames: u64,
    /// Bytes of console output dropped.
    pub console_bytes: u64,
}

/// A token bucket. It is full at the start.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens a second; zero is no limit.
    rate: u64,
    /// Tokens, in units of 1 / 10^9: a nanosecond adds `rate` of them.
    tokens: u128,
    filled_ns: u64,
}

const TOKEN: u128 = 1_000_000_000;

impl Bucket {
    fn new(rate: u64, now_ns: u64) -> Bucket {
        Bucket { rate, tokens: Bucket::room(rate), filled_ns: now_ns }
    }

    fn room(rate: u64) -> u128 {
        u128::from(rate) * BURST.as_nanos()
    }

    /// Takes up to `wanted` tokens and returns how many there were. Reads the clock only if there are too few: it is a
    /// system call. A clock that goes back adds none.
    fn take(&mut self, wanted: u64, now_ns: impl FnOnce() -> u64) -> u64 {
        if self.rate == 0 {
            return wanted;
        }
        if self.tokens < u128::from(wanted) * TOKEN {
            let now_ns = now_ns();
            let passed = now_ns.saturating_sub(self.filled_ns);
            self.filled_ns = self.filled_ns.max(now_ns);
            let tokens = self.tokens + u128::from(self.rate) * u128::from(passed);
            self.tokens = tokens.min(Bucket::room(self.rate));
        }
        // Fits: it is at most `wanted`.
        let taken = u128::from(wanted).min(self.tokens / TOKEN) as u64;
        self.tokens -= u128::from(taken) * TOKEN;
        taken
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct RateLimits {
    entropy: Bucket,
    frames: Bucket,
    console: Bucket,
    over: OverLimit,
}

impl RateLimits {
    /// Creates limits with all of their burst available.
    pub fn new(rates: Rates, now_ns: u64) -> RateLimits {
        RateLimits {
            entropy: Bucket::new(rates.entropy_bytes, now_ns),
            frames: Bucket::new(rates.frames, now_ns),
            console: Bucket::new(rates.console_bytes, now_ns),
            over: OverLimit::default(),
        }
    }

    /// Returns how many bytes a request for `wanted` bytes of entropy gets: at least one, unless it wants none.
    pub fn entropy(&mut self, wanted: usize, now_ns: impl FnOnce() -> u64) -> usize {
        let given = self.entropy.take(wanted as u64, now_ns) as usize;
        if given < wanted {
            self.over.entropy_requests += 1;
        }
        given.max(wanted.min(1))
    }

    /// Returns whether a frame may enter the guest.
    pub fn allows_frame(&mut self, now_ns: impl FnOnce() -> u64) -> bool {
        let is_allowed = self.frames.take(1, now_ns) == 1;
        self.over.frames += u64::from(!is_allowed);
        is_allowed
    }

    /// Returns whether a byte of console output is shown.
    pub fn allows_console(&mut self, now_ns: impl FnOnce() -> u64) -> bool {
        let is_allowed = self.console.take(1, now_ns) == 1;
        self.over.console_bytes += u64::from(!is_allowed);
        is_allowed
    }

    /// Returns what was beyond the limits.
    pub fn over(&self) -> OverLimit {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const RATES: Rates = Rates { entropy_bytes: 100, frames: 10, console_bytes: 3 };

    #[test]
    fn limits_give_their_burst_and_then_their_rate() {
        let mut limits = RateLimits::new(RATES, 5);
        assert_eq!(limits.entropy(60, || 5), 60);
        assert_eq!(limits.entropy(60, || 5), 40);
        assert_eq!((limits.entropy(60, || 5), limits.entropy(0, || 5)), (1, 0));
        assert_eq!(limits.entropy(60, || 5 + SECOND / 10), 10);
        assert_eq!(limits.over().entropy_requests, 3);
        let allowed =
            |limits: &mut RateLimits, now| (0..50).filter(|_| limits.allows_frame(|| now)).count();
        assert_eq!(allowed(&mut limits, 5), 10);
        assert_eq!(allowed(&mut limits, 5 + SECOND / 2), 5);
        assert_eq!(limits.over().frames, 85);
        assert_eq!((0..9).filter(|_| limits.allows_console(|| 5)).count(), 3);
        assert_eq!(limits.over().console_bytes, 6);
        // A pause adds no more than the burst, and a clock that goes back nothing.
        assert_eq!(allowed(&mut limits, 5 + 100 * SECOND), 10);
        assert_eq!(allowed(&mut limits, 5), 0);
    }

    #[test]
    fn rates_of_zero_are_no_limits() {
        let none = Rates { entropy_bytes: 0, frames: 0, console_bytes: 0 };
        let mut limits = RateLimits::new(none, 0);
        assert_eq!(limits.entropy(usize::MAX, || 0), usize::MAX);
        assert!((0..1000).all(|_| limits.allows_frame(|| 0) && limits.allows_console(|| 0)));
        assert_eq!(limits.over(), OverLimit::default());
    }
}
