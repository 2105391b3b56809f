//! The logging channel and what else there is, in turns on one LAN: round trips, bulk, log entries
//! beside bulk, and what sealing is of it.
//!
//! - `variant`: what makes round trips; `channel`, `bare_port` and `socket` are how
//! - `policy`: how all of them wait
//! - `round_trips`, `bulk`, `under_bulk`: the measurements
//! - `report`: the tables

mod bare_port;
mod bulk;
mod channel;
mod policy;
mod report;
mod round_trips;
mod socket;
mod under_bulk;
mod variant;

pub(crate) use round_trips::RoundTrip;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::lan::{Lan, Wire};
use crate::outcome::{self, Outcome, OutputArgs};
use crate::seal_cost;
use crate::vms::{core_a, core_b};
use clap::ValueEnum;
use logchan::limits::PAGE_BYTES;
use policy::Policy;
use serde_json::json;
use variant::Variant;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Round trips of 64 bytes
    RoundTrips,
    /// Bytes per second in one direction
    Bulk,
    /// Acknowledgements of log entries while bulk flows
    UnderBulk,
    /// Nanoseconds for each frame
    Sealing,
}

/// Options of `log-rtt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::value_variants().to_vec())]
    parts: Vec<Part>,
    /// What makes round trips
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Variant::value_variants().to_vec())]
    variants: Vec<Variant>,
    /// How both sides wait
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Policy::USUAL.to_vec())]
    policies: Vec<Policy>,
    /// Round trips of each variant and policy, one after the other
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// Round trips where there is one every 10 ms
    #[arg(long, default_value_t = 2_000)]
    idle_requests: u64,
    /// Round trips at the beginning of each turn that are not counted
    #[arg(long, default_value_t = round_trips::WARM_UP)]
    warm_up: u64,
    /// MiB that each way of bulk carries
    #[arg(long, default_value_t = 512)]
    bulk_mib: u64,
    /// Log entries with and without bulk, 1000 per second
    #[arg(long, default_value_t = 5_000)]
    entries: u64,
    /// Turns that all of this is divided into
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A plain veth pair instead of a bridge between two
    #[arg(long)]
    direct: bool,
    /// Let no host send faster than this, as tc(8) writes it: 1gbit
    #[arg(long)]
    rate: Option<String>,
    /// Core of the side that asks
    #[arg(long, default_value_t = core_a())]
    client_core: usize,
    /// Core of the side that answers
    #[arg(long, default_value_t = core_b())]
    server_core: usize,
    /// What the orders of turns are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    /// For a report in minutes: half a minute.
    pub(crate) fn quick() -> Args {
        Args {
            requests: 10_000,
            idle_requests: 200,
            bulk_mib: 128,
            entries: 1_000,
            rounds: 5,
            ..Args::full()
        }
    }

    /// For figures that are kept.
    pub(crate) fn full() -> Args {
        outcome::defaults()
    }
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    outcome::run(&args.output, || measure(args), report::print)
}

/// Measures.
pub(crate) fn measure(args: &Args) -> Result<Outcome, BenchError> {
    let mut outcome = Outcome::new("log-rtt");
    outcome.put("wire", if args.direct { "veth" } else { "bridge" });
    outcome.put("rate", json!(args.rate));
    outcome.put("cores", json!([args.client_core, args.server_core]));
    outcome.put("rounds", args.rounds);
    outcome.put("seed", args.seed);
    let wire = if args.direct { Wire::Direct } else { Wire::Bridge };
    let lan = Lan::new(wire, [args.client_core, args.server_core])?;
    if let Some(rate) = &args.rate {
        lan.shape(rate)?;
    }
    for part in &args.parts {
        measure_part(*part, args, &lan, &mut outcome)?;
    }
    Ok(outcome)
}

/// Adds what one part gives.
fn measure_part(
    part: Part,
    args: &Args,
    lan: &Lan,
    outcome: &mut Outcome,
) -> Result<(), BenchError> {
    let rounds = Rounds { count: args.rounds, seed: args.seed };
    match part {
        Part::RoundTrips => {
            let mut subjects = round_trips::subjects(args);
            rounds.run("round trips", &mut subjects, |round, subject| {
                subject.run_round(lan, &rounds, round)
            })?;
            outcome.put("round_trips", round_trips::json(&subjects));
            round_trips::keep(outcome, subjects);
        }
        Part::Bulk => {
            let pages = (args.bulk_mib << 20) / PAGE_BYTES as u64;
            let mut subjects = bulk::subjects();
            rounds.run("bulk", &mut subjects, |round, subject| {
                subject.run_round(lan, &rounds, round, pages)
            })?;
            outcome.put("bulk", bulk::json(&subjects));
        }
        Part::UnderBulk => {
            let mut subjects = under_bulk::subjects();
            rounds.run("entries beside bulk", &mut subjects, |round, subject| {
                subject.run_round(lan, &rounds, round, args.entries)
            })?;
            outcome.put("under_bulk", under_bulk::json(&subjects));
            under_bulk::keep(outcome, subjects);
        }
        Part::Sealing => outcome.put("sealing", seal_cost::measure()),
    }
    Ok(())
}
