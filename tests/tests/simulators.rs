//! Runs the simulators: clean runs with some seeds, the seeds that once failed, the planted bugs, and
//! one seed twice.

#![expect(clippy::print_stdout, reason = "the test harness takes it")]

use logchan::channel::Mutant;
use replication::DriverMutant;
use tests::sim::channel::{ChannelScenario, Count as ChannelCount, mutants as channel_mutants};
use tests::sim::counts::{Counter, Counts};
use tests::sim::driver::{Count as DriverCount, DriverScenario, mutants as driver_mutants};
use tests::sim::runner::{self, Scenario, Stop};
use tests::sim::system::{Count, System, mutants as system_mutants, mutants::Planted};
use tests::sim::trace::Trace;

fn clean<S: Scenario>(scenario: &S, first: u64, seeds: u64) -> Counts<S::Counter> {
    let report = runner::run(scenario, first, seeds, Stop::After(1));
    if let Some(failure) = report.failures.first() {
        panic!("{failure}\n  commit {}", runner::commit());
    }
    println!("{}{} seeds in {:.1} s", report.counts, report.seeds, report.took.as_secs_f64());
    report.counts
}

/// Parses a file of seeds, one number per line. Text after a number says what the seed found.
fn regressions(text: &str) -> impl Iterator<Item = u64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let number = line.split_whitespace().next().unwrap_or_default();
        number.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"))
    })
}

fn text_of<S: Scenario>(scenario: &S, seed: u64) -> String {
    let mut trace = Trace::Keep(String::new());
    let result = runner::run_one(scenario, seed, &mut Counts::default(), &mut trace);
    assert!(result.is_ok(), "{result:?}");
    match trace {
        Trace::Keep(text) => text,
        Trace::Off | Trace::Print => unreachable!("the trace was created to keep its text"),
    }
}

#[test]
fn channel_1500_seeds_pass_and_every_event_occurs() {
    const SEEDS: u64 = 1500;
    let counts = clean(&ChannelScenario { mutant: None }, 1_000_000, SEEDS);
    for (label, number) in ChannelCount::LABELS.iter().zip(counts.numbers()) {
        assert!(*number > 0, "{label} never occurred: events that do not occur test nothing");
    }
}

#[test]
fn system_600_seeds_pass_and_every_fault_occurs() {
    const SEEDS: u64 = 600;
    let counts = clean(&System { planted: None }, 1_000_000, SEEDS);
    // Faults that do not occur test nothing.
    let often = [
        (Count::Takeovers, SEEDS / 2),
        (Count::Syncs, SEEDS),
        (Count::SyncsBroken, SEEDS / 60),
        (Count::Freezes, SEEDS / 2),
        (Count::FreezesBeyondSilence, SEEDS / 8),
        (Count::CrashesOfPrimary, SEEDS / 4),
        (Count::NoticesSent, SEEDS / 2),
        (Count::NoticesTaken, SEEDS / 8),
        (Count::NoticesReplayed, SEEDS / 8),
        (Count::Partitions, SEEDS / 4),
        (Count::BackupsLost, SEEDS / 4),
        (Count::Outages, SEEDS / 4),
        (Count::OtherWitnesses, SEEDS / 8),
        (Count::ClaimsRemoved, SEEDS / 60),
        (Count::Handovers, SEEDS / 4),
        (Count::PassedFramesTaken, SEEDS),
        (Count::ClaimsLost, SEEDS / 8),
        (Count::Divergences, SEEDS / 20),
        (Count::BackupsStopped, SEEDS / 20),
        (Count::CopiesRepeated, SEEDS),
        (Count::GuestsSlowed, SEEDS / 4),
        (Count::WokenForSync, SEEDS / 4),
        (Count::SentAgain, SEEDS / 4),
        (Count::OutputsDropped, SEEDS / 60),
        // A few runs have most of them: 231 to 2,698 in each of six sets of 600 seeds.
        (Count::LagWaits, SEEDS / 4),
        (Count::HoldWaits, SEEDS),
        (Count::CheckpointsApplied, SEEDS),
        (Count::Windows, SEEDS),
        (Count::Recovered, SEEDS * 3 / 4),
    ];
    for (count, least) in often {
        let number = counts.of(count);
        assert!(number >= least, "{count:?}: {number} in {SEEDS} seeds, not {least}");
    }
    // The VM may be lost if both copies are lost, but runs like that test little.
    let lost = counts.of(Count::LostVms);
    assert!(lost <= SEEDS / 10, "{lost} of {SEEDS} VMs were lost");
}

#[test]
fn driver_500_seeds_pass_and_every_fault_occurs() {
    const SEEDS: u64 = 500;
    let counts = clean(&DriverScenario { planted: None }, 1_000_000, SEEDS);
    // Faults that do not occur test nothing.
    let often = [
        (DriverCount::Takeovers, SEEDS / 2),
        (DriverCount::Syncs, SEEDS),
        (DriverCount::OutputsChecked, 100 * SEEDS),
        (DriverCount::LogBehindBulk, 10 * SEEDS),
        (DriverCount::NoticesSent, SEEDS / 2),
        (DriverCount::NoticesTaken, SEEDS / 8),
        (DriverCount::Crashes, SEEDS / 2),
        (DriverCount::CrashesAtPoints, SEEDS / 4),
        (DriverCount::FreezesBeyondSilence, SEEDS / 8),
        (DriverCount::FreezesInFlush, SEEDS / 8),
        (DriverCount::Cuts, SEEDS / 4),
        (DriverCount::OneWay, SEEDS / 8),
        (DriverCount::TapFaults, SEEDS / 8),
        (DriverCount::GaveUp, SEEDS / 10),
        (DriverCount::TerminalsBlocked, SEEDS / 4),
        (DriverCount::TerminalDrops, SEEDS),
        (DriverCount::Outages, SEEDS / 8),
        (DriverCount::ClaimsHung, SEEDS / 10),
        (DriverCount::WitnessUnreachable, SEEDS / 10),
        (DriverCount::Stops, SEEDS / 50),
        (DriverCount::StoppedVms, SEEDS / 8),
        (DriverCount::BackupsSilent, SEEDS / 8),
        (DriverCount::LongApplies, SEEDS / 4),
        (DriverCount::ApplyFailures, SEEDS / 50),
        (DriverCount::Rebuilt, SEEDS / 8),
        (DriverCount::GuestsSlowed, SEEDS / 8),
        (DriverCount::Recovered, SEEDS * 3 / 4),
    ];
    for (count, least) in often {
        let number = counts.of(count);
        assert!(number >= least, "{count:?}: {number} in {SEEDS} seeds, not {least}");
    }
    let lost = counts.of(DriverCount::LostVms);
    assert!(lost <= SEEDS / 8, "{lost} of {SEEDS} VMs were lost");
}

#[test]
fn regression_seeds_pass() {
    for seed in regressions(include_str!("../seeds/channel.txt")) {
        clean(&ChannelScenario { mutant: None }, seed, 1);
    }
    for seed in regressions(include_str!("../seeds/system.txt")) {
        clean(&System { planted: None }, seed, 1);
    }
    for seed in regressions(include_str!("../seeds/driver.txt")) {
        clean(&DriverScenario { planted: None }, seed, 1);
    }
}

#[test]
fn channel_planted_bugs_are_all_found() {
    let hunts: Vec<_> =
        Mutant::ALL.into_iter().map(|mutant| channel_mutants::hunt(mutant, 1, 1000)).collect();
    for hunt in &hunts {
        println!("{hunt}");
    }
    assert!(hunts.iter().all(|hunt| hunt.failure.is_some()), "see above for what is not found");
}

#[test]
fn system_planted_bugs_are_all_found() {
    let hunts: Vec<_> =
        Planted::all().into_iter().map(|planted| system_mutants::hunt(planted, 1, 2000)).collect();
    for hunt in &hunts {
        println!("{hunt}");
    }
    assert!(hunts.iter().all(|hunt| hunt.failure.is_some()), "see above for what is not found");
}

#[test]
fn driver_planted_bugs_are_all_found() {
    let mutants = DriverMutant::ALL.iter();
    let hunts: Vec<_> = mutants.map(|&mutant| driver_mutants::hunt(mutant, 1, 500)).collect();
    for hunt in &hunts {
        println!("{hunt}");
    }
    assert!(hunts.iter().all(|hunt| hunt.failure.is_some()), "see above for what is not found");
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in 1..4 {
        let channel = ChannelScenario { mutant: None };
        assert!(text_of(&channel, seed) == text_of(&channel, seed), "channel, seed {seed}");
        let system = System { planted: None };
        assert!(text_of(&system, seed) == text_of(&system, seed), "system, seed {seed}");
        let driver = DriverScenario { planted: None };
        assert!(text_of(&driver, seed) == text_of(&driver, seed), "driver, seed {seed}");
    }
}
