//! The logging channel and what else there is, in turns on one LAN: round trips, bulk, log entries
//! beside bulk, and what sealing is of it.
//!
//! - `variant`: what makes round trips; `channel` and `socket` are how
//! - `policy`: how all of them wait
//! - `round_trips`, `bulk`, `under_bulk`: the measurements
//! - `report`: the tables

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
use crate::{machine, seal_cost};
use clap::ValueEnum;
use logchan::limits::PAGE_BYTES;
use policy::Policy;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
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
    #[arg(long, default_value_t = 0)]
    client_core: usize,
    /// Core of the side that answers
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// What the orders of turns are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// Save every series to this folder, as .hgrm and .hlog
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    let mut result = json!({
        "benchmark": "log-rtt",
        "machine": machine::describe(),
        "wire": if args.direct { "veth" } else { "bridge" },
        "rate": args.rate,
        "cores": [args.client_core, args.server_core],
        "rounds": args.rounds,
        "seed": args.seed,
    });
    if let Some(folder) = &args.out {
        let doing = format!("making the folder {}", folder.display());
        fs::create_dir_all(folder).map_err(BenchError::os(doing))?;
    }
    let wire = if args.direct { Wire::Direct } else { Wire::Bridge };
    let lan = Lan::new(wire, [args.client_core, args.server_core])?;
    if let Some(rate) = &args.rate {
        lan.shape(rate)?;
    }
    for part in &args.parts {
        let (name, part) = measure(*part, args, &lan)?;
        result[name] = part;
    }
    if args.json {
        println!("{result}");
    } else {
        report::print(&result);
    }
    Ok(())
}

/// The name of a part in the report, and its figures.
fn measure(part: Part, args: &Args, lan: &Lan) -> Result<(&'static str, Value), BenchError> {
    let rounds = Rounds { count: args.rounds, seed: args.seed };
    Ok(match part {
        Part::RoundTrips => {
            let mut subjects = round_trips::subjects(args);
            rounds.run("round trips", &mut subjects, |round, subject| {
                subject.turn(lan, &rounds, round)
            })?;
            if let Some(folder) = &args.out {
                round_trips::save(folder, &subjects)?;
            }
            ("round_trips", round_trips::json(&subjects))
        }
        Part::Bulk => {
            let pages = (args.bulk_mib << 20) / PAGE_BYTES as u64;
            let mut subjects = bulk::subjects();
            rounds.run("bulk", &mut subjects, |round, subject| {
                subject.turn(lan, &rounds, round, pages)
            })?;
            ("bulk", bulk::json(&subjects))
        }
        Part::UnderBulk => {
            let mut subjects = under_bulk::subjects();
            rounds.run("entries beside bulk", &mut subjects, |round, subject| {
                subject.turn(lan, &rounds, round, args.entries)
            })?;
            if let Some(folder) = &args.out {
                under_bulk::save(folder, &subjects)?;
            }
            ("under_bulk", under_bulk::json(&subjects))
        }
        Part::Sealing => ("sealing", seal_cost::measure()),
    })
}
