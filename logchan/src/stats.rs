//! What a channel counted.

use crate::channel::FrameVerdict;
use crate::error::FrameError;
use crate::frame::FrameKind;

/// Counters of one end, since it began or since [`crate::channel::Channel::take_stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames sent, by [`FrameKind::index`].
    pub sent: [u64; FrameKind::ALL.len()],
    /// Bytes of those frames, headers included.
    pub sent_bytes: u64,
    /// Frames that arrived, by [`FrameVerdict::index`].
    pub verdicts: [u64; FrameVerdict::COUNT],
    /// Those that were malformed, by [`FrameError::index`].
    pub malformed: [u64; FrameError::COUNT],
    /// Bytes of the frames that arrived.
    pub received_bytes: u64,
    /// Segments taken for lost because later frames had arrived.
    pub lost_overtaken: u64,
    /// Segments taken for lost because nothing was heard for the retransmission timeout.
    pub lost_timeout: u64,
    /// Segments sent again.
    pub resent: u64,
    /// Appends refused for want of room.
    pub appends_refused: u64,
    /// Times that the lease ran out.
    pub leases_lost: u64,
}

impl Stats {
    /// Frames sent of `kind`.
    pub fn sent(&self, kind: FrameKind) -> u64 {
        self.sent[kind.index()]
    }

    /// Frames that arrived and came to `verdict`.
    pub fn received(&self, verdict: FrameVerdict) -> u64 {
        self.verdicts[verdict.index()]
    }

    /// A frame of `bytes` bytes arrived and came to `verdict`.
    pub(crate) fn count(&mut self, verdict: FrameVerdict, bytes: usize) {
        self.verdicts[verdict.index()] += 1;
        if let FrameVerdict::Malformed(error) = verdict {
            self.malformed[error.index()] += 1;
        }
        self.received_bytes += bytes as u64;
    }

    /// Adds the numbers of `other`: of several channels, or of one in several intervals.
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
