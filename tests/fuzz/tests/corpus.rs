//! The targets over their corpus and over mutations of it.

#![expect(clippy::print_stdout, reason = "the test harness takes it")]

use fuzz::Target;
use std::time::{Duration, Instant};

/// Time for the mutations of each target. Their number depends on the host; what they are does not.
const MUTATE_FOR: Duration = Duration::from_millis(300);
/// The environment variable with the seed of the mutations; without it, the seed is 1.
const SEED: &str = "FUZZ_SEED";

/// Returns the inputs that the repository has for a target.
fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = target.corpus();
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

/// Changes some bytes, or the length.
fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..bytes.len().max(1));
        match random.u8(..6) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.u8(..8),
            2 if !bytes.is_empty() => bytes[at] = random.u8(..),
            3 if !bytes.is_empty() => bytes[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF]).unwrap(),
            4 => bytes.truncate(at),
            _ => bytes.insert(at.min(bytes.len()), random.u8(..)),
        }
    }
}

/// Prints an input if its target panics.
struct OnPanic(Target, Vec<u8>);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}: {:02x?}", self.0.name(), self.1);
        }
    }
}

#[test]
fn targets_hold_for_the_corpus_and_for_mutations_of_it() {
    let seed = std::env::var(SEED).ok().map_or(1, |seed| seed.parse().expect("a number"));
    println!("again: {SEED}={seed} cargo test --release -p fuzz --test corpus");
    for target in Target::ALL {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name());
        corpus.iter().for_each(|bytes| target.run(bytes));
        let mut random = fastrand::Rng::with_seed(seed);
        let begin = Instant::now();
        let mut mutations = 0;
        while begin.elapsed() < MUTATE_FOR {
            let mut bytes = corpus[random.usize(..corpus.len())].clone();
            mutate(&mut bytes, &mut random);
            let shown = OnPanic(target, bytes);
            target.run(&shown.1);
            mutations += 1;
        }
        println!("{}: {} inputs, {mutations} mutations", target.name(), corpus.len());
    }
}
