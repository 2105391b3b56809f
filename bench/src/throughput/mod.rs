//! Measures the cost of protection: requests of a protected and of an unprotected VM in interleaved
//! rounds, the CPU time of every process, and the log bytes by kind of entry.
//!
//! - `work`: the client's requests
//! - `subject`: one VM under every kind of work
//! - `cpu`: CPU time of a process
//! - `report`: the table
//!
//! A second standalone VM takes no stage timestamps, to measure the cost of the timestamps.

mod cpu;
mod report;
mod subject;
mod work;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::outcome::{Measurement, Outcome};
use crate::vms::core_a;
use serde_json::{Map, Value, json};
use subject::{Kind, Subject};
use work::Work;

/// Options of `throughput`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Rounds: how many times each VM is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Counter requests per VM on 1 connection, and again on 16 connections
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// MiB that each VM echoes, in total
    #[arg(long, default_value_t = 20)]
    echo_mib: u64,
    /// Core of the client; the VM or primary runs on core 0, the backup on core 1
    #[arg(long, default_value_t = core_a())]
    client_core: usize,
    /// How long VMs and hosts spin before they block, microseconds
    #[arg(long, default_value_t = 50)]
    spin_us: u64,
    /// Seed of the order in which VMs are measured in each round
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Measurement for Args {
    const NAME: &'static str = "throughput";
    const PRINT: fn(&Value) = report::print;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let rounds = Rounds { count: self.rounds, seed: self.seed };
        let mut subjects: Vec<Subject> = Kind::ALL.into_iter().map(Subject::new).collect();
        rounds.run("throughput", &mut subjects, |round, subject| subject.run_round(self, round))?;

        outcome.put("client_core", self.client_core);
        outcome.put("spin_us", self.spin_us);
        let mut by_work: Map<String, Value> = Map::new();
        for work in Work::ALL {
            let rate = |kind: Kind| subjects[kind as usize].rate(work);
            let ratio = |a: Kind, b: Kind| (rate(b) > 0.0).then(|| rate(a) / rate(b));
            by_work.insert(
                work.name().into(),
                json!({
                    "ratio_protected_to_standalone": ratio(Kind::Protected, Kind::Standalone),
                    "ratio_measured_to_not_measured": ratio(Kind::Standalone, Kind::NoStages),
                }),
            );
        }
        for subject in &subjects {
            for work in Work::ALL {
                let figures = subject.figures(work, outcome);
                by_work[work.name()][subject.kind.name()] = figures;
            }
        }
        let protected = |work: Work| by_work[work.name()]["ratio_protected_to_standalone"].clone();
        let ratios =
            json!({ "1": protected(Work::CounterOne), "16": protected(Work::CounterMany) });
        outcome.put("ratio_protected_to_standalone", ratios);
        outcome.put("work", by_work);
        Ok(())
    }

    /// Options for `report --quick`: takes a quarter of a minute.
    fn quick() -> Args {
        Args { rounds: 3, requests: 6_000, echo_mib: 6, ..Args::full() }
    }
}
