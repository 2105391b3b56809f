//! What the checkers know: which bytes were appended, what arrived, what was promised. Written down
//! when it happens, from what goes into the code and comes out of it.

use std::collections::VecDeque;

use logchan::ids::{Lane, Role};
use logchan::time::Time;

use super::wire::WireModel;
use crate::sim::rng::{STEP, mix};

/// The bytes of one lane in one direction of one session: a function of where they stand, so that a
/// byte that is anywhere else than where it was appended is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content(u64);

impl Content {
    /// The bytes that `host` appends to `lane` in `session`.
    pub(super) fn new(session: u64, host: usize, lane: Lane) -> Self {
        Self(mix(mix(session ^ STEP) + (2 * host + lane.index()) as u64))
    }

    fn word(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(STEP)))
    }

    /// Writes those from `offset` on.
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

    /// Where `bytes` are not those from `offset` on.
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

/// How an end of a channel ended, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer was silent.
    Silent,
    /// The peer said goodbye.
    PeerBye,
    /// It left by itself.
    Left,
}

/// One end of a session.
#[derive(Debug)]
pub(super) struct End {
    /// Its incarnation, from when it met the other end.
    pub(super) met: Option<u64>,
    /// When it met it, by its own clock.
    pub(super) met_at: Time,
    /// Its role, which means something once it has met.
    pub(super) role: Role,
    /// Bytes that it appended, by lane.
    pub(super) appended: [u64; 2],
    /// Where it required bulk, and how much: a position of each lane.
    pub(super) barriers: VecDeque<(u64, u64)>,
    /// How far it said that it has executed.
    pub(super) executed: u64,
    /// Bytes that it read, and that it holds or read.
    pub(super) consumed: [u64; 2],
    /// See `consumed`.
    pub(super) received: [u64; 2],
    /// How far it was told that the other end has executed.
    pub(super) peer_executed: u64,
    /// What it knows to be safe at the other end.
    pub(super) acked: u64,
    /// What it was told last of either.
    pub(super) told: (u64, u64),
    /// What it was told of the end.
    pub(super) over: Option<Over>,
    /// The true time at which it was told that the peer is silent.
    pub(super) silent_at: Option<u64>,
    /// It said goodbye, and when, by its own clock.
    pub(super) said_bye: bool,
    /// See `said_bye`.
    pub(super) said_bye_at: Time,
    /// A goodbye of the other end reached it.
    pub(super) heard_bye: bool,
    /// Frames of the channel that it sent.
    pub(super) frames_sent: u64,
    /// Frames of the other end that it took in, and the highest of their numbers.
    pub(super) frames_taken: u64,
    /// See `frames_taken`.
    pub(super) newest_taken: u64,
    /// The highest number of those that its link opened, taken in or not.
    pub(super) newest_opened: u64,
    /// By its own clock: when it took in the latest frame that is certainly a sign of life, and the
    /// latest that may be one.
    pub(super) heard: [Time; 2],
    /// By its own clock: when it sent the newest frame that the other end took in.
    pub(super) newest_heard_sent_at: Option<Time>,
    /// Its lease, and the true time at which nobody could ask for it any more.
    pub(super) lease_until: Option<Time>,
    /// See `lease_until`.
    pub(super) gone_at: Option<u64>,
    /// What its frames said, where frames can be read.
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
            told: (0, 0),
            over: None,
            silent_at: None,
            said_bye: false,
            said_bye_at: Time::default(),
            heard_bye: false,
            frames_sent: 0,
            frames_taken: 0,
            newest_taken: 0,
            newest_opened: 0,
            heard: [Time::default(); 2],
            newest_heard_sent_at: None,
            lease_until: None,
            gone_at: None,
            wire: WireModel::default(),
        }
    }
}

/// What two incarnations share.
#[derive(Debug)]
pub(super) struct Session {
    /// Its name on the wire.
    pub(super) id: u64,
    /// The primary's term.
    pub(super) term: u64,
    /// By host.
    pub(super) ends: [End; 2],
}

impl Session {
    /// A session that one end has met the other in.
    pub(super) fn new(id: u64, term: u64) -> Self {
        Self { id, term, ends: [(); 2].map(|()| End::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_however_it_is_cut_and_differs_between_lanes() {
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
