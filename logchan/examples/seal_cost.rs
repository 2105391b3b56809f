//! What sealing costs: nanoseconds per frame, for the cipher in use and for the other candidate.
//!
//! `taskset -c 1 cargo run --release -p logchan --example seal_cost`
//!
//! Each figure is the least of several runs on one core; compare figures of one run only.

use std::hint::black_box;
use std::time::Instant;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use logchan::seal::{
    Opener, Protection, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, SEAL_TAG_BYTES, Sealer,
};

const FRAMES: usize = 4096;
const RUNS: usize = 9;

/// The least time per frame of several runs, in nanoseconds.
fn least(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_nanos() as f64 / FRAMES as f64
    };
    (0..RUNS).map(time).fold(f64::MAX, f64::min)
}

/// Sealing and opening as the product does it.
fn ours(protection: Protection, payload_bytes: usize) -> (f64, f64) {
    let key = [7; 32];
    let mut sealer = Sealer::new(protection, &key, 1);
    let mut frame = vec![3; payload_bytes + SEAL_OVERHEAD_BYTES];
    let seal = least(|| {
        for _ in 0..FRAMES {
            black_box(sealer.seal(black_box(&mut frame)));
        }
    });
    let mut opener = Opener::new(protection, &key, 1);
    let mut frames = vec![frame; FRAMES];
    let mut least_open = f64::MAX;
    for _ in 0..RUNS {
        for frame in &mut frames {
            sealer.seal(frame);
        }
        let start = Instant::now();
        for frame in &mut frames {
            assert!(black_box(opener.open(frame)).is_ok());
        }
        least_open = least_open.min(start.elapsed().as_nanos() as f64 / FRAMES as f64);
    }
    (seal, least_open)
}

/// The same bytes through ChaCha20-Poly1305.
fn chacha(payload_bytes: usize) -> (f64, f64) {
    let cipher = ChaCha20Poly1305::new(&[7; 32].into());
    let nonce = |n: usize| {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(n as u64).to_le_bytes());
        nonce.into()
    };
    let head = [1; SEAL_HEADER_BYTES];
    let seal_one = |n: usize, payload: &mut [u8]| -> Tag {
        cipher.encrypt_in_place_detached(&nonce(n), &head, payload).expect("short enough")
    };
    let mut payload = vec![3; payload_bytes];
    let seal = least(|| {
        for n in 0..FRAMES {
            black_box(seal_one(n, black_box(&mut payload)));
        }
    });
    let mut frames = vec![payload; FRAMES];
    let mut least_open = f64::MAX;
    for _ in 0..RUNS {
        let tags: Vec<Tag> = frames.iter_mut().enumerate().map(|(n, f)| seal_one(n, f)).collect();
        let start = Instant::now();
        for (n, (frame, tag)) in frames.iter_mut().zip(&tags).enumerate() {
            let opened = cipher.decrypt_in_place_detached(&nonce(n), &head, frame, tag);
            assert!(black_box(opened).is_ok());
        }
        least_open = least_open.min(start.elapsed().as_nanos() as f64 / FRAMES as f64);
    }
    (seal, least_open)
}

fn main() {
    assert_eq!(SEAL_TAG_BYTES, size_of::<Tag>());
    println!("{:<30} {:>8} {:>10} {:>10}", "cipher", "bytes", "seal ns", "open ns");
    for bytes in [64, 1400] {
        let print = |name: &str, (seal, open): (f64, f64)| {
            println!("{name:<30} {bytes:>8} {seal:>10.0} {open:>10.0}");
        };
        print("AES-256-GCM (in use)", ours(Protection::Sealed, bytes));
        print("ChaCha20-Poly1305", chacha(bytes));
        print("none (insecure, CRC-32)", ours(Protection::Insecure, bytes));
    }
}
