//! Arbitrary bytes for a link with a session. The body is a plain function of bytes, so any fuzzer can
//! use it.

use logchan::handshake::{HANDSHAKE_FRAME_BYTES, Received, SecureLink};
use logchan::seal::{SealHeader, VERSION};
use logchan::time::{Duration, Time};

use crate::fuzz_run::run_one_in;
use crate::pair::{Pair, around, assert_same_or_wiped, transmitted};
use crate::rng::Rng;

/// No bytes cause a panic, open, or end the session, and the number of frames sent in answer is bounded.
fn fuzz_link(link: &mut SecureLink, now: Time, bytes: &[u8]) {
    if let Ok(header) = SealHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..16], "another encoding of the same header");
        assert!(header.frame_bytes() <= bytes.len());
    }
    let (peer, before) = (link.peer(), link.stats());
    let mut frame = bytes.to_vec();
    let received = link.handle_frame(now, &mut frame);
    assert!(!matches!(received, Received::Data(_)), "forged: {bytes:02x?}");
    assert_same_or_wiped(bytes, &frame);
    assert_eq!(link.peer(), peer);
    assert_eq!(link.stats().open.opened, before.open.opened);
    assert!(transmitted(link).len() <= 1);
}

/// Changes a frame so that it is another one.
pub(crate) fn forge(frame: &mut Vec<u8>, rng: &mut Rng) {
    // The result must not be the frame itself, padded or not, because that one is authentic.
    let original = frame.clone();
    while *frame == original || frame.starts_with(&original) {
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(frame.len().max(1));
            match rng.below(5) {
                0 | 1 if !frame.is_empty() => frame[at] ^= 1 << rng.below(8),
                2 if !frame.is_empty() => frame[at] = rng.next() as u8,
                3 => frame.truncate(at),
                _ => frame.insert(at.min(frame.len()), rng.next() as u8),
            }
        }
    }
}

/// Returns random bytes behind a header that is often valid.
pub(crate) fn random_frame(rng: &mut Rng) -> Vec<u8> {
    let length = rng.below(2 * HANDSHAKE_FRAME_BYTES);
    let mut bytes = rng.bytes(length);
    if let Some(head) = bytes.first_chunk_mut::<4>() {
        *head = [VERSION, rng.below(9) as u8, rng.below(100) as u8, 0];
    }
    bytes
}

const STEPS: u64 = 64;

#[test]
fn fuzz_frames_of_a_link_with_a_session() {
    run_one_in(STEPS, "fuzz_frames_of_a_link_with_a_session", |rng| {
        let mut pair = Pair::new(rng.next() >> 1);
        let mut samples = Vec::new();
        pair.ends[0].start(pair.now);
        pair.settle_with(|_, frame| {
            samples.push(frame.clone());
            true
        });
        let _events = pair.ends.each_mut().map(|end| end.poll_event());
        for payload in [&b""[..], b"entries", &[9; 200]] {
            let mut frame = around(payload);
            pair.ends[0].seal(&mut frame).unwrap();
            samples.push(frame);
        }
        // With an attempt in progress, other frames are handled; half of the inputs have one.
        let has_attempt = rng.below(2) == 0;
        for end in pair.ends.iter_mut().filter(|_| has_attempt) {
            end.start(pair.now);
            let _initiation = transmitted(end);
        }
        let mut total = 0;
        for _ in 0..STEPS {
            let bytes = if rng.below(4) == 0 {
                random_frame(rng)
            } else {
                let mut bytes = samples[rng.below(samples.len())].clone();
                forge(&mut bytes, rng);
                bytes
            };
            // One of the two ends at random, so that each gets frames of its own and of the other end.
            fuzz_link(&mut pair.ends[rng.below(2)], pair.now, &bytes);
            pair.now = pair.now + Duration::from_micros(10);
            total += bytes.len();
        }
        pair.ends.iter_mut().for_each(SecureLink::stop);
        assert!(pair.works());
        total
    });
}
