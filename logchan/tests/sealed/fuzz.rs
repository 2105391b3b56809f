//! Bytes of any kind for an endpoint with a session. The body is a plain function of bytes, for any
//! fuzzer; the run here feeds it from a seed that is new every time and printed when something fails.
//!
//! `LOGCHAN_FUZZ_INPUTS`, `LOGCHAN_FUZZ_SEED` and `LOGCHAN_FUZZ_FROM` mean what they do in the tests of
//! the log.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use logchan::handshake::{HANDSHAKE_FRAME_BYTES, Received, SecureLink};
use logchan::seal::SealHeader;
use logchan::time::{Duration, Time};

use crate::pair::{Pair, Rng, around, transmitted};

/// No bytes panic, or open, or take the session away; what is sent in answer is bounded.
fn fuzz_link(link: &mut SecureLink, now: Time, bytes: &[u8]) {
    if let Ok(header) = SealHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..16], "another encoding of the same header");
        assert!(header.frame_bytes() <= bytes.len());
    }
    let (peer, before) = (link.peer(), link.stats());
    let mut frame = bytes.to_vec();
    let received = link.handle_frame(now, &mut frame);
    assert!(!matches!(received, Received::Data(_)), "forged: {bytes:02x?}");
    assert_eq!(frame, bytes, "changed a frame that it refused");
    assert_eq!(link.peer(), peer);
    assert_eq!(link.stats().open.opened, before.open.opened);
    assert!(transmitted(link).len() <= 1);
}

fn from_env(name: &str, default: impl FnOnce() -> u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default(),
    }
}

/// Says, when a panic passes by, how to repeat the input under way.
struct Repeat {
    seed: u64,
    input: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { seed, input } = self;
            eprintln!(
                "input {input} of seed {seed}; repeat: LOGCHAN_FUZZ_SEED={seed} \
                 LOGCHAN_FUZZ_FROM={input} LOGCHAN_FUZZ_INPUTS=1 cargo test -p logchan --test sealed fuzz"
            );
        }
    }
}

fn mutate(frame: &mut Vec<u8>, rng: &mut Rng) {
    // Never the frame itself: that one is authentic.
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

#[test]
fn fuzz_frames_of_an_endpoint_with_a_session() {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed = from_env("LOGCHAN_FUZZ_SEED", clock);
    let from = from_env("LOGCHAN_FUZZ_FROM", || 0);
    let inputs = from_env("LOGCHAN_FUZZ_INPUTS", || 20_000);
    let mut repeat = Repeat { seed, input: from };

    let mut pair = Pair::new(seed);
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

    let started = Instant::now();
    for number in from..from + inputs {
        repeat.input = number;
        let mut rng = Rng(Rng(seed ^ number.rotate_left(32)).next());
        let mut bytes = if rng.below(4) == 0 {
            let mut bytes = vec![0; rng.below(2 * HANDSHAKE_FRAME_BYTES)];
            rng.fill(&mut bytes);
            if let Some(head) = bytes.first_chunk_mut::<4>() {
                *head = [1, rng.below(6) as u8, rng.below(100) as u8, 0];
            }
            bytes
        } else {
            let mut bytes = samples[rng.below(samples.len())].clone();
            mutate(&mut bytes, &mut rng);
            bytes
        };
        // One of two ends, so that each sees frames of its own and of the other.
        let end = rng.below(2);
        // Frames with an attempt under way are other frames: every second input has one.
        if number % 2 == 0 {
            pair.ends[end].start(pair.now);
            let _initiation = transmitted(&mut pair.ends[end]);
        }
        fuzz_link(&mut pair.ends[end], pair.now, &bytes);
        pair.ends[end].stop();
        bytes.clear();
        pair.now = pair.now + Duration::from_micros(10);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("seed {seed}, {inputs} inputs, {:.0} inputs/s", inputs as f64 / seconds);
    assert!(pair.works());
}
