//! Measures how long a protected VM's outputs are held until their log is acknowledged, by load. The
//! same rounds measure the bare channel's round trip, to which the hold is compared, a VM whose outputs wait
//! for the acknowledgement of their own log entries (`--output-commit strict`), and an unprotected VM.
//!
//! - `load`: the client's request rates
//! - `subject`: a pair or a standalone VM under all loads, and the stages of its frames
//! - `report`: the table
//!
//! The primary shares the client's core, because the client waits for the primary's answers. The backup
//! has the other core to itself, as one end of the bare channel has.

mod load;
mod report;
mod subject;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::lan::{Lan, Wire};
use crate::log_rtt::RoundTrip;
use crate::outcome::{Measurement, Outcome};
use crate::series::ratio;
use crate::vms::{core_a, core_b};
use load::Load;
use serde_json::{Map, Value, json};
use subject::Subject;
use vmm::telemetry::Stage;

/// Options of `output-hold`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds: how many times each VM and the bare channel are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Requests per VM at 100 per second, at 1000 per second, and back to back
    #[arg(long, default_value_t = 2_000)]
    requests: u64,
    /// Requests per VM at one per second
    #[arg(long, default_value_t = 10)]
    slow_requests: u64,
    /// Round trips of the bare channel
    #[arg(long, default_value_t = 20_000)]
    round_trips: u64,
    /// How long both hosts spin before they block, microseconds; the default is longer than the
    /// interval of 100 requests per second, so that no thread blocks, as in `log-rtt` with policy
    /// `spin`
    #[arg(long, default_value_t = 20_000)]
    spin_us: u64,
    /// Seed of the order of subjects in each round
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A subject of the interleaved rounds.
enum Measured {
    Channel(RoundTrip),
    Vm(Subject),
}

impl Measurement for Args {
    const NAME: &'static str = "output-hold";
    const PRINT: fn(&Value) = report::print;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let rounds = Rounds { count: self.rounds, seed: self.seed };
        // The log link of a pair is a plain veth pair, too.
        let lan = Lan::new(Wire::Direct, [core_a(), core_b()])?;
        let mut all: Vec<Measured> = [
            RoundTrip::back_to_back(true, self.round_trips),
            RoundTrip::back_to_back(false, self.round_trips),
            RoundTrip::paced(true, self.requests),
        ]
        .into_iter()
        .map(Measured::Channel)
        .collect();
        let subjects =
            [Subject::sealed(), Subject::strict(), Subject::insecure(), Subject::standalone()];
        all.extend(subjects.map(Measured::Vm));
        rounds.run("output hold", &mut all, |round, measured| match measured {
            Measured::Channel(channel) => channel.run_round(&lan, round),
            Measured::Vm(subject) => subject.run_round(self, round),
        })?;

        let (mut channels, mut subjects) = (Vec::new(), Vec::new());
        for measured in all {
            match measured {
                Measured::Channel(channel) => channels.push(channel),
                Measured::Vm(subject) => subjects.push(subject),
            }
        }
        let mut bare = Map::new();
        for channel in &channels {
            let name = channel.name();
            let figures = outcome.keep(&name, channel.times.clone());
            bare.insert(name, figures);
        }
        let (base, paced) = (&channels[0].times, &channels[2].times);
        for subject in &mut subjects {
            let mut loads = Map::new();
            for load in Load::ALL {
                let figures = subject.figures(load, &channels, outcome);
                if !figures.is_null() {
                    loads.insert(load.name().into(), figures);
                }
            }
            outcome.put(subject.name, loads);
        }
        // The main figures: sealed, 100 per second, for the VM's outputs as well as for the bare channel's
        // entries.
        let hold = subjects[0].stage(Load::Hundred, Stage::Hold);
        outcome.put("hold_ns", short(hold));
        outcome.put("log_rtt_ns", short(paced));
        outcome.put("ratio_p50", json!(ratio(hold.quantile_ns(0.5), paced.quantile_ns(0.5))));
        let strict = subjects[1].stage(Load::Hundred, Stage::Hold);
        let strict_to_early = ratio(strict.quantile_ns(0.5), hold.quantile_ns(0.5));
        outcome.put("ratio_p50_strict_to_early", json!(strict_to_early));
        // Back-to-back round trips find everything in the caches. A hold, which follows a run of the guest,
        // never does.
        let hot = ratio(hold.quantile_ns(0.5), base.quantile_ns(0.5));
        outcome.put("log_rtt_back_to_back_ns", short(base));
        outcome.put("ratio_p50_back_to_back", json!(hot));
        outcome.put("channel", bare);
        outcome.put("spin_us", self.spin_us);
        Ok(())
    }

    /// Options for `report --quick`: takes half a minute.
    fn quick() -> Args {
        Args { rounds: 2, requests: 500, slow_requests: 2, round_trips: 5_000, ..Args::full() }
    }
}

fn short(series: &crate::series::Series) -> Value {
    json!({
        "p50": series.quantile_ns(0.5),
        "p99": series.quantile_ns(0.99),
        "p999": series.quantile_ns(0.999),
    })
}
