//! Frames of the channel byte for byte. `golden` says what a difference means; here, the version that
//! moves is `FRAME_VERSION`.

use logchan::error::FrameError;
use logchan::frame::{FrameAck, FrameHeader, FrameKind, LaneAck};
use logchan::health::Unfit;
use logchan::ids::{FrameNumber, Role, SessionId, Term, VmId};

use crate::channel_frames::encoded;
use crate::fixtures::check_bytes;
use crate::fuzz_run::{mutate, run};

/// Returns a header in which every field has a value of its own.
pub(crate) fn header(kind: FrameKind) -> FrameHeader {
    FrameHeader {
        kind,
        role: Role::Primary,
        ack_now: true,
        unfit: Unfit::WITNESS,
        vm: VmId(0x0101_0101_0101_0102),
        session: SessionId(0x0202_0202_0202_0203),
        term: Term(0x0303_0303_0303_0304),
        number: FrameNumber(0x0404_0404_0404_0405),
        ack: FrameAck {
            newest: FrameNumber(0x0505_0505_0505_0506),
            before: 0x0606_0606_0606_0607,
            held_ns: 0x0707_0708,
        },
        lanes: [
            LaneAck { received: 0x0808_0808_0808_0809, window: 0x0909_090a },
            LaneAck { received: 0x0a0a_0a0a_0a0a_0a0b, window: 0x0b0b_0b0c },
        ],
        executed: 0x0c0c_0c0c_0c0c_0c0d,
        offset: if kind.lane().is_some() { 0x0d0d_0d0d_0d0d_0d0e } else { 0 },
    }
}

fn payload(kind: FrameKind) -> &'static [u8] {
    if kind.lane().is_some() { b"payload" } else { b"" }
}

#[test]
fn golden_frames_of_every_kind() {
    for kind in FrameKind::ALL {
        let header = header(kind);
        let name = format!("channel_{kind:?}").to_lowercase();
        let what = format!("a frame of the channel: {kind:?}");
        let golden = check_bytes(&name, &what, &encoded(&header, payload(kind)));
        assert_eq!(FrameHeader::decode(&golden), Ok((header, payload(kind))), "{kind:?}");
    }
}

#[test]
fn frame_with_padding_decodes_to_the_same_frame() {
    for kind in FrameKind::ALL {
        let mut bytes = encoded(&header(kind), payload(kind));
        bytes.extend_from_slice(&[0xaa; 46]);
        assert_eq!(FrameHeader::decode(&bytes), Ok((header(kind), payload(kind))), "{kind:?}");
    }
}

#[test]
fn frame_cut_short_is_truncated() {
    for kind in FrameKind::ALL {
        let bytes = encoded(&header(kind), payload(kind));
        for cut in 0..bytes.len() {
            assert_eq!(FrameHeader::decode(&bytes[..cut]), Err(FrameError::Truncated), "{cut}");
        }
    }
}

#[test]
fn frame_with_a_wrong_field_is_refused_for_that_field() {
    let good = encoded(&header(FrameKind::Latency), b"payload");
    for (at, byte, error) in [
        (0, b'u', FrameError::NotAFrame),
        (4, 1, FrameError::OtherVersion(1)),
        (5, 0, FrameError::UnknownKind(0)),
        (5, 6, FrameError::UnknownKind(6)),
        (5, 3, FrameError::PayloadOfKind(FrameKind::Ack)),
        (6, 0, FrameError::UnknownRole(0)),
        (6, 3, FrameError::UnknownRole(3)),
        (7, 17, FrameError::UnknownFlags(17)),
        (8, 8, FrameError::Truncated),
        (8, 0, FrameError::PayloadOfKind(FrameKind::Latency)),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(FrameHeader::decode(&bad), Err(error), "byte {at} = {byte}");
    }
}

#[test]
fn frame_with_positions_that_overflow_is_refused() {
    let changes: [fn(&mut FrameHeader); 4] = [
        |header| header.number = FrameNumber(u64::MAX),
        |header| header.offset = u64::MAX - 6,
        |header| header.lanes[0].received = u64::MAX,
        |header| header.lanes[1].received = u64::MAX,
    ];
    for change in changes {
        let mut header = header(FrameKind::Bulk);
        change(&mut header);
        let bytes = encoded(&header, b"payload");
        assert_eq!(FrameHeader::decode(&bytes), Err(FrameError::Overflow), "{header:?}");
    }
}

/// Bytes that decode are the one encoding of their header and payload.
pub(crate) fn fuzz_frame(bytes: &[u8]) {
    if let Ok((header, payload)) = FrameHeader::decode(bytes) {
        let again = encoded(&header, payload);
        assert_eq!(again, bytes[..again.len()], "another encoding of the same frame");
        assert!(header.ack.covers(header.ack.newest));
    }
}

#[test]
fn fuzz_frames() {
    run("fuzz_frames", |rng| {
        let kind = FrameKind::ALL[rng.below(FrameKind::ALL.len())];
        let mut bytes = encoded(&header(kind), payload(kind));
        mutate(&mut bytes, rng);
        fuzz_frame(&bytes);
        bytes.len()
    });
}
