//! What leaves a host, where frames can be read: runs without sealing.
//!
//! Every frame must say the truth about what arrived, carry the bytes that it says it carries, keep to
//! what the peer allowed and to the order of precedence; and there must not be more of them than there
//! are reasons for.

use std::collections::VecDeque;

use logchan::channel::Timing;
use logchan::frame::{FrameHeader, FrameKind};
use logchan::handshake::{ANSWER_BURST, ANSWER_EACH};
use logchan::ids::{Lane, Role};
use logchan::limits::{FRAME_HEADER_BYTES, IN_FLIGHT_FRAMES_MAX};
use logchan::seal::{SEAL_HEADER_BYTES, SEAL_TAG_BYTES};
use logchan::time::Time;

use super::host::VM;
use super::model::{Content, End};
use super::world::{World, known};
use crate::sim::{Checked, Violation, require};

/// What the frames of one end said.
#[derive(Debug, Default)]
pub(super) struct WireModel {
    /// Bytes sent at least once, by lane.
    sent: [u64; 2],
    /// What the peer allows.
    limit: [u64; 2],
    /// Stretches that were sent and are not known to have arrived.
    in_flight: [VecDeque<(u64, u64)>; 2],
    /// When the peer was heard last, what was on its way then, and what was sent again since.
    heard_at: Time,
    in_flight_then: u64,
    resent: u64,
    acks: u64,
    beats: u64,
    byes: u64,
    /// Times that the program read something: each may open the window.
    pub(super) reads: u64,
}

impl WireModel {
    /// The channel begins.
    pub(super) fn begin(&mut self, now: Time) {
        self.heard_at = now;
    }

    /// A frame of the peer was taken in.
    pub(super) fn heard(&mut self, now: Time, header: &FrameHeader) {
        for (limit, lane) in self.limit.iter_mut().zip(header.lanes) {
            *limit = (*limit).max(lane.received + u64::from(lane.window));
        }
        self.heard_at = now;
        self.in_flight_then = self.in_flight.iter().map(|lane| lane.len() as u64).sum();
        self.resent = 0;
    }
}

/// Timeouts for a retransmission that can run out in `ns` when nothing is heard: they double.
fn timeouts_max(timing: &Timing, ns: u64) -> u64 {
    let (min, max) = (timing.retransmit_min.as_nanos(), timing.retransmit_max.as_nanos());
    2 + u64::from((max / min).ilog2()) + 1 + ns / max
}

/// What is true of the end that sends, at the moment.
struct Truth {
    now: Time,
    acked: [u64; 2],
    received: [u64; 2],
    window_bytes: [usize; 2],
    payload_max: u64,
    timing: Timing,
}

impl World<'_> {
    /// An answer to a handshake leaves `host`. Each that is not a repetition costs it dearly, so there
    /// must not be many, whatever it is asked.
    pub(super) fn check_answer(&mut self, host: usize, frame: &[u8]) -> Checked {
        let at = self.queue.now();
        let own = &mut self.hosts[host];
        let key = frame[SEAL_HEADER_BYTES..].first_chunk();
        let key = *key.ok_or_else(|| Violation(format!("host {host} answers without a key")))?;
        if !own.answers.contains(&key) {
            own.answers.push(key);
        }
        let lasts_ns = own.clock.shows(at).since(own.booted_at).as_nanos();
        let most = u64::from(ANSWER_BURST) + lasts_ns / ANSWER_EACH.as_nanos();
        let answers = own.answers.len() as u64;
        require!(answers <= most, "host {host} gave {answers} answers in {lasts_ns} ns");
        Ok(())
    }

    /// A frame of a channel leaves `host`, readable.
    pub(super) fn check_sent(&mut self, host: usize, frame: &[u8]) -> Checked {
        let inside = &frame[SEAL_HEADER_BYTES..frame.len() - SEAL_TAG_BYTES];
        let decoded = FrameHeader::decode(inside);
        let (header, payload) =
            decoded.map_err(|error| Violation(format!("host {host} sends no frame: {error}")))?;
        let own = &self.hosts[host];
        let channel = known(own.endpoint.channel())?;
        let mtu = self.options.hosts.iter().map(|host| host.mtu).min();
        let truth = Truth {
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
        let session = &mut self.sessions[known(own.session)?];
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
        check_words(host, end, &header, &truth)?;
        match header.kind.lane() {
            Some(lane) => {
                let content = Content::new(id, host, lane);
                let differs = content.differs_at(header.offset, payload, &mut self.scratch);
                require!(differs.is_none(), "host {host} sends another byte at {differs:?}");
                check_stretch(host, end, lane, header.offset, payload.len() as u64, &truth)
            }
            None => check_reason(host, end, header.kind, &truth),
        }
    }
}

/// What a frame says of its sender.
fn check_words(host: usize, end: &End, header: &FrameHeader, truth: &Truth) -> Checked {
    for lane in Lane::ALL {
        let index = lane.index();
        let said = header.lanes[index];
        let received = truth.received[index];
        require!(
            said.received == received,
            "host {host} acknowledges {} bytes of {lane:?} and holds {received}",
            said.received
        );
        let limit = end.consumed[index] + truth.window_bytes[index] as u64;
        let told = said.received + u64::from(said.window);
        require!(told == limit, "host {host} allows {told} bytes of {lane:?}, not {limit}");
    }
    require!(
        header.ack.newest.0 <= end.newest_taken,
        "host {host} acknowledges frame {} after {}",
        header.ack.newest,
        end.newest_taken
    );
    require!(header.executed == end.executed, "host {host} executed {}", header.executed);
    Ok(())
}

/// A stretch of a lane, for the first time or again.
fn check_stretch(
    host: usize,
    end: &mut End,
    lane: Lane,
    offset: u64,
    length: u64,
    truth: &Truth,
) -> Checked {
    let Truth { acked, payload_max, .. } = *truth;
    let index = lane.index();
    let stretch = (offset, offset + length);
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
        let place = wire.in_flight[index].binary_search(&stretch);
        require!(place.is_ok(), "host {host} sends {stretch:?} of {lane:?} again, for no reason");
        wire.resent += 1;
        let silent_ns = truth.now.since(wire.heard_at).as_nanos();
        // Each timeout takes one stretch of each lane for lost.
        let reasons = wire.in_flight_then + 2 * timeouts_max(&truth.timing, silent_ns);
        require!(
            wire.resent <= reasons,
            "host {host} sent {} stretches again in {silent_ns} ns in which it heard nothing",
            wire.resent
        );
        return Ok(());
    }
    require!(offset == wire.sent[index], "host {host} leaves out bytes before {stretch:?}");
    require!(stretch.1 <= end.appended[index], "host {host} sends what was not appended");
    require!(
        stretch.1 <= wire.limit[index],
        "host {host} sends {stretch:?} of {lane:?}, and {} is the end of the window",
        wire.limit[index]
    );
    wire.sent[index] = stretch.1;
    wire.in_flight[index].push_back(stretch);
    let in_flight = wire.in_flight[index].len();
    let in_flight_max = IN_FLIGHT_FRAMES_MAX[index];
    require!(in_flight <= in_flight_max, "{in_flight} frames of {lane:?} on their way");
    Ok(())
}

/// A frame without payload is sent for a reason, and once for each.
fn check_reason(host: usize, end: &mut End, kind: FrameKind, truth: &Truth) -> Checked {
    let Truth { now, timing, .. } = truth;
    let wire = &mut end.wire;
    let lasts_ns = now.since(end.met_at).as_nanos();
    let (sent, reasons) = match kind {
        FrameKind::Ack => {
            wire.acks += 1;
            (wire.acks, end.frames_taken + wire.reads)
        }
        FrameKind::Heartbeat => {
            let every_ns = timing.heartbeat.as_nanos()
                * match end.role {
                    Role::Primary => 1,
                    Role::Backup => 2,
                };
            wire.beats += 1;
            (wire.beats, 1 + lasts_ns / every_ns)
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
