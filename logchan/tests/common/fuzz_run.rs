//! Runs fuzz bodies with a new seed every time. If an input fails, the command that repeats this one
//! input is printed.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `LOGCHAN_FUZZ_INPUTS` | number of inputs of each run | 100 000 |
//! | `LOGCHAN_FUZZ_SEED` | the seed | from the clock |
//! | `LOGCHAN_FUZZ_FROM` | number of the first input | 0 |
//!
//! A body that takes more work than others gets a fixed share of the inputs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the test harness takes it")]
#![allow(dead_code)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use crate::rng::Rng;

fn from_env(name: &str, default: impl FnOnce() -> u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default(),
    }
}

/// Prints how to repeat the current input if it panics.
struct Repeat {
    run: &'static str,
    seed: u64,
    input: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { run, seed, input } = self;
            eprintln!(
                "input {input} of seed {seed}; repeat: LOGCHAN_FUZZ_SEED={seed} \
                 LOGCHAN_FUZZ_FROM={input} LOGCHAN_FUZZ_INPUTS=1 cargo test -p logchan --test {} {run}",
                env!("CARGO_CRATE_NAME")
            );
        }
    }
}

/// Runs `input` with a generator that depends only on the seed and on the number of the input.
pub(crate) fn run(name: &'static str, input: impl Fn(&mut Rng) -> usize) {
    run_one_in(1, name, input);
}

/// Does the same for inputs that take as much work as `share` others, with as many fewer inputs.
pub(crate) fn run_one_in(share: u64, name: &'static str, input: impl Fn(&mut Rng) -> usize) {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed = from_env("LOGCHAN_FUZZ_SEED", clock);
    let from = from_env("LOGCHAN_FUZZ_FROM", || 0);
    let inputs = from_env("LOGCHAN_FUZZ_INPUTS", || 100_000).div_ceil(share);
    let started = Instant::now();
    let mut repeat = Repeat { run: name, seed, input: from };
    let mut bytes = 0;
    for number in from..from + inputs {
        repeat.input = number;
        bytes += input(&mut Rng(Rng(seed ^ number.rotate_left(32)).next()));
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{name}: seed {seed}, {inputs} inputs, {:.0} inputs/s, {:.1} MB/s",
        inputs as f64 / seconds,
        bytes as f64 / seconds / 1e6
    );
}

/// Applies one to four mutations: flips a bit, changes a byte or a length, truncates, inserts, removes
/// or duplicates.
pub(crate) fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        if bytes.is_empty() {
            bytes.push(rng.next() as u8);
        }
        // Kind, length and flags are at the front, so half of the mutations go there.
        let reach = if rng.next() & 1 == 0 { bytes.len() } else { bytes.len().min(16) };
        let at = rng.below(reach);
        let end = at + rng.below((bytes.len() - at).min(32) + 1);
        match rng.below(8) {
            0 | 1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = rng.next() as u8,
            3 => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][rng.below(5)],
            4 => bytes.truncate(at),
            5 => bytes.insert(at, rng.next() as u8),
            6 => drop(bytes.drain(at..end)),
            _ => bytes.extend_from_within(at..end),
        }
    }
}
