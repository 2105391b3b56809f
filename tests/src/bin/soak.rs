//! Repeatedly records a VM under load and random kicks on a busy host, replays the log and compares the
//! results.
//!
//! `cargo run --release -p tests --bin soak -- --runs 10 --seconds 30 [--guest hard] [--cpu-model v3]`
//!
//! With `--guest hostile`, each run also protects the VM with a pair, one of whose hosts is killed.

use clap::{Parser, ValueEnum};
use std::path::Path;
use std::process::ExitCode;
use tests::hostile::{self, Account};
use tests::pair::Rig;
use tests::recording::{difference, record_hard_guest, record_under_load, replay_under_kicks};
use vmm::boot::cpu_features::ModelName;
use vmm::{outln, stdio};

/// The guest to record.
#[derive(Clone, Copy, ValueEnum)]
enum Guest {
    /// The reference guest, with clients on its network
    Reference,
    /// The hard guest, alone
    Hard,
    /// The hostile guest, alone and on a pair
    Hostile,
}

/// Record and replay under load, repeatedly
#[derive(Parser)]
struct Args {
    /// Number of recordings
    #[arg(long, default_value_t = 10)]
    runs: u64,
    /// Duration of each recording, seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seed of the kicks and the load; the run's number is added to it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Guest to record
    #[arg(long, default_value = "reference")]
    guest: Guest,
    /// CPU model of the VM
    #[arg(long, default_value_t)]
    cpu_model: ModelName,
    /// Additional options of `understudy record`
    #[arg(last = true)]
    record_options: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = ["--cpu-model", args.cpu_model.as_str()];
    let options: Vec<&str> =
        model.into_iter().chain(args.record_options.iter().map(String::as_str)).collect();
    let record = match args.guest {
        Guest::Reference => record_under_load,
        Guest::Hard => record_hard_guest,
        Guest::Hostile => return soak_hostile_guest(&args, folder),
    };
    let mut interrupts = 0;
    for run in 0..args.runs {
        let seed = args.seed + run;
        let log = folder.path().join(format!("soak-{run}.ulog"));
        let recorded = record(&log, args.seconds, seed, &options);
        let outcome =
            recorded.and_then(|recorded| Ok((recorded, replay_under_kicks(&log, seed ^ 0xbeef)?)));
        let wrong = match &outcome {
            Err(error) => Some(error.to_string()),
            Ok(((recorded, _load), (_status, replayed))) => difference(recorded, replayed),
        };
        if let Ok(((_recorded, load), (_status, replayed))) = &outcome {
            outln!("run {run} seed {seed}: {load:?}");
            outln!("  replay {replayed}");
            interrupts += replayed["interrupts"].as_u64().unwrap_or(0);
        }
        if let Some(wrong) = wrong {
            let kept = folder.keep();
            outln!("FAILED run {run}: {wrong}; log kept in {}", kept.display());
            let guest = match args.guest {
                Guest::Reference => "",
                Guest::Hard => " --guest hard",
                Guest::Hostile => unreachable!("it has a soak of its own"),
            };
            outln!(
                "reproduce with: cargo run --release -p tests --bin soak -- --runs 1 --seconds {} --seed {seed}{guest} --cpu-model {}",
                args.seconds,
                args.cpu_model
            );
            return ExitCode::FAILURE;
        }
        let _ = std::fs::remove_file(&log);
    }
    outln!("{} runs, {interrupts} interrupts, divergences 0", args.runs);
    stdio::finish("soak")
}

/// Each run records and replays the hostile guest, and then protects it. A run in which the guest ends itself
/// is repeated with another seed, so that the number of whole runs is the one that was asked for.
fn soak_hostile_guest(args: &Args, folder: tempfile::TempDir) -> ExitCode {
    let seconds = args.seconds as f64;
    let (mut alone, mut pairs) = (Account::default(), Account::default());
    let mut seed = args.seed;
    while alone.stopped.min(pairs.stopped) < args.runs {
        match hostile_run((&mut alone, &mut pairs), folder.path(), seconds, seed) {
            Ok(()) => outln!("seed {seed}: alone {alone:?}; pairs {pairs:?}"),
            Err(error) => {
                let kept = folder.keep();
                outln!("FAILED seed {seed}: {error}; log kept in {}", kept.display());
                outln!(
                    "reproduce with: cargo run --release -p tests --bin soak -- --guest hostile --runs 1 --seconds {} --seed {seed}",
                    args.seconds
                );
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    stdio::finish("soak")
}

fn hostile_run(
    (alone, pairs): (&mut Account, &mut Account),
    folder: &Path,
    seconds: f64,
    seed: u64,
) -> Result<(), testbed::TestbedError> {
    hostile::record_and_replay(alone, folder, seconds, seed)?;
    hostile::protect(pairs, &Rig::patient(), seconds, seed)
}
