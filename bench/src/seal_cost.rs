//! Measures the cost of sealing: nanoseconds per frame for the cipher in use, without a cipher, and for
//! AES-256-GCM, the alternative.
//!
//! Each figure is the minimum of several runs on one core. Compare only figures of one invocation.

use crate::error::BenchError;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};
use logchan::seal::{
    KEY_BYTES, Opener, Protection, SEAL_HEADER_BYTES, SEAL_OVERHEAD_BYTES, Sealer,
};
use serde_json::{Map, Value, json};
use std::hint::black_box;
use vmm::link::now;
use vmm::outln;

/// Frames per run. Opening needs this many different frames.
const FRAMES: usize = 4096;
const RUNS: usize = 9;
/// Payload sizes: a log entry and a full Ethernet frame, bytes.
const PAYLOADS: [usize; 2] = [64, 1400];

/// Options of `seal-cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// A way to protect frames.
#[derive(Clone, Copy)]
enum Cipher {
    Ours(Protection),
    Aes256Gcm,
}

impl Cipher {
    const ALL: [Cipher; 3] =
        [Cipher::Ours(Protection::Sealed), Cipher::Aes256Gcm, Cipher::Ours(Protection::Insecure)];

    const fn name(self) -> &'static str {
        match self {
            Cipher::Ours(Protection::Sealed) => "aegis-128l",
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::Ours(Protection::Insecure) => "insecure",
        }
    }

    fn cost(self, payload_bytes: usize) -> Cost {
        match self {
            Cipher::Ours(protection) => ours(protection, payload_bytes),
            Cipher::Aes256Gcm => aes_gcm(payload_bytes),
        }
    }
}

/// Cost per frame.
struct Cost {
    seal_ns: f64,
    open_ns: f64,
}

/// Measures and prints the result.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    let costs = measure();
    if args.json {
        outln!("{costs}");
    } else {
        print(&costs);
    }
    Ok(())
}

/// Measures every cipher with every payload size.
pub(crate) fn measure() -> Value {
    let mut ciphers = Map::new();
    for cipher in Cipher::ALL {
        let mut sizes = Map::new();
        for bytes in PAYLOADS {
            let Cost { seal_ns, open_ns } = cipher.cost(bytes);
            let cost =
                json!({ "seal_ns": seal_ns.round() as u64, "open_ns": open_ns.round() as u64 });
            sizes.insert(bytes.to_string(), cost);
        }
        ciphers.insert(cipher.name().into(), sizes.into());
    }
    ciphers.into()
}

/// Prints the table.
pub(crate) fn print(costs: &Value) {
    outln!("{:<20} {:>8} {:>10} {:>10}", "cipher", "bytes", "seal ns", "open ns");
    for cipher in Cipher::ALL.map(Cipher::name) {
        for bytes in PAYLOADS {
            let cost = &costs[cipher][bytes.to_string()];
            outln!("{cipher:<20} {bytes:>8} {:>10} {:>10}", cost["seal_ns"], cost["open_ns"]);
        }
    }
}

/// Returns the time per frame of one run, nanoseconds.
fn time(mut run: impl FnMut()) -> f64 {
    let start = now();
    run();
    now().since(start).as_nanos() as f64 / FRAMES as f64
}

fn least(times: impl Iterator<Item = f64>) -> f64 {
    times.fold(f64::MAX, f64::min)
}

/// Measures sealing and opening as the logging channel does them.
fn ours(protection: Protection, payload_bytes: usize) -> Cost {
    let key = [7; KEY_BYTES];
    let mut sealer = Sealer::new(protection, &key, 1);
    let mut frame = vec![3; payload_bytes + SEAL_OVERHEAD_BYTES];
    let mut seal = || {
        for _ in 0..FRAMES {
            black_box(sealer.seal(black_box(&mut frame)));
        }
    };
    let seal_ns = least((0..RUNS).map(|_| time(&mut seal)));
    let mut opener = Opener::new(protection, &key, 1);
    let mut frames = vec![frame; FRAMES];
    let open_ns = least((0..RUNS).map(|_| {
        for frame in &mut frames {
            sealer.seal(frame);
        }
        time(|| {
            for frame in &mut frames {
                assert!(black_box(opener.open(frame)).is_ok());
            }
        })
    }));
    Cost { seal_ns, open_ns }
}

/// Measures the same bytes with AES-256-GCM.
fn aes_gcm(payload_bytes: usize) -> Cost {
    let cipher = Aes256Gcm::new(&[7; KEY_BYTES].into());
    let nonce = |n: usize| -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&(n as u64).to_be_bytes());
        nonce
    };
    let head = [1; SEAL_HEADER_BYTES];
    let seal_one = |n: usize, payload: &mut [u8]| -> Tag {
        cipher
            .encrypt_inout_detached(&nonce(n).into(), &head, payload.into())
            .expect("short enough")
    };
    let mut payload = vec![3; payload_bytes];
    let mut seal = || {
        for n in 0..FRAMES {
            black_box(seal_one(n, black_box(&mut payload)));
        }
    };
    let seal_ns = least((0..RUNS).map(|_| time(&mut seal)));
    let mut frames = vec![payload; FRAMES];
    let open_ns = least((0..RUNS).map(|_| {
        let tags: Vec<Tag> = frames.iter_mut().enumerate().map(|(n, f)| seal_one(n, f)).collect();
        time(|| {
            for (n, (frame, tag)) in frames.iter_mut().zip(&tags).enumerate() {
                let frame = frame.as_mut_slice().into();
                let opened = cipher.decrypt_inout_detached(&nonce(n).into(), &head, frame, tag);
                assert!(black_box(opened).is_ok());
            }
        })
    }));
    Cost { seal_ns, open_ns }
}
