//! What a channel must be told, and which values go together.

use super::mutant::Mutants;
use crate::ids::{Lane, SessionId, Term, VmId};
use crate::limits::{
    CHANNEL_FRAME_BYTES_MAX, CHANNEL_FRAME_BYTES_MIN, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN,
};
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::time::Duration;

/// Parts in a million.
const MILLION: u64 = 1_000_000;

/// Longest that any setting may be: an hour. Sums and products of such stay far from overflow.
const TIMEOUT_MAX: Duration = Duration::from_millis(3_600_000);

/// What one end of a channel is told. The times must be those of the other end: whoever opens a
/// session compares [`Timing::fingerprint`] first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The VM.
    pub vm: VmId,
    /// The session that both ends agreed on.
    pub session: SessionId,
    /// The term that this end is in.
    pub term: Term,
    /// Bytes that a frame may have, from [`crate::frame::FRAME_MAGIC`] to its last byte of payload:
    /// the MTU, less what a seal adds.
    pub frame_bytes_max: usize,
    /// Bytes of each lane that may be sent and not acknowledged, and that may be received and not
    /// consumed; by [`Lane::index`]. What a peer may send is told in every frame, so the two ends
    /// may differ.
    pub window_bytes: [usize; Lane::ALL.len()],
    /// When to send, and when to give up.
    pub timing: Timing,
    /// Bugs planted on purpose; none in what ships.
    pub mutants: Mutants,
}

/// The times of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The primary sends at least this often. The backup answers, and sends by itself when it was
    /// silent for twice as long.
    pub heartbeat: Duration,
    /// A peer that was not heard for this long is taken for dead.
    pub silence: Duration,
    /// The primary may release output for this long after it sent the newest frame that the backup
    /// acknowledged.
    pub lease: Duration,
    /// Between the end of the lease and the end of the backup's patience there is at least this
    /// much true time: for what was found releasable in the last instant and takes a while to
    /// leave the host.
    pub lease_margin: Duration,
    /// Parts in a million by which either clock may run too fast or too slow.
    pub clock_drift_ppm: u32,
    /// Least timeout until something is sent again. A blocked wake-up on a virtual host takes
    /// tens of microseconds, on both ends.
    pub retransmit_min: Duration,
    /// Largest such timeout.
    pub retransmit_max: Duration,
}

impl Timing {
    /// What [`Config::new`] takes: silence after 100 ms, ten heartbeats in that time.
    pub const DEFAULT: Self = Self {
        heartbeat: Duration::from_millis(10),
        silence: Duration::from_millis(100),
        lease: Duration::from_millis(80),
        lease_margin: Duration::from_millis(10),
        clock_drift_ppm: 500,
        retransmit_min: Duration::from_micros(200),
        retransmit_max: Duration::from_millis(20),
    };

    /// Whether the times go together.
    ///
    /// The lease: it begins when the primary sends a frame, the backup's patience begins anew when
    /// it receives that frame, which is later. So the lease ends first if, by true time, it is the
    /// shorter of the two, also when the primary's clock is slow (its lease then lasts
    /// `lease / (1 - d)`) and the backup's is fast (its patience lasts `silence / (1 + d)`).
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
        // An acknowledgement that is put off must not look like a loss.
        if min < 2 * super::ack::ACK_DELAY_MAX.as_nanos() || max < min || max > silence {
            return Err(ConfigError::Retransmit);
        }
        Ok(())
    }

    /// A CRC-32 of all of them: what the ends of a session compare, because the lease of one means
    /// nothing against the silence of another.
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
    /// A configuration with the defaults: an MTU of 1500 bytes, windows of 256 KiB for the log and
    /// 1 MiB for bulk, [`Timing::DEFAULT`].
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

    /// Whether the values are within their bounds and go together.
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

/// Why a channel cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Frames too small to be worth their header, or larger than Ethernet's.
    #[error(
        "frames of {0} bytes, not of {CHANNEL_FRAME_BYTES_MIN} to {CHANNEL_FRAME_BYTES_MAX} bytes"
    )]
    FrameBytes(usize),
    /// A window that might not hold an entry, or that its field does not hold.
    #[error("a window of {0} bytes, not of {WINDOW_BYTES_MIN} to {WINDOW_BYTES_MAX} bytes")]
    WindowBytes(usize),
    /// The lease might still be held when the backup takes over.
    #[error("the lease and its margin must end before the silence timeout, whatever the clocks do")]
    Lease,
    /// Clocks that drift by a tenth are none.
    #[error("a clock drift of 10 % or more")]
    Drift,
    /// Too few heartbeats in a lease.
    #[error("the lease must be at least three heartbeats long")]
    Heartbeat,
    /// Timeouts in the wrong order.
    #[error(
        "the retransmission timeouts must be in order: put-off acknowledgement, least, largest, silence"
    )]
    Retransmit,
}
