//! The output rule, checked from outside: no frame of the VM on the LAN before the backup has
//! acknowledged what led to it: all of the log before it that does not follow from what is before that.
//!
//! All time stamps are taken on the primary's host: of log frames as they leave, of acknowledgements as
//! they come in, of the VM's frames as the tap gives them to the host. Each acknowledgement is stamped
//! before the primary can see it, each output after the primary has let it go: whatever the machine's
//! load, a primary that keeps the rule cannot seem to break it.

use super::capture::Captured;
use logchan::entry::Entry;
use logchan::entry_codec::decode;
use logchan::error::DecodeError;
use logchan::frame::{FrameHeader, FrameKind};
use logchan::ids::{Lane, Role, SessionId};
use logchan::seal::{Protection, SEAL_HEADER_BYTES, SealHeader, SealKind};
use netpath::MacAddr;
use netpath::packet_port::CHANNEL_ETHERTYPE;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

/// Something that happened to the latency lane: from `t_ns` on, it is so far.
#[derive(Clone, Copy, Debug)]
struct Reached {
    t_ns: u64,
    bytes: u64,
}

/// An output as the log has it.
#[derive(Clone, Copy, Debug)]
struct Logged {
    /// Where the last entry before it ends that nobody could have foreseen.
    release_at: u64,
    length: u32,
    digest: u64,
}

/// A frame of the VM on its host's LAN.
#[derive(Clone, Copy, Debug)]
struct Seen {
    t_ns: u64,
    length: usize,
    digest: u64,
}

/// What a capture of one session holds, in order.
#[derive(Debug, Default)]
pub struct Evidence {
    session: Option<SessionId>,
    log: Vec<u8>,
    sent: Vec<Reached>,
    acked: Vec<Reached>,
    seen: Vec<Seen>,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Outputs of the log whose frame was seen.
    pub outputs: usize,
    /// Those that were seen before their acknowledgement.
    pub early: usize,
    /// Those whose acknowledgement came before their log was sent.
    pub unfounded: usize,
    /// From the acknowledgement to the frame, nanoseconds, the smallest.
    pub slack_min_ns: u64,
    /// From the last byte sent of what it needs to the frame, nanoseconds, in the middle.
    pub sent_to_frame_p50_ns: u64,
}

impl Evidence {
    /// Sorts a captured frame in: interface 0 is the log link, interface 1 the VM's tap.
    pub fn take(&mut self, vm: MacAddr, frame: &Captured) {
        if frame.interface == 0 {
            self.take_log(frame);
        } else if !frame.is_outgoing && frame.bytes[6..12] == vm.octets() {
            let (length, digest) = (frame.bytes.len(), xxh3_64(&frame.bytes));
            self.seen.push(Seen { t_ns: frame.t_ns, length, digest });
        }
    }

    fn take_log(&mut self, captured: &Captured) {
        let Captured { is_outgoing, t_ns, ref bytes, .. } = *captured;
        if bytes[12..14] != CHANNEL_ETHERTYPE.to_be_bytes() {
            return;
        }
        let bytes = &bytes[ETHERNET_BYTES..];
        let seal = SealHeader::decode(bytes).expect("both ends send sound frames");
        assert_eq!(seal.protection, Protection::Insecure, "a sealed log cannot be read");
        if seal.kind != SealKind::Data {
            return;
        }
        let frame = &bytes[SEAL_HEADER_BYTES..][..usize::from(seal.length)];
        let (header, payload) = FrameHeader::decode(frame).expect("both ends send sound frames");
        assert_eq!(*self.session.get_or_insert(header.session), header.session, "one session");
        match (header.role, is_outgoing) {
            (Role::Primary, true) if header.kind == FrameKind::Latency => {
                self.take_payload(t_ns, header.offset, payload);
            }
            (Role::Primary, true) => {}
            (Role::Backup, false) => {
                let bytes = header.lanes[Lane::Latency.index()].received;
                self.acked.push(Reached { t_ns, bytes });
            }
            (Role::Primary, false) | (Role::Backup, true) => panic!("the primary is on this host"),
        }
    }

    /// New log is sent in order; what lies before its end is a repetition.
    fn take_payload(&mut self, t_ns: u64, offset: u64, payload: &[u8]) {
        let (have, offset) = (self.log.len(), usize::try_from(offset).expect("it fits"));
        assert!(offset <= have, "log from {offset} on was sent, and not all before it");
        let known = (have - offset).min(payload.len());
        assert_eq!(payload[..known], self.log[offset..offset + known], "a repetition differs");
        self.log.extend_from_slice(&payload[known..]);
        self.sent.push(Reached { t_ns, bytes: self.log.len() as u64 });
    }

    /// Frames of the VM seen so far.
    pub fn frames(&self) -> usize {
        self.seen.len()
    }

    /// The outputs in the log.
    fn logged(&self) -> Vec<Logged> {
        let (mut at, mut release_at, mut logged) = (0, 0, Vec::new());
        loop {
            let (entry, took) = match decode(&self.log[at..]) {
                Ok(decoded) => decoded,
                Err(DecodeError::Truncated) => return logged,
                Err(error) => panic!("no entry at {at}: {error}"),
            };
            at += took;
            match entry {
                Entry::Output { length, digest } => {
                    logged.push(Logged { release_at, length, digest });
                }
                Entry::Exit { .. } => {}
                _nondeterministic => release_at = at as u64,
            }
        }
    }

    /// Checks every output of the log. Frames seen before the first of them are of before the session;
    /// behind it, each frame must be the next output of the log.
    ///
    /// # Panics
    ///
    /// When a frame was seen that the log does not have, or there is nothing to check.
    pub fn check(&self) -> Checked {
        let logged = self.logged();
        let of_session = self.align(&logged);
        let seen = &self.seen[self.seen.len() - of_session..];
        let mut checked = Checked { slack_min_ns: u64::MAX, ..Checked::default() };
        let mut holds = Vec::with_capacity(seen.len());
        let (mut sent, mut acked) = (0, 0);
        for (output, frame) in logged.iter().zip(seen) {
            let sent_ns = first_at(&self.sent, &mut sent, output.release_at);
            let acked_ns = first_at(&self.acked, &mut acked, output.release_at);
            checked.outputs += 1;
            checked.early += usize::from(acked_ns > frame.t_ns);
            checked.unfounded += usize::from(sent_ns > acked_ns);
            checked.slack_min_ns = checked.slack_min_ns.min(frame.t_ns.saturating_sub(acked_ns));
            holds.push(frame.t_ns.saturating_sub(sent_ns));
        }
        holds.sort_unstable();
        checked.sent_to_frame_p50_ns = holds[holds.len() / 2];
        checked
    }

    /// How many of the frames seen, counted from the end, are the log's first outputs in order.
    fn align(&self, logged: &[Logged]) -> usize {
        let is_same =
            |(o, f): (&Logged, &Seen)| (o.length as usize, o.digest) == (f.length, f.digest);
        let longest = logged.len().min(self.seen.len());
        let count = (1..=longest).rev().find(|count| {
            let seen = &self.seen[self.seen.len() - count..];
            logged.iter().zip(seen).all(is_same)
        });
        count.expect("the VM's frames on the LAN are the log's outputs, in order")
    }

    /// Moves the `n`th last frame of the VM to before its log was sent: what a primary that breaks the
    /// rule looks like.
    pub fn doctor(&mut self, n: usize) {
        let index = self.seen.len() - n;
        self.seen[index].t_ns -= 1_000_000_000;
    }
}

/// When the lane first was at `bytes`; never, if it was not. Is called with ascending `bytes`.
fn first_at(reached: &[Reached], from: &mut usize, bytes: u64) -> u64 {
    while reached.get(*from).is_some_and(|r| r.bytes < bytes) {
        *from += 1;
    }
    reached.get(*from).map_or(u64::MAX, |r| r.t_ns)
}
