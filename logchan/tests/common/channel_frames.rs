//! Frames of a channel: those that it sends, and those that a malicious peer with the key might send.
#![allow(dead_code)]

use logchan::channel::Channel;
use logchan::frame::{FrameHeader, FrameKind};
use logchan::ids::{FrameNumber, Lane, Role, SessionId, Term, VmId};
use logchan::limits::FRAME_HEADER_BYTES;
use logchan::time::Time;

use crate::fuzz_run::mutate;
use crate::rng::Rng;

pub(crate) fn encoded(header: &FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend_from_slice(payload);
    header.encode(&mut frame);
    frame
}

/// Returns the next frame of a channel.
pub(crate) fn transmit(channel: &mut Channel, now: Time) -> Option<Vec<u8>> {
    let mut buffer = vec![0; channel.config().frame_bytes_max];
    let length = channel.poll_transmit(now, &mut buffer)?;
    buffer.truncate(length);
    Some(buffer)
}

/// Returns a frame that `channel` might send next, changed: with fields that still decode but mean
/// something else, or with mutated bytes.
pub(crate) fn mutated_frame(channel: &mut Channel, now: Time, rng: &mut Rng) -> Vec<u8> {
    let lane = Lane::ALL[rng.below(2)];
    let length = 1 + rng.below(200);
    let bytes = rng.bytes(length);
    // The window may be full; that state is as good as any other.
    let _appended = channel.append(now, lane, &bytes);
    let Some(mut frame) = transmit(channel, now) else {
        return bytes;
    };
    let (mut header, payload) = FrameHeader::decode(&frame).expect("a channel sends valid frames");
    let payload = payload.to_vec();
    let carries = header.kind.lane().is_some();
    match rng.below(16) {
        0 => header.number = FrameNumber(1 + rng.number() % (u64::MAX - 1)),
        1 => header.ack.newest = FrameNumber(rng.number()),
        2 => header.ack.before = rng.next(),
        3 => header.lanes[rng.below(2)].received = rng.number() >> 1,
        4 => header.lanes[rng.below(2)].window = rng.next() as u32,
        5 if carries => header.offset = rng.number() >> 1,
        6 if carries => header.offset = header.offset.wrapping_add(rng.below(300) as u64),
        7 => header.executed = rng.number(),
        8 => header.ack.held_ns = rng.next() as u32,
        9 | 10 => mutate(&mut frame, rng),
        11 => match rng.below(4) {
            0 => header.vm = VmId(rng.number()),
            1 => header.session = SessionId(rng.number()),
            2 => header.term = Term(rng.number()),
            _ => {
                header.role =
                    if header.role == Role::Primary { Role::Backup } else { Role::Primary }
            }
        },
        12 if carries => header.kind = FrameKind::of_lane(lane),
        12 if rng.below(4) == 0 => header.kind = FrameKind::Bye,
        _ => {}
    }
    let mut changed = encoded(&header, &payload);
    if rng.below(8) == 0 {
        mutate(&mut changed, rng);
    }
    if rng.below(4) == 0 { frame } else { changed }
}
