//! Round trips of the logging channel and of what else there is, in turns on one LAN.
//!
//! - `variant`: what is compared; `channel` and `socket` are how
//! - `policy`: how all of them wait
//! - `round_trips`: the measurement

mod channel;
mod policy;
mod raw;
mod report;
mod round_trips;
mod socket;
mod variant;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::lan::{Lan, Wire};
use crate::machine;
use policy::Policy;
use serde_json::json;
use std::path::PathBuf;
use variant::Variant;

/// Options of `log-rtt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_delimiter = ',', default_values = ["channel", "channel-insecure", "udp", "tcp", "af_packet"])]
    variants: Vec<Variant>,
    /// How both sides wait
    #[arg(long, value_delimiter = ',', default_values = ["block", "spin", "idle", "idle-block"])]
    policies: Vec<Policy>,
    /// Round trips of each variant and policy, one after the other
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// Round trips where there is one every 10 ms
    #[arg(long, default_value_t = 2_000)]
    idle_requests: u64,
    /// Turns that these are divided into
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Round trips at the beginning of each turn that are not counted
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// A plain veth pair instead of a bridge between two
    #[arg(long)]
    direct: bool,
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
    let machine = machine::describe();
    let wire = if args.direct { Wire::Direct } else { Wire::Bridge };
    let lan = Lan::new(wire, [args.client_core, args.server_core])?;
    let rounds = Rounds { count: args.rounds, seed: args.seed };

    let mut subjects = round_trips::subjects(args);
    rounds
        .run("round trips", &mut subjects, |round, subject| subject.turn(&lan, &rounds, round))?;
    if let Some(folder) = &args.out {
        report::save(folder, &subjects)?;
    }
    if args.json {
        let round_trips = report::round_trips(&subjects);
        println!(
            "{}",
            json!({
                "benchmark": "log-rtt",
                "machine": machine,
                "wire": if args.direct { "veth" } else { "bridge" },
                "cores": [args.client_core, args.server_core],
                "rounds": args.rounds,
                "seed": args.seed,
                "round_trips": round_trips,
            })
        );
    } else {
        report::print(&subjects);
    }
    Ok(())
}
