//! Random inputs. The seed is new in every run and printed, with the command that reproduces a failure.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `NETPATH_FUZZ_INPUTS` | number of inputs per test | 20 000 |
//! | `NETPATH_FUZZ_SEED` | the seed | from the clock |
//! | `NETPATH_FUZZ_FROM` | number of the first input | 0 |

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the test harness takes it")]

use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, thread};

pub use fastrand::Rng;

fn from_env(name: &str, default: impl FnOnce() -> u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default(),
    }
}

/// Prints, on a panic, the command that reproduces the current input.
struct Repeat {
    run: &'static str,
    seed: u64,
    input: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { run, seed, input } = self;
            let (program, test) = run.split_once("::").expect("program::test");
            eprintln!(
                "input {input} of seed {seed}; reproduce with: NETPATH_FUZZ_SEED={seed} \
                 NETPATH_FUZZ_FROM={input} NETPATH_FUZZ_INPUTS=1 \
                 cargo test --release -p netpath --test {program} {test}"
            );
        }
    }
}

/// Runs `input` with a generator that depends only on the seed and the input's number. `run` is
/// `program::test`.
pub fn run(run: &'static str, mut input: impl FnMut(&mut Rng)) {
    run_one_in(1, run, &mut input);
}

/// Like [`run`], for inputs that each take `share` times as much work: runs fewer of them by that
/// factor.
pub fn run_one_in(share: u64, run: &'static str, mut input: impl FnMut(&mut Rng)) {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed = from_env("NETPATH_FUZZ_SEED", clock);
    let from = from_env("NETPATH_FUZZ_FROM", || 0);
    let inputs = from_env("NETPATH_FUZZ_INPUTS", || 20_000).div_ceil(share);
    let mut repeat = Repeat { run, seed, input: from };
    for number in from..from + inputs {
        repeat.input = number;
        // Seeds each input's generator from another generator: neighbouring seeds give unrelated
        // streams.
        let stream = Rng::with_seed(seed ^ number.rotate_left(32)).u64(..);
        input(&mut Rng::with_seed(stream));
    }
    println!("{run}: seed {seed}, {inputs} inputs");
}

/// Damages bytes as a fuzzer does: flips, overwrites, cuts, repeats.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(1..4) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        match rng.u32(..6) {
            0 => bytes[at] ^= 1 << rng.u32(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes[at] = *rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).expect("five of them"),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, rng.u8(..)),
            _ => bytes.extend_from_within(at..),
        }
    }
}
