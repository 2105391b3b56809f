//! The checkers' model of the sessions: which bytes were appended, received, acknowledged and reported. It is
//! updated from the inputs and outputs of the code under test.

use std::collections::VecDeque;

use logchan::ids::{Lane, Role};
use logchan::time::Time;

use super::wire::WireModel;
use crate::sim::rng::{STEP, mix};

/// The bytes of one lane in one direction of one session. Each byte is a function of its offset, so that a
/// byte delivered at a wrong offset is detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content(u64);

impl Content {
    /// The content that `host` appends to `lane` in `session`.
    pub(super) fn new(session: u64, host: usize, lane: Lane) -> Self {
        Self(mix(mix(session ^ STEP) + (2 * host + lane.index()) as u64))
    }

    fn word(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(STEP)))
    }

    /// Writes the bytes from `offset` on to `out`.
    pub(super) fn write(self, offset: u64, out: &mut [u8]) {
        let skipped = (offset % 8) as usize;
        let mut index = offset / 8;
        let (head, rest) = out.split_at_mut((8 - skipped).min(out.len()));
        head.copy_from_slice(&self.word(index).to_le_bytes()[skipped..][..head.len()]);
        for chunk in rest.chunks_mut(8) {
            index += 1;
            chunk.copy_from_slice(&self.word(index).to_le_bytes()[..chunk.len()]);
        }
    }

    /// The first offset at which `bytes` differ from the content from `offset` on.
    pub(super) fn differs_at(
        self,
        offset: u64,
        bytes: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Option<u64> {
        scratch.resize(bytes.len(), 0);
        self.write(offset, scratch);
        if scratch[..] == *bytes {
            return None;
        }
        let at = scratch.iter().zip(bytes).position(|(right, byte)| right != byte);
        at.map(|at| offset + at as u64)
    }
}

/// Why an end of a channel ended, according to its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The peer was silent.
    Silent,
    /// The peer's death notice arrived.
    Gone,
    /// The peer sent a Bye.
    PeerBye,
    /// It sent a Bye itself.
    Left,
}

/// One end of a session.
#[derive(Debug)]
pub(super) struct End {
    /// Its incarnation, once it has established the session.
    pub(super) met: Option<u64>,
    /// When it established the session, by its own clock.
    pub(super) met_at: Time,
    /// Its role, valid once it has established the session.
    pub(super) role: Role,
    /// Bytes that it appended, by lane.
    pub(super) appended: [u64; 2],
    /// The positions at which it required bulk, as (latency lane, bulk lane).
    pub(super) barriers: VecDeque<(u64, u64)>,
    /// The progress of execution that it reported to the channel.
    pub(super) executed: u64,
    /// Bytes that it read, by lane.
    pub(super) consumed: [u64; 2],
    /// Bytes that it read or has in memory, by lane.
    pub(super) received: [u64; 2],
    /// The other end's progress of execution, as its channel knows it.
    pub(super) peer_executed: u64,
    /// The log position that is acknowledged to it.
    pub(super) acked: u64,
    /// The last acknowledged position and peer progress in its events.
    pub(super) reported: (u64, u64),
    /// Why it ended, according to its events.
    pub(super) ended: Option<EndReason>,
    /// The true time of the event that the peer is silent.
    pub(super) silent_at: Option<u64>,
    /// Whether it sent a Bye.
    pub(super) said_bye: bool,
    /// When it sent a Bye, by its own clock.
    pub(super) said_bye_at: Time,
    /// Whether it received a Bye.
    pub(super) heard_bye: bool,
    /// Whether it received the other end's death notice.
    pub(super) heard_notice: bool,
    /// Number of channel frames that it sent.
    pub(super) frames_sent: u64,
    /// Number of the other end's frames that it accepted.
    pub(super) frames_accepted: u64,
    /// Highest number of the frames that it accepted.
    pub(super) newest_accepted: u64,
    /// Highest number of the frames that its link opened, accepted or not.
    pub(super) newest_opened: u64,
    /// By its own clock: when it received the latest frame that is certainly a sign of life, and the
    /// latest that may be one.
    pub(super) heard: [Time; 2],
    /// By its own clock: when it sent the newest frame that the other end accepted.
    pub(super) newest_heard_sent_at: Option<Time>,
    /// When its lease ends, by its own clock.
    pub(super) lease_until: Option<Time>,
    /// The true time at which it gave up the session or its process died.
    pub(super) gone_at: Option<u64>,
    /// The checker's model of its frames, in runs without sealing.
    pub(super) wire: WireModel,
}

impl End {
    fn new() -> Self {
        Self {
            met: None,
            met_at: Time::default(),
            role: Role::Backup,
            appended: [0; 2],
            barriers: VecDeque::new(),
            executed: 0,
            consumed: [0; 2],
            received: [0; 2],
            peer_executed: 0,
            acked: 0,
            reported: (0, 0),
            ended: None,
            silent_at: None,
            said_bye: false,
            said_bye_at: Time::default(),
            heard_bye: false,
            heard_notice: false,
            frames_sent: 0,
            frames_accepted: 0,
            newest_accepted: 0,
            newest_opened: 0,
            heard: [Time::default(); 2],
            newest_heard_sent_at: None,
            lease_until: None,
            gone_at: None,
            wire: WireModel::default(),
        }
    }
}

/// A session between two incarnations.
#[derive(Debug)]
pub(super) struct Session {
    /// Its identifier on the wire.
    pub(super) id: u64,
    /// The primary's term.
    pub(super) term: u64,
    /// The two ends, by host.
    pub(super) ends: [End; 2],
}

impl Session {
    /// Creates a session that neither end has established yet.
    pub(super) fn new(id: u64, term: u64) -> Self {
        Self { id, term, ends: [(); 2].map(|()| End::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_independent_of_slicing_and_differs_between_lanes() {
        let content = Content::new(7, 1, Lane::Bulk);
        let mut whole = [0; 100];
        content.write(1000, &mut whole);
        let mut scratch = Vec::new();
        for (start, end) in [(0, 100), (1, 2), (3, 30), (7, 8), (8, 8), (50, 99)] {
            let bytes = &whole[start..end];
            assert_eq!(content.differs_at(1000 + start as u64, bytes, &mut scratch), None);
        }
        whole[42] ^= 1;
        assert_eq!(content.differs_at(1000, &whole, &mut scratch), Some(1042));
        for other in [(6, 1, Lane::Bulk), (7, 0, Lane::Bulk), (7, 1, Lane::Latency)] {
            let other = Content::new(other.0, other.1, other.2);
            assert!(other.differs_at(1000, &whole[..8], &mut scratch).is_some());
        }
    }
}
