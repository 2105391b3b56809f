//! The checker of sent frames, in runs without sealing.
//!
//! Every frame must report correctly what was received, carry the bytes that it announces, respect the peer's
//! window and the precedence of the lanes. There must not be more frames than there are reasons to send
//! one.

use std::collections::VecDeque;

use logchan::channel::Timing;
use logchan::frame::{FrameHeader, FrameKind};
use logchan::handshake::{ANSWER_BURST, ANSWER_EACH};
use logchan::ids::{Lane, Role};
use logchan::limits::{FRAME_HEADER_BYTES, IN_FLIGHT_FRAMES_MAX};
use logchan::seal::{SEAL_HEADER_BYTES, SEAL_TAG_BYTES, SealHeader, SealKind};
use logchan::time::Time;

use super::host::VM;
use super::model::{Content, End};
use super::world::{World, other, require_some};
use crate::sim::{Checked, Violation, require};

/// The state of one end as its frames show it.
#[derive(Debug, Default)]
pub(super) struct WireModel {
    /// Bytes sent at least once, by lane.
    sent: [u64; 2],
    /// End of the peer's window, by lane.
    limit: [u64; 2],
    /// Segments that were sent and not acknowledged, by lane.
    in_flight: [VecDeque<(u64, u64)>; 2],
    /// When a frame of the peer was received last, the number of segments in flight then, and the number
    /// of retransmissions since.
    heard_at: Time,
    in_flight_then: u64,
    resent: u64,
    acks: u64,
    heartbeats: u64,
    byes: u64,
    /// Number of reads by the program, each of which may open the window.
    pub(super) reads: u64,
}

impl WireModel {
    /// The channel was established.
    pub(super) fn begin(&mut self, now: Time) {
        self.heard_at = now;
    }

    /// A frame of the peer was accepted.
    pub(super) fn heard(&mut self, now: Time, header: &FrameHeader) {
        for (limit, lane) in self.limit.iter_mut().zip(header.lanes) {
            *limit = (*limit).max(lane.received + u64::from(lane.window));
        }
        self.heard_at = now;
        self.in_flight_then = self.in_flight.iter().map(|lane| lane.len() as u64).sum();
        self.resent = 0;
    }
}

/// Maximum number of retransmission timeouts that expire in `ns` when nothing is received. Each is twice as
/// long as the one before, up to the maximum.
fn timeouts_max(timing: &Timing, ns: u64) -> u64 {
    let (min, max) = (timing.retransmit_min.as_nanos(), timing.retransmit_max.as_nanos());
    2 + u64::from((max / min).ilog2()) + 1 + ns / max
}

/// The actual state of the sending end, with which its frames are compared.
struct SenderState {
    now: Time,
    acked: [u64; 2],
    received: [u64; 2],
    window_bytes: [usize; 2],
    payload_max: u64,
    timing: Timing,
}

impl World<'_> {
    /// Checks a handshake frame that `host` sends. Key exchanges are expensive, so whoever has no key must not be
    /// able to cause any: the number of a host's initiations follows from its own requests, and a response needs an
    /// initiation that the peer made for this incarnation. It is answered once.
    pub(super) fn check_handshake(
        &mut self,
        host: usize,
        header: &SealHeader,
        frame: &[u8],
    ) -> Checked {
        let at = self.queue.now();
        let own = &mut self.hosts[host];
        match header.kind {
            SealKind::Request => {
                let id = frame[SEAL_HEADER_BYTES + size_of::<u64>()..].first_chunk();
                let id = u64::from_le_bytes(*require_some(id)?);
                if !own.requests.contains(&id) {
                    own.requests.push(id);
                }
                Ok(())
            }
            SealKind::Initiation => {
                own.attempts.push((header.key_id, at));
                own.initiations += 1;
                let (initiations, requests) = (own.initiations, own.requests.len());
                require!(
                    initiations <= requests,
                    "host {host} sent {initiations} initiations after {requests} requests"
                );
                Ok(())
            }
            SealKind::Response => self.check_response(host, header.key_id),
            SealKind::Challenge | SealKind::Confirm | SealKind::Data | SealKind::DeathNotice => {
                Ok(())
            }
        }
    }

    /// Checks a response that `host` sends to the initiation of `attempt`.
    fn check_response(&mut self, host: usize, attempt: u32) -> Checked {
        let at = self.queue.now();
        let since = self.hosts[host].incarnation().since;
        let mut made = self.hosts[other(host)].attempts.iter();
        let is_fresh = made.any(|made| made.0 == attempt && made.1 >= since);
        require!(is_fresh, "host {host} responds to {attempt:08x}, which is of an earlier time");
        let own = &mut self.hosts[host];
        let again = own.answers.contains(&attempt);
        require!(!again, "host {host} responds to {attempt:08x} again");
        own.answers.push(attempt);
        let lasts_ns = own.clock.shows(at).since(own.booted_at).as_nanos();
        let most = u64::from(ANSWER_BURST) + lasts_ns / ANSWER_EACH.as_nanos();
        let answers = own.answers.len() as u64;
        require!(answers <= most, "host {host} sent {answers} responses in {lasts_ns} ns");
        Ok(())
    }

    /// Checks an unsealed channel frame that `host` sends.
    pub(super) fn check_sent(&mut self, host: usize, frame: &[u8]) -> Checked {
        let inside = &frame[SEAL_HEADER_BYTES..frame.len() - SEAL_TAG_BYTES];
        let decoded = FrameHeader::decode(inside);
        let (header, payload) = decoded
            .map_err(|error| Violation(format!("host {host} sends a bad frame: {error}")))?;
        let own = &self.hosts[host];
        let channel = require_some(own.endpoint.channel())?;
        let mtu = self.options.hosts.iter().map(|host| host.mtu).min();
        let state = SenderState {
            now: own.clock.shows(self.queue.now()),
            acked: Lane::ALL.map(|lane| channel.lane_acked(lane).0),
            received: Lane::ALL
                .map(|lane| channel.consumed(lane).0 + channel.received(lane).len() as u64),
            window_bytes: self.options.hosts[host].window_bytes,
            payload_max: (mtu.unwrap_or(0)
                - SEAL_HEADER_BYTES
                - SEAL_TAG_BYTES
                - FRAME_HEADER_BYTES) as u64,
            timing: self.options.timing,
        };
        let session = &mut self.sessions[require_some(own.session)?];
        let (id, term) = (session.id, session.term);
        let end = &mut session.ends[host];
        require!(
            header.vm == VM
                && header.role == end.role
                && header.session.0 == id
                && header.term.0 == term
                && header.number.0 == end.frames_sent,
            "host {host} sends {header:?} as number {}",
            end.frames_sent
        );
        check_header(host, end, &header, &state)?;
        match header.kind.lane() {
            Some(lane) => {
                let content = Content::new(id, host, lane);
                let differs = content.differs_at(header.offset, payload, &mut self.scratch);
                require!(differs.is_none(), "host {host} sends a wrong byte at {differs:?}");
                check_segment(host, end, lane, header.offset, payload.len() as u64, &state)
            }
            None => check_control_frame(host, end, header.kind, &state),
        }
    }
}

/// Checks what a frame's header reports about its sender.
fn check_header(host: usize, end: &End, header: &FrameHeader, state: &SenderState) -> Checked {
    for lane in Lane::ALL {
        let index = lane.index();
        let said = header.lanes[index];
        let received = state.received[index];
        require!(
            said.received == received,
            "host {host} acknowledges {} bytes of {lane:?} and holds {received}",
            said.received
        );
        let limit = end.consumed[index] + state.window_bytes[index] as u64;
        let allowed = said.received + u64::from(said.window);
        require!(allowed == limit, "host {host} allows {allowed} bytes of {lane:?}, not {limit}");
    }
    require!(
        header.ack.newest.0 <= end.newest_accepted,
        "host {host} acknowledges frame {} after {}",
        header.ack.newest,
        end.newest_accepted
    );
    require!(
        header.executed == end.executed,
        "host {host} reports {} as executed, not {}",
        header.executed,
        end.executed
    );
    Ok(())
}

/// Checks a segment of a lane that is sent for the first time or retransmitted.
fn check_segment(
    host: usize,
    end: &mut End,
    lane: Lane,
    offset: u64,
    length: u64,
    state: &SenderState,
) -> Checked {
    let SenderState { acked, payload_max, .. } = *state;
    let index = lane.index();
    let segment = (offset, offset + length);
    let wire = &mut end.wire;
    for (in_flight, acked) in wire.in_flight.iter_mut().zip(acked) {
        while in_flight.front().is_some_and(|&(_, end)| end <= acked) {
            in_flight.pop_front();
        }
    }
    if lane == Lane::Bulk {
        let unsent = (end.appended[0] - wire.sent[0]).min(payload_max);
        let open = wire.limit[0].saturating_sub(wire.sent[0]);
        let in_flight = wire.in_flight[0].len();
        let may_send = open >= unsent || (open > 0 && in_flight == 0);
        require!(
            unsent == 0 || !may_send || in_flight >= IN_FLIGHT_FRAMES_MAX[0],
            "host {host} sends bulk while {unsent} bytes of the log wait"
        );
    }
    if offset < wire.sent[index] {
        let place = wire.in_flight[index].binary_search(&segment);
        require!(place.is_ok(), "host {host} retransmits {segment:?} of {lane:?} for no reason");
        wire.resent += 1;
        let silent_ns = state.now.since(wire.heard_at).as_nanos();
        // Each timeout declares one segment of each lane lost.
        let reasons = wire.in_flight_then + 2 * timeouts_max(&state.timing, silent_ns);
        require!(
            wire.resent <= reasons,
            "host {host} retransmitted {} segments in {silent_ns} ns in which it received nothing",
            wire.resent
        );
        return Ok(());
    }
    require!(offset == wire.sent[index], "host {host} skips bytes before {segment:?}");
    require!(segment.1 <= end.appended[index], "host {host} sends what was not appended");
    require!(
        segment.1 <= wire.limit[index],
        "host {host} sends {segment:?} of {lane:?}, and {} is the end of the window",
        wire.limit[index]
    );
    wire.sent[index] = segment.1;
    wire.in_flight[index].push_back(segment);
    let in_flight = wire.in_flight[index].len();
    let in_flight_max = IN_FLIGHT_FRAMES_MAX[index];
    require!(in_flight <= in_flight_max, "{in_flight} frames of {lane:?} in flight");
    Ok(())
}

/// Checks that a frame without payload has a reason: each reason allows one frame.
fn check_control_frame(
    host: usize,
    end: &mut End,
    kind: FrameKind,
    state: &SenderState,
) -> Checked {
    let SenderState { now, timing, .. } = state;
    let wire = &mut end.wire;
    let lasts_ns = now.since(end.met_at).as_nanos();
    let (sent, reasons) = match kind {
        FrameKind::Ack => {
            wire.acks += 1;
            (wire.acks, end.frames_accepted + wire.reads)
        }
        FrameKind::Heartbeat => {
            let every_ns = timing.heartbeat.as_nanos()
                * match end.role {
                    Role::Primary => 1,
                    Role::Backup => 2,
                };
            wire.heartbeats += 1;
            (wire.heartbeats, 1 + lasts_ns / every_ns)
        }
        FrameKind::Bye => {
            wire.byes += 1;
            let leaves_ns = now.since(end.said_bye_at).as_nanos();
            (wire.byes, 1 + timeouts_max(timing, leaves_ns))
        }
        FrameKind::Latency | FrameKind::Bulk => return Ok(()),
    };
    require!(sent <= reasons, "host {host} sends {sent} of {kind:?} for {reasons} reasons");
    Ok(())
}
