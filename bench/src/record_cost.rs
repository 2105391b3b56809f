//! Two VMs, one recorded and one not, each in a namespace of its own; the same client asks them in
//! turns. Both vCPUs are pinned to one core and the client to the other.

use crate::asking::{Asked, Asker};
use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::outcome::{self, Outcome, OutputArgs};
use crate::vms::{Standalone, core_a, core_b, pin};
use serde_json::{Value, json};
use vmm::outln;

/// Requests at the beginning of each turn that are not counted.
const WARM_UP: u64 = 50;

/// Options of `record-cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Turns for each VM
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Counter requests of each VM
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// One VM and what was measured on it.
struct Subject {
    name: &'static str,
    vm: Standalone,
    asked: Asked,
}

impl Subject {
    fn start(name: &'static str, command: &[&str]) -> Result<Subject, BenchError> {
        let vm = Standalone::start(name, core_b(), command)?;
        Ok(Subject { name, vm, asked: Asked::new() })
    }

    /// `requests` counter requests, one after the other.
    fn turn(&mut self, requests: u64) -> Result<(), BenchError> {
        let asked = self.vm.client(|| {
            pin(core_a())?;
            Asker::connect(WARM_UP)?.run(requests, None)
        })?;
        self.asked.add(&asked);
        Ok(())
    }
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    outcome::run(&args.output, || measure(args), print)
}

fn print(figures: &Value) {
    for name in ["run", "record"] {
        outln!("{name:<7} {}", figures[name]);
    }
    outln!(
        "ratio record to run, requests per second: {:.3}",
        figures["ratio_record_to_run"].as_f64().unwrap_or(f64::NAN)
    );
}

fn measure(args: &Args) -> Result<Outcome, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::os("making a temporary folder"))?;
    let log = folder.path().join("cost.ulog");
    let log = log.to_str().expect("temporary folders are UTF-8");
    let mut subjects =
        [Subject::start("run", &["run"])?, Subject::start("record", &["record", "--log", log])?];
    let rounds = Rounds { count: args.turns, seed: 1 };
    rounds.run("recorded and not", &mut subjects, |round, subject| {
        subject.turn(share(args.requests, args.turns, round))
    })?;
    let mut outcome = Outcome::new("record-cost");
    let [run, record] = subjects.each_ref().map(|subject| subject.asked.rate());
    for Subject { name, vm, asked } in subjects {
        vm.stop()?;
        let rate = asked.rate();
        let latency = outcome.keep(name, asked.service);
        outcome.put(name, json!({ "requests_per_second": rate, "latency": latency }));
    }
    outcome.put("ratio_record_to_run", record / run);
    Ok(outcome)
}
