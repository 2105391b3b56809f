//! Two links and the wire between them.

use logchan::handshake::{
    CHALLENGE_EACH, HANDSHAKE_FRAME_BYTES, Identity, LinkEvent, PROTOCOL_VERSION, PresharedKey,
    Received, SecureLink, Security,
};
use logchan::host_profile::HostProfile;
use logchan::ids::{Claimant, Role, Term, VmId, WitnessId};
use logchan::seal::{SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SealHeader};
use logchan::time::{Duration, Time};

use crate::rng::Rng;

pub(crate) const PRIMARY: Identity = Identity {
    protocol_version: PROTOCOL_VERSION,
    role: Role::Primary,
    vm_id: VmId(7),
    cpu_level: 1,
    cpu_digest: 0xc0,
    host_profile: HostProfile::UNKNOWN,
    guest_digest: 0x60,
    disks_digest: 0x70,
    term: Term(1),
    witness: WitnessId(0x71),
    claimant: Claimant(0xc1),
    timing: 0,
    frame_bytes_max: 1500,
};
pub(crate) const BACKUP: Identity = Identity { role: Role::Backup, ..PRIMARY };

pub(crate) fn shared_key() -> Security {
    Security::Sealed(PresharedKey::from_bytes(&[0x5a; 32]).unwrap())
}

pub(crate) fn endpoint(security: Security, identity: Identity, seed: u64) -> SecureLink {
    let mut rng = Rng(seed);
    SecureLink::new(security, identity, Box::new(move |bytes: &mut [u8]| rng.fill(bytes)))
}

/// Returns a frame around `payload` that is not sealed yet.
pub(crate) fn around(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; payload.len() + SEAL_OVERHEAD_BYTES];
    frame[SEAL_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    frame
}

/// Checks that a refused frame is unchanged, except that its payload may be wiped if the tag is wrong.
/// So no part of it can be mistaken for a payload.
pub(crate) fn assert_same_or_wiped(before: &[u8], after: &[u8]) {
    if before == after {
        return;
    }
    let header = SealHeader::decode(before).expect("only a frame is wiped");
    let payload = SEAL_HEADER_BYTES..SEAL_HEADER_BYTES + usize::from(header.length);
    let mut wiped = before.to_vec();
    wiped[payload].fill(0);
    assert_eq!(after, wiped, "a refused frame must be unchanged or wiped");
}

/// Returns the frames that the link sends now.
pub(crate) fn transmitted(link: &mut SecureLink) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; HANDSHAKE_FRAME_BYTES];
    while let Some(length) = link.poll_transmit(&mut buffer) {
        frames.push(buffer[..length].to_vec());
    }
    frames
}

pub(crate) fn events(link: &mut SecureLink) -> Vec<LinkEvent> {
    std::iter::from_fn(|| link.poll_event()).collect()
}

/// Two links; `ends[0]` is the primary unless a test says otherwise.
pub(crate) struct Pair {
    pub(crate) ends: [SecureLink; 2],
    pub(crate) now: Time,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Pair {
        let primary = endpoint(shared_key(), PRIMARY, 2 * seed);
        Pair::of(primary, endpoint(shared_key(), BACKUP, 2 * seed + 1))
    }

    pub(crate) fn of(first: SecureLink, second: SecureLink) -> Pair {
        Pair { ends: [first, second], now: Time::from_nanos(1_000_000) }
    }

    /// Returns a pair with a session.
    pub(crate) fn established(seed: u64) -> Pair {
        let mut pair = Pair::new(seed);
        pair.ends[0].start(pair.now);
        pair.settle();
        for end in &mut pair.ends {
            assert!(matches!(events(end)[..], [LinkEvent::Established(_)]));
        }
        pair
    }

    /// Delivers the frames of both ends until neither sends any, and waits for challenges that are due later.
    /// `pass` is called for each frame with its sender; it may change the frame, and returns whether the
    /// frame arrives.
    pub(crate) fn settle_with(&mut self, mut pass: impl FnMut(usize, &mut Vec<u8>) -> bool) {
        for _ in 0..100 {
            let mut is_idle = true;
            for from in 0..2 {
                for mut frame in transmitted(&mut self.ends[from]) {
                    is_idle = false;
                    if pass(from, &mut frame) {
                        let received = self.ends[1 - from].handle_frame(self.now, &mut frame);
                        assert!(!matches!(received, Received::Data(_)));
                    }
                }
            }
            let soon = self.now + CHALLENGE_EACH;
            let next = self.ends.iter().filter_map(SecureLink::poll_timeout).min();
            match next.filter(|next| is_idle && *next <= soon) {
                Some(_) => self.sleep(CHALLENGE_EACH),
                None if is_idle => return,
                None => {}
            }
        }
        panic!("the two links never stop sending");
    }

    pub(crate) fn settle(&mut self) {
        self.settle_with(|_, _| true);
    }

    /// Runs a handshake started by `end` up to the response. Returns the frames that `end` sends then.
    pub(crate) fn half_handshake(&mut self, end: usize) -> Vec<Vec<u8>> {
        // A challenge may be sent now, whenever the last one was.
        self.now = self.now + CHALLENGE_EACH;
        self.ends[end].start(self.now);
        // Request, challenge, initiation, response.
        for from in [end, 1 - end, end, 1 - end] {
            self.deliver(from);
        }
        transmitted(&mut self.ends[end])
    }

    /// Delivers the frames that `end` sends.
    pub(crate) fn deliver(&mut self, end: usize) {
        for mut frame in transmitted(&mut self.ends[end]) {
            self.ends[1 - end].handle_frame(self.now, &mut frame);
        }
    }

    /// Lets time pass up to the next timeout of either end, at most for `limit`.
    pub(crate) fn sleep(&mut self, limit: Duration) {
        let next = self.ends.iter().filter_map(SecureLink::poll_timeout).min();
        let limit = self.now + limit;
        self.now = next.map_or(limit, |next| next.min(limit)).max(self.now);
        let now = self.now;
        self.ends.iter_mut().for_each(|end| end.handle_timeout(now));
    }

    /// Sends one frame of the channel. Returns whether it was opened.
    pub(crate) fn passes(&mut self, from: usize, payload: &[u8]) -> bool {
        let mut frame = around(payload);
        if self.ends[from].seal(&mut frame).is_err() {
            return false;
        }
        match self.ends[1 - from].handle_frame(self.now, &mut frame) {
            Received::Data(opened) => {
                assert_eq!(opened, payload);
                true
            }
            Received::Handshake(_) | Received::PeerGone | Received::Dropped(_) => false,
        }
    }

    /// Returns whether both directions work.
    pub(crate) fn works(&mut self) -> bool {
        self.passes(0, b"log entries") & self.passes(1, b"an acknowledgement")
    }
}
