//! The simulators: production code in a simulated environment that one seed determines.
//!
//! `cargo run --release -p tests --bin sim -- channel|system|driver --seeds 20000 [--seed S] [--trace] [--mutant NAME]`

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use logchan::channel::Mutant;
use replication::DriverMutant;
use tests::sim::channel::{self, ChannelScenario};
use tests::sim::counts::Counts;
use tests::sim::driver::{DriverScenario, mutants as driver_mutants};
use tests::sim::runner::{self, Scenario, Stop};
use tests::sim::system::{System, mutants::Planted};
use tests::sim::trace::Trace;
use tests::sim::{channel::mutants as channel_mutants, system::mutants as system_mutants};
use vmm::{outln, stdio};

/// Largest number of failures to print.
const FAILURES_MAX: usize = 10;

/// Run a simulator with consecutive seeds; a failure can be reproduced by its seed
#[derive(Parser)]
#[command(name = "sim")]
struct Cli {
    #[command(subcommand)]
    scenario: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The logging channel: two endpoints on a faulty link
    Channel(Args),
    /// The pair: two engines with their VM, a LAN with clients, a witness
    System(Args),
    /// The driver: two hosts whose processes run the driver that ships, and block in it
    Driver(Args),
}

#[derive(clap::Args)]
struct Args {
    /// Number of seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print a line for each event
    #[arg(long)]
    trace: bool,
    /// Enable this planted bug, which must be found; `all` tries each one
    #[arg(long)]
    mutant: Option<String>,
}

fn main() -> ExitCode {
    match Cli::parse().scenario {
        Command::Channel(args) => channel(&args),
        Command::System(args) => system(&args),
        Command::Driver(args) => driver(&args),
    }
}

fn channel(args: &Args) -> ExitCode {
    let hunts = Mutant::ALL.into_iter().map(|mutant| {
        let hunt = channel_mutants::hunt(mutant, args.seed, args.seeds);
        (hunt.failure.is_some(), hunt)
    });
    match args.mutant.as_deref() {
        None => run(&ChannelScenario { mutant: None }, args),
        Some("all") => all_mutants(hunts),
        Some(name) => match channel::mutants::by_name(name) {
            Some(mutant) => run(&ChannelScenario { mutant: Some(mutant) }, args),
            None => unknown(name, &format!("{:?}", Mutant::ALL)),
        },
    }
}

fn system(args: &Args) -> ExitCode {
    let hunts = Planted::all().into_iter().map(|planted| {
        let hunt = system_mutants::hunt(planted, args.seed, args.seeds);
        (hunt.failure.is_some(), hunt)
    });
    match args.mutant.as_deref() {
        None => run(&System { planted: None }, args),
        Some("all") => all_mutants(hunts),
        Some(name) => match Planted::by_name(name) {
            Some(planted) => run(&System { planted: Some(planted) }, args),
            None => unknown(name, &format!("{:?}", Planted::all())),
        },
    }
}

fn driver(args: &Args) -> ExitCode {
    let hunts = DriverMutant::ALL.iter().map(|&mutant| {
        let hunt = driver_mutants::hunt(mutant, args.seed, args.seeds);
        (hunt.failure.is_some(), hunt)
    });
    match args.mutant.as_deref() {
        None => run(&DriverScenario { planted: None }, args),
        Some("all") => all_mutants(hunts),
        Some(name) => match driver_mutants::by_name(name) {
            Some(mutant) => run(&DriverScenario { planted: Some(mutant) }, args),
            None => unknown(name, &format!("{:?}", DriverMutant::ALL)),
        },
    }
}

fn unknown(name: &str, known: &str) -> ExitCode {
    stdio::message(format_args!("sim: no planted bug is named {name}: give one of {known}"));
    ExitCode::from(2)
}

/// Prints the result for each planted bug. Fails if one is not found.
fn all_mutants(hunts: impl ExactSizeIterator<Item = (bool, impl Display)>) -> ExitCode {
    let (planted, mut missed) = (hunts.len(), 0);
    for (found, hunt) in hunts {
        missed += usize::from(!found);
        outln!("{hunt}");
    }
    outln!("{planted} bugs planted, {missed} not found");
    if missed == 0 { stdio::finish("sim") } else { ExitCode::FAILURE }
}

fn run<S: Scenario>(scenario: &S, args: &Args) -> ExitCode {
    if args.trace { traced(scenario, args) } else { counted(scenario, args) }
}

/// Runs the seeds in order on one core and prints a line for each event.
fn traced<S: Scenario>(scenario: &S, args: &Args) -> ExitCode {
    let mut counts = Counts::default();
    for index in 0..args.seeds {
        let seed = args.seed.wrapping_add(index);
        if let Err(violation) = runner::run_one(scenario, seed, &mut counts, &mut Trace::Print) {
            outln!("{counts}FAILED seed {seed}: {}", violation.0);
            outln!("  commit {}", runner::commit());
            return ExitCode::FAILURE;
        }
    }
    outln!("{counts}");
    stdio::finish("sim")
}

fn counted<S: Scenario>(scenario: &S, args: &Args) -> ExitCode {
    let report = runner::run(scenario, args.seed, args.seeds, Stop::After(FAILURES_MAX));
    outln!("{}", report.counts.to_string().trim_end());
    for failure in report.failures.iter().take(FAILURES_MAX) {
        outln!("{failure}\n  commit {}", runner::commit());
    }
    let seconds = report.took.as_secs_f64();
    outln!(
        "{} seeds from {} in {seconds:.1} s ({:.0} per second), {} failed",
        report.seeds,
        args.seed,
        report.seeds as f64 / seconds,
        report.failures.len()
    );
    if report.failures.is_empty() { stdio::finish("sim") } else { ExitCode::FAILURE }
}
