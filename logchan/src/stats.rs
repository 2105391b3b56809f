//! Counters of a channel.

use crate::channel::FrameVerdict;
use crate::error::FrameError;
use crate::frame::FrameKind;

/// Counters of one end of a channel, from its creation or from the last
/// [`crate::channel::Channel::take_stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames sent, by [`FrameKind::index`].
    pub sent: [u64; FrameKind::ALL.len()],
    /// Bytes of the frames sent, headers included.
    pub sent_bytes: u64,
    /// Frames received, by [`FrameVerdict::index`].
    pub verdicts: [u64; FrameVerdict::COUNT],
    /// Malformed frames received, by [`FrameError::index`].
    pub malformed: [u64; FrameError::COUNT],
    /// Bytes of the frames received.
    pub received_bytes: u64,
    /// Segments declared lost because later frames were acknowledged.
    pub lost_overtaken: u64,
    /// Segments declared lost because no acknowledgement came within the retransmission timeout.
    pub lost_timeout: u64,
    /// Segments retransmitted.
    pub resent: u64,
    /// Appends refused because the window was full.
    pub appends_refused: u64,
    /// Number of times that the lease expired.
    pub leases_lost: u64,
}

impl Stats {
    /// Returns the number of frames sent of `kind`.
    pub fn sent(&self, kind: FrameKind) -> u64 {
        self.sent[kind.index()]
    }

    /// Returns the number of frames received with `verdict`.
    pub fn received(&self, verdict: FrameVerdict) -> u64 {
        self.verdicts[verdict.index()]
    }

    /// Counts a received frame of `bytes` bytes.
    pub(crate) fn count(&mut self, verdict: FrameVerdict, bytes: usize) {
        self.verdicts[verdict.index()] += 1;
        if let FrameVerdict::Malformed(error) = verdict {
            self.malformed[error.index()] += 1;
        }
        self.received_bytes += bytes as u64;
    }

    /// Adds the counters of `other`: of another channel, or of the same one in another interval.
    pub fn add(&mut self, other: &Self) {
        let sums = self.sent.iter_mut().zip(other.sent);
        let sums = sums.chain(self.verdicts.iter_mut().zip(other.verdicts));
        for (sum, number) in sums.chain(self.malformed.iter_mut().zip(other.malformed)) {
            *sum += number;
        }
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.lost_overtaken += other.lost_overtaken;
        self.lost_timeout += other.lost_timeout;
        self.resent += other.resent;
        self.appends_refused += other.appends_refused;
        self.leases_lost += other.leases_lost;
    }
}
