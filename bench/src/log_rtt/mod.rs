//! Compares the logging channel with plain sockets, in interleaved rounds on one LAN: round trips, bulk
//! transfers, log entries during a bulk transfer, and the cost of sealing.
//!
//! - `variant`: the compared transports, implemented in `channel`, `bare_port` and `socket`
//! - `policy`: the wait policies of all variants
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
use crate::outcome::{Measurement, Outcome};
use crate::seal_cost;
use crate::vms::{core_a, core_b};
use clap::ValueEnum;
use logchan::limits::PAGE_BYTES;
use policy::Policy;
use serde_json::{Value, json};
use variant::Variant;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Round trips of 64 bytes
    RoundTrips,
    /// Bulk throughput in one direction
    Bulk,
    /// Acknowledgement latency of log entries during a bulk transfer
    UnderBulk,
    /// Time to seal and to open a frame
    Sealing,
}

/// Options of `log-rtt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Parts to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::value_variants().to_vec())]
    parts: Vec<Part>,
    /// Variants whose round trips are measured
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Variant::value_variants().to_vec())]
    variants: Vec<Variant>,
    /// Wait policies of both sides
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Policy::USUAL.to_vec())]
    policies: Vec<Policy>,
    /// Round trips per variant and policy, back to back
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// Round trips per variant of policies with one request every 10 ms
    #[arg(long, default_value_t = 2_000)]
    idle_requests: u64,
    /// Warm-up round trips per round, which are not recorded
    #[arg(long, default_value_t = round_trips::WARM_UP)]
    warm_up: u64,
    /// MiB that each bulk variant transfers
    #[arg(long, default_value_t = 512)]
    bulk_mib: u64,
    /// Log entries on the idle link and again during a bulk transfer, 1000 per second
    #[arg(long, default_value_t = 5_000)]
    entries: u64,
    /// Rounds that all of this is divided into
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connect the hosts by a plain veth pair instead of a bridge
    #[arg(long)]
    direct: bool,
    /// Limit each host's sending rate, in tc(8) syntax, for example 1gbit
    #[arg(long)]
    rate: Option<String>,
    /// Core of the side that sends requests
    #[arg(long, default_value_t = core_a())]
    client_core: usize,
    /// Core of the side that answers
    #[arg(long, default_value_t = core_b())]
    server_core: usize,
    /// Seed of the order of variants in each round
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Measurement for Args {
    const NAME: &'static str = "log-rtt";
    const PRINT: fn(&Value) = report::print;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        outcome.put("wire", if self.direct { "veth" } else { "bridge" });
        outcome.put("rate", json!(self.rate));
        outcome.put("cores", json!([self.client_core, self.server_core]));
        outcome.put("rounds", self.rounds);
        outcome.put("seed", self.seed);
        let wire = if self.direct { Wire::Direct } else { Wire::Bridge };
        let lan = Lan::new(wire, [self.client_core, self.server_core])?;
        if let Some(rate) = &self.rate {
            lan.shape(rate)?;
        }
        for part in &self.parts {
            measure_part(*part, self, &lan, outcome)?;
        }
        Ok(())
    }

    /// Options for `report --quick`: takes half a minute.
    fn quick() -> Args {
        Args {
            requests: 10_000,
            idle_requests: 200,
            bulk_mib: 128,
            entries: 1_000,
            rounds: 5,
            ..Args::full()
        }
    }
}

/// Measures one part and adds its figures to `outcome`.
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
                subject.run_round(lan, round)
            })?;
            outcome.put("round_trips", round_trips::json(&subjects));
            round_trips::keep(outcome, subjects);
        }
        Part::Bulk => {
            let pages = (args.bulk_mib << 20) / PAGE_BYTES as u64;
            let mut subjects = bulk::subjects();
            rounds.run("bulk", &mut subjects, |round, subject| {
                subject.run_round(lan, round, pages)
            })?;
            outcome.put("bulk", bulk::json(&subjects));
        }
        Part::UnderBulk => {
            let mut subjects = under_bulk::subjects();
            rounds.run("entries during bulk", &mut subjects, |round, subject| {
                subject.run_round(lan, round, args.entries)
            })?;
            outcome.put("under_bulk", under_bulk::json(&subjects));
            under_bulk::keep(outcome, subjects);
        }
        Part::Sealing => outcome.put("sealing", seal_cost::measure()),
    }
    Ok(())
}
