//! Configuration of a channel, and which values are compatible.

use super::mutant::Mutants;
use crate::ids::{Lane, SessionId, Term, VmId};
use crate::limits::{
    CHANNEL_FRAME_BYTES_MAX, CHANNEL_FRAME_BYTES_MIN, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN,
};
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::time::Duration;

/// Parts per million.
const MILLION: u64 = 1_000_000;

/// Longest value of any setting: an hour. Sums and products of such values stay far from overflow.
const TIMEOUT_MAX: Duration = Duration::from_millis(3_600_000);

/// Configuration of one end of a channel. The timing must be that of the other end, so
/// [`Timing::fingerprint`] is compared before a session is established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The VM that the channel serves.
    pub vm: VmId,
    /// The session that both ends agreed on.
    pub session: SessionId,
    /// The term of this end.
    pub term: Term,
    /// Longest frame in bytes, from [`crate::frame::FRAME_MAGIC`] to the last byte of the payload: the
    /// MTU minus what the seal adds.
    pub frame_bytes_max: usize,
    /// Size of each lane's windows in bytes, by [`Lane::index`]: most bytes sent and not acknowledged,
    /// and most bytes received and not consumed. Every frame carries the receiver's window, so the two
    /// ends may differ.
    pub window_bytes: [usize; Lane::ALL.len()],
    /// The times of the channel.
    pub timing: Timing,
    /// Planted bugs, for tests of the simulator; none in production.
    pub mutants: Mutants,
}

/// The times of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The primary sends at least this often. The backup answers, and sends on its own if it has sent
    /// nothing for twice as long.
    pub heartbeat: Duration,
    /// Silence timeout: a peer that sent no sign of life for this long is declared dead.
    pub silence: Duration,
    /// The primary may release output for this long after it sent the newest frame that the backup has
    /// acknowledged.
    pub lease: Duration,
    /// Least true time between the end of the primary's lease and the end of the backup's silence
    /// timeout. It covers an output that was found releasable in the last instant of the lease and takes
    /// a while to leave the host.
    pub lease_margin: Duration,
    /// Parts per million by which either clock may run too fast or too slow.
    pub clock_drift_ppm: u32,
    /// Shortest retransmission timeout. A blocked thread on a virtual host takes tens of microseconds to
    /// wake up, at both ends.
    pub retransmit_min: Duration,
    /// Longest retransmission timeout.
    pub retransmit_max: Duration,
}

impl Timing {
    /// The default of [`Config::new`]: a silence timeout of 100 ms and ten heartbeats in that time.
    pub const DEFAULT: Self = Self {
        heartbeat: Duration::from_millis(10),
        silence: Duration::from_millis(100),
        lease: Duration::from_millis(80),
        lease_margin: Duration::from_millis(10),
        clock_drift_ppm: 500,
        retransmit_min: Duration::from_micros(200),
        retransmit_max: Duration::from_millis(20),
    };

    /// Checks that the times are compatible.
    ///
    /// The lease begins when the primary sends a frame. The backup's silence timeout restarts when it
    /// receives that frame, which is later. So the lease expires first if it is the shorter of the two
    /// in true time, even if the primary's clock is slow (its lease then lasts `lease / (1 - d)`) and
    /// the backup's is fast (its timeout then lasts `silence / (1 + d)`).
    ///
    /// # Errors
    ///
    /// The first condition that does not hold.
    pub const fn check(&self) -> Result<(), ConfigError> {
        let drift = self.clock_drift_ppm as u64;
        if drift >= MILLION / 10 {
            return Err(ConfigError::Drift);
        }
        let (heartbeat, silence) = (self.heartbeat.as_nanos(), self.silence.as_nanos());
        let (lease, margin) = (self.lease.as_nanos(), self.lease_margin.as_nanos());
        if silence > TIMEOUT_MAX.as_nanos() || lease > silence || margin > silence {
            return Err(ConfigError::Lease);
        }
        // lease / (1 - d) + margin <= silence / (1 + d), multiplied by both denominators.
        let (fast, slow) = (MILLION + drift, MILLION - drift);
        let ends =
            lease as u128 * (MILLION * fast) as u128 + margin as u128 * (fast * slow) as u128;
        if ends > silence as u128 * (MILLION * slow) as u128 {
            return Err(ConfigError::Lease);
        }
        // Two heartbeats in a row may be lost.
        if heartbeat == 0 || heartbeat.saturating_mul(3) > lease {
            return Err(ConfigError::Heartbeat);
        }
        let (min, max) = (self.retransmit_min.as_nanos(), self.retransmit_max.as_nanos());
        // A delayed acknowledgement must not look like a loss.
        if min < 2 * super::ack::ACK_DELAY_MAX.as_nanos() || max < min || max > silence {
            return Err(ConfigError::Retransmit);
        }
        Ok(())
    }

    /// Returns a CRC-32 of all the times, for the handshake to compare: the lease of one end is only
    /// safe together with the silence timeout of the other.
    pub fn fingerprint(&self) -> u32 {
        let Self {
            heartbeat,
            silence,
            lease,
            lease_margin,
            clock_drift_ppm,
            retransmit_min,
            retransmit_max,
        } = *self;
        let mut crc = crc32fast::Hasher::new();
        for time in [heartbeat, silence, lease, lease_margin, retransmit_min, retransmit_max] {
            crc.update(&time.as_nanos().to_le_bytes());
        }
        crc.update(&clock_drift_ppm.to_le_bytes());
        crc.finalize()
    }
}

const _: () = assert!(Timing::DEFAULT.check().is_ok());

impl Config {
    /// Returns a configuration with the defaults: an MTU of 1500 bytes, windows of 256 KiB for the log
    /// and 1 MiB for bulk, [`Timing::DEFAULT`].
    pub fn new(vm: VmId, session: SessionId, term: Term) -> Self {
        Self {
            vm,
            session,
            term,
            frame_bytes_max: 1500 - SEAL_OVERHEAD_BYTES,
            window_bytes: [256 << 10, 1 << 20],
            timing: Timing::DEFAULT,
            mutants: Mutants::default(),
        }
    }

    /// Checks that the values are within their limits and compatible.
    ///
    /// # Errors
    ///
    /// The first condition that does not hold.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(CHANNEL_FRAME_BYTES_MIN..=CHANNEL_FRAME_BYTES_MAX).contains(&self.frame_bytes_max) {
            return Err(ConfigError::FrameBytes(self.frame_bytes_max));
        }
        for bytes in self.window_bytes {
            if !(WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&bytes) {
                return Err(ConfigError::WindowBytes(bytes));
            }
        }
        self.timing.check()
    }
}

/// Why a channel cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A frame length that is too small to be worth its header, or too large for Ethernet.
    #[error(
        "a frame length of {0} bytes is not in {CHANNEL_FRAME_BYTES_MIN} to {CHANNEL_FRAME_BYTES_MAX} bytes"
    )]
    FrameBytes(usize),
    /// A window that might not hold a whole entry, or whose size does not fit its field.
    #[error("a window of {0} bytes is not in {WINDOW_BYTES_MIN} to {WINDOW_BYTES_MAX} bytes")]
    WindowBytes(usize),
    /// The lease might still be held when the backup takes over.
    #[error(
        "the lease and its margin must end before the silence timeout, whatever the clocks' drift"
    )]
    Lease,
    /// The clocks drift too much.
    #[error("the clock drift must be below 10 %")]
    Drift,
    /// Too few heartbeats in a lease.
    #[error("the lease must be at least three heartbeats long")]
    Heartbeat,
    /// The timeouts are in the wrong order.
    #[error(
        "retransmission timeouts must be in order: 2 x delayed acknowledgement, minimum, maximum, silence timeout"
    )]
    Retransmit,
}
