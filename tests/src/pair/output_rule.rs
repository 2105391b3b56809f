//! Checks the output rule from outside: no frame of the VM is on the LAN before the backup has
//! acknowledged the log that the frame depends on, which is the log up to the last nondeterministic
//! entry before it.
//!
//! All timestamps are taken on the primary's host: of log frames when they are sent, of
//! acknowledgements when they are received, of the VM's frames when the tap passes them to the host.
//! Each acknowledgement is stamped before the primary can see it, and each output after the primary has
//! released it. A primary that keeps the rule therefore never appears to break it, whatever the
//! machine's load.

use logchan::entry::Entry;
use logchan::entry_codec::decode;
use logchan::error::DecodeError;
use logchan::frame::{FrameHeader, FrameKind};
use logchan::ids::{Lane, Role, SessionId};
use logchan::seal::{Protection, SEAL_HEADER_BYTES, SealHeader, SealKind};
use netpath::MacAddr;
use netpath::packet_port::CHANNEL_ETHERTYPE;
use replication::driver::LINK_HEADER_BYTES;
use testbed::capture::Captured;
use xxhash_rust::xxh3::xxh3_64;

/// Progress of the latency lane: from `t_ns` on, it has reached `bytes`.
#[derive(Clone, Copy, Debug)]
struct Reached {
    t_ns: u64,
    bytes: u64,
}

/// An output entry of the log.
#[derive(Clone, Copy, Debug)]
struct Logged {
    /// End of the last nondeterministic entry before the output.
    release_at: u64,
    length: u32,
    digest: u64,
}

/// A frame of the VM, captured on its host's LAN.
#[derive(Clone, Copy, Debug)]
struct Seen {
    t_ns: u64,
    length: usize,
    digest: u64,
}

/// An output in the log of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedOutput {
    /// Length of the frame in bytes.
    pub length: u32,
    /// xxh3-64 of the frame.
    pub digest: u64,
    /// Whether the log that it depends on was acknowledged.
    pub is_acknowledged: bool,
    /// Whether the frame was captured on the tap.
    pub is_on_lan: bool,
}

impl LoggedOutput {
    /// Returns whether it was made, and waits for an acknowledgement.
    pub fn waits(&self) -> bool {
        !self.is_acknowledged && !self.is_on_lan
    }
}

impl std::fmt::Display for LoggedOutput {
    /// Describes the output in one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { length, digest, is_acknowledged, is_on_lan } = *self;
        let acknowledged = if is_acknowledged { "acknowledged" } else { "NOT acknowledged" };
        let on_lan = if is_on_lan { "on the LAN" } else { "NOT on the LAN" };
        write!(f, "output of {length} bytes, digest {digest:016x}: {acknowledged}, {on_lan}")
    }
}

/// The relevant contents of a capture of one session, in order.
#[derive(Debug, Default)]
pub struct Evidence {
    session: Option<SessionId>,
    log: Vec<u8>,
    sent: Vec<Reached>,
    acked: Vec<Reached>,
    seen: Vec<Seen>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Outputs of the log whose frame was captured.
    pub outputs: usize,
    /// Outputs whose frame was captured before their acknowledgement.
    pub early: usize,
    /// Outputs whose acknowledgement was captured before their log was sent.
    pub unfounded: usize,
    /// Shortest time from the acknowledgement to the frame, nanoseconds.
    pub slack_min_ns: u64,
    /// Median time from sending the last log byte that the output depends on to the frame, nanoseconds.
    pub sent_to_frame_p50_ns: u64,
}

impl Evidence {
    /// Adds a captured frame: interface 0 is the log link, interface 1 the VM's tap.
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
        let bytes = &bytes[LINK_HEADER_BYTES..];
        let seal = SealHeader::decode(bytes).expect("both ends send valid frames");
        assert_eq!(seal.protection, Protection::Insecure, "a sealed log cannot be read");
        if seal.kind != SealKind::Data {
            return;
        }
        let frame = &bytes[SEAL_HEADER_BYTES..][..usize::from(seal.length)];
        let (header, payload) = FrameHeader::decode(frame).expect("both ends send valid frames");
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

    /// Adds log bytes. New log is sent in order; bytes before its end are a retransmission.
    fn take_payload(&mut self, t_ns: u64, offset: u64, payload: &[u8]) {
        let (have, offset) = (self.log.len(), usize::try_from(offset).expect("it fits"));
        assert!(offset <= have, "log from {offset} on was sent before earlier log");
        let known = (have - offset).min(payload.len());
        assert_eq!(
            payload[..known],
            self.log[offset..offset + known],
            "a retransmission differs from the original"
        );
        self.log.extend_from_slice(&payload[known..]);
        self.sent.push(Reached { t_ns, bytes: self.log.len() as u64 });
    }

    /// Returns the number of VM frames captured so far.
    pub fn frames(&self) -> usize {
        self.seen.len()
    }

    /// Returns the outputs in the log that was captured so far, in order.
    ///
    /// # Panics
    ///
    /// If a log entry is invalid.
    pub fn outputs(&self) -> Vec<LoggedOutput> {
        let logged = self.logged();
        let on_lan = self.find_aligned(&logged).unwrap_or(0);
        let acked = self.acked.iter().map(|reached| reached.bytes).max().unwrap_or(0);
        let outputs = logged.iter().enumerate().map(|(index, output)| LoggedOutput {
            length: output.length,
            digest: output.digest,
            is_acknowledged: output.release_at <= acked,
            is_on_lan: index < on_lan,
        });
        outputs.collect()
    }

    /// Decodes the outputs in the log.
    fn logged(&self) -> Vec<Logged> {
        let (mut at, mut release_at, mut logged) = (0, 0, Vec::new());
        loop {
            let (entry, took) = match decode(&self.log[at..]) {
                Ok(decoded) => decoded,
                Err(DecodeError::Truncated) => return logged,
                Err(error) => panic!("invalid entry at {at}: {error}"),
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

    /// Checks every output of the log. Frames captured before the first output precede the session.
    /// After it, each frame must be the next output of the log.
    ///
    /// # Panics
    ///
    /// If a captured frame is not in the log, or there is nothing to check.
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

    /// Returns how many of the captured frames, counted from the end, are the log's first outputs in
    /// order.
    fn align(&self, logged: &[Logged]) -> usize {
        let count = self.find_aligned(logged);
        count.expect("the VM's frames on the LAN are the log's outputs, in order")
    }

    /// As [`align`](Self::align); `None` if there is no such number.
    fn find_aligned(&self, logged: &[Logged]) -> Option<usize> {
        let is_same =
            |(o, f): (&Logged, &Seen)| (o.length as usize, o.digest) == (f.length, f.digest);
        let longest = logged.len().min(self.seen.len());
        (1..=longest).rev().find(|count| {
            let seen = &self.seen[self.seen.len() - count..];
            logged.iter().zip(seen).all(is_same)
        })
    }

    /// Changes the timestamp of the `n`th last VM frame to before its log was sent, as if the primary
    /// had broken the rule.
    pub fn backdate_frame(&mut self, n: usize) {
        let index = self.seen.len() - n;
        self.seen[index].t_ns -= 1_000_000_000;
    }
}

/// Returns when the lane first reached `bytes`; `u64::MAX` if it did not. Must be called with ascending
/// `bytes`.
fn first_at(reached: &[Reached], from: &mut usize, bytes: u64) -> u64 {
    while reached.get(*from).is_some_and(|r| r.bytes < bytes) {
        *from += 1;
    }
    reached.get(*from).map_or(u64::MAX, |r| r.t_ns)
}
