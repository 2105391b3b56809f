//! Measures the cost of recording: counter requests per second of a recorded and of an unrecorded VM.
//!
//! Each VM has its own network namespace. One client measures them in interleaved rounds. Both vCPUs
//! are pinned to one core and the client to the other.

use crate::counter_client::{CounterClient, RequestTimes};
use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::outcome::{Measurement, Outcome, number};
use crate::vms::{core_a, core_b, pin, standalone};
use serde_json::{Value, json};
use testbed::{Guest, Standalone};
use vmm::outln;

/// Warm-up requests per round, which are not recorded.
const WARM_UP: u64 = 50;

/// Options of `record-cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds: how many times each VM is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Counter requests per VM, in total
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
}

/// A VM and its measured times.
struct Subject {
    name: &'static str,
    vm: Standalone,
    request_times: RequestTimes,
}

impl Subject {
    fn start(name: &'static str, command: &[&str]) -> Result<Subject, BenchError> {
        let vm = standalone(name, core_b(), &Guest::Reference, command)?;
        Ok(Subject { name, vm, request_times: RequestTimes::new() })
    }

    /// Sends `requests` counter requests back to back.
    fn run_round(&mut self, requests: u64) -> Result<(), BenchError> {
        let request_times = self.vm.namespace.enter(|| {
            pin(core_a())?;
            CounterClient::connect(WARM_UP)?.run(requests, None)
        })?;
        self.request_times.add(&request_times);
        Ok(())
    }
}

fn print(figures: &Value) {
    for name in ["run", "record"] {
        outln!("{name:<7} {}", figures[name]);
    }
    outln!(
        "request rate ratio, recorded / not recorded: {:.3}",
        number(&figures["ratio_record_to_run"])
    );
}

impl Measurement for Args {
    const NAME: &'static str = "record-cost";
    const PRINT: fn(&Value) = print;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::os("making a temporary folder"))?;
        let log = folder.path().join("cost.ulog");
        let log = log.to_str().expect("temporary folders are UTF-8");
        let mut subjects = [
            Subject::start("run", &["run"])?,
            Subject::start("record", &["record", "--log", log])?,
        ];
        let rounds = Rounds { count: self.turns, seed: 1 };
        rounds.run("recorded, not recorded", &mut subjects, |round, subject| {
            subject.run_round(round.share(self.requests))
        })?;
        let [run, record] = subjects.each_ref().map(|subject| subject.request_times.rate());
        for Subject { name, vm, request_times } in subjects {
            vm.stop()?;
            let rate = request_times.rate();
            let latency = outcome.keep(name, request_times.service);
            outcome.put(name, json!({ "requests_per_second": rate, "latency": latency }));
        }
        outcome.put("ratio_record_to_run", record / run);
        Ok(())
    }
}
