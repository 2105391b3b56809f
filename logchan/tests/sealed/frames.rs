//! One direction of a session: sealing, opening, and everything that must not open.

use logchan::seal::{
    OpenError, OpenStats, Opener, Protection, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES,
    SEAL_TAG_BYTES, SealKind, Sealer, WINDOW_FRAMES,
};

use crate::pair::{around, assert_same_or_wiped};
use crate::rng::Rng;

const KEY: [u8; 32] = [0x42; 32];
const KEY_ID: u32 = 0xdead_beef;
const BOTH: [Protection; 2] = [Protection::Sealed, Protection::Insecure];

fn ends(protection: Protection) -> (Sealer, Opener) {
    (Sealer::new(protection, &KEY, KEY_ID), Opener::new(protection, &KEY, KEY_ID))
}

fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut frame = around(payload);
    sealer.seal(&mut frame);
    frame
}

#[test]
fn payload_of_every_length_round_trips_and_is_encrypted() {
    for protection in BOTH {
        let (mut sealer, mut opener) = ends(protection);
        let mut rng = Rng(1);
        for length in (0..=1500).chain([9000, 65_535]) {
            let mut payload = vec![0; length];
            rng.fill(&mut payload);
            let mut frame = sealed(&mut sealer, &payload);
            assert_eq!(frame.len(), length + SEAL_OVERHEAD_BYTES);
            let shown = frame[SEAL_HEADER_BYTES..][..length] == payload[..];
            assert!(length < 8 || shown == (protection == Protection::Insecure));
            // Padding, as from a NIC.
            frame.resize(frame.len().max(60) + length % 3, 0xee);
            assert_eq!(opener.open(&mut frame), Ok((SealKind::Data, &mut payload[..])));
        }
    }
}

/// Layout, nonce and associated data have not changed. The bytes were checked with another
/// implementation of AEGIS.
#[test]
fn sealed_frame_golden_bytes() {
    let (mut sealer, _) = ends(Protection::Sealed);
    let first = sealed(&mut sealer, b"understudy");
    let second = sealed(&mut sealer, b"understudy");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(&first[..16]), "03040a00efbeadde0000000000000000");
    assert_eq!(hex(&second[..16]), "03040a00efbeadde0100000000000000");
    assert_eq!(hex(&first[16..]), GOLDEN_FIRST);
    assert_eq!(hex(&second[16..]), GOLDEN_SECOND);
}

const GOLDEN_FIRST: &str = "d13225e7d48140ee0a3693ee6fad25f4ea3de9e9e3b29210614b";
const GOLDEN_SECOND: &str = "ccb49d85b4e327dc65617f3551bf7231a541965882da23b3d987";

#[test]
fn frame_with_any_bit_flipped_is_refused_and_its_payload_not_revealed() {
    for protection in BOTH {
        for payload in [&b""[..], b"x", &[7; 100]] {
            let (mut sealer, mut opener) = ends(protection);
            let frame = sealed(&mut sealer, payload);
            for bit in 0..8 * frame.len() {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let before = flipped.clone();
                assert!(opener.open(&mut flipped).is_err(), "bit {bit} of {protection:?}");
                assert_same_or_wiped(&before, &flipped);
            }
            assert!(opener.open(&mut frame.clone()).is_ok());
        }
    }
}

#[test]
fn frame_cut_short_is_malformed() {
    let (mut sealer, mut opener) = ends(Protection::Sealed);
    let frame = sealed(&mut sealer, b"entries");
    for length in 0..frame.len() {
        let result = opener.open(&mut frame.clone()[..length]).map(drop);
        assert!(matches!(result, Err(OpenError::Malformed(_))), "{length}: {result:?}");
    }
}

#[test]
fn frame_opens_once_in_any_order_within_the_window() {
    for protection in BOTH {
        let (mut sealer, mut opener) = ends(protection);
        let total = WINDOW_FRAMES as usize + 200;
        let frames: Vec<_> = (0..total).map(|_| sealed(&mut sealer, b"entry")).collect();
        let mut open = |n: usize| opener.open(&mut frames[n].clone()).map(drop);
        let replayed = |n: usize| Err(OpenError::Replayed { sequence: n as u64 });
        assert_eq!(open(total - 1), Ok(()));
        let oldest = total - WINDOW_FRAMES as usize;
        for n in (0..oldest).rev() {
            assert_eq!(open(n), replayed(n), "older than the window");
        }
        for n in (oldest..total - 1).rev() {
            assert_eq!(open(n), Ok(()));
        }
        for n in 0..total {
            assert_eq!(open(n), replayed(n));
        }
    }
}

/// A forged sequence number must not move the window past genuine frames.
#[test]
fn forged_sequence_number_does_not_move_the_window() {
    let (mut sealer, mut opener) = ends(Protection::Sealed);
    let frame = sealed(&mut sealer, b"entry");
    for forged in [1, WINDOW_FRAMES * 2, u64::MAX - 1, u64::MAX] {
        let mut bytes = frame.clone();
        bytes[8..16].copy_from_slice(&forged.to_le_bytes());
        assert_eq!(opener.open(&mut bytes), Err(OpenError::BadTag { sequence: forged }));
    }
    assert!(opener.open(&mut frame.clone()).is_ok());
}

#[test]
fn wrong_key_wrong_session_and_wrong_protection_have_different_errors() {
    let (mut sealer, mut opener) = ends(Protection::Sealed);
    let frame = sealed(&mut sealer, b"entry");
    let mut stats = OpenStats::default();
    let mut refuse = |opener: &mut Opener, expected: OpenError| {
        let mut frame = frame.clone();
        let result = opener.open(&mut frame);
        stats.record(&result);
        assert_eq!(result, Err(expected));
    };
    let other_key = &mut Opener::new(Protection::Sealed, &[0x43; 32], KEY_ID);
    refuse(other_key, OpenError::BadTag { sequence: 0 });
    let other_session = &mut Opener::new(Protection::Sealed, &KEY, 1);
    refuse(other_session, OpenError::StaleSession { key_id: KEY_ID });
    let insecure = &mut Opener::new(Protection::Insecure, &KEY, KEY_ID);
    refuse(insecure, OpenError::OtherProtection);
    assert_eq!((stats.bad_tag, stats.stale_session, stats.other_protection), (1, 1, 1));

    let (mut insecure, _) = ends(Protection::Insecure);
    let mut unprotected = sealed(&mut insecure, b"entry");
    assert_eq!(opener.open(&mut unprotected), Err(OpenError::OtherProtection));
    // With the insecure bit cleared, it is a frame with a wrong tag.
    unprotected[1] &= 0x7f;
    assert_eq!(opener.open(&mut unprotected), Err(OpenError::BadTag { sequence: 0 }));
}

#[test]
#[should_panic(expected = "room for header and tag")]
fn frame_without_room_panics() {
    ends(Protection::Sealed).0.seal(&mut [0; SEAL_HEADER_BYTES + SEAL_TAG_BYTES - 1]);
}
