//! Measures what protection costs a Linux guest: redis INCR on one connection, protected and
//! unprotected, in interleaved rounds, and the log bytes per request.
//!
//! Every round starts both VMs from the same snapshot.

mod subject;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::outcome::{Measurement, Outcome, number};
use crate::vms::core_a;
use serde_json::{Value, json};
use std::path::PathBuf;
use subject::{Kind, Subject};
use testbed::guest::{self, Guest, GuestDisk};
use vmm::outln;

/// Options of `linux-guest`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Rounds: how many times each VM is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Requests per VM, in total
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Snapshot made by scripts/linux-guest.sh [default: the path that the script writes to]
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Core of the client; the VM or primary runs on core 0, the backup on core 1
    #[arg(long, default_value_t = core_a())]
    client_core: usize,
    /// Seed of the order in which subjects run in each round
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Measurement for Args {
    const NAME: &'static str = "linux-guest";
    const PRINT: fn(&Value) = print;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let snapshot = self.snapshot.clone().or_else(|| guest::default_snapshot(GuestDisk::None));
        let snapshot = snapshot.filter(|path| path.exists()).ok_or_else(|| {
            BenchError::Wrong(
                "there is no snapshot of a Linux guest: create one with scripts/linux-guest.sh"
                    .into(),
            )
        })?;
        let guest = Guest::Linux(snapshot);
        let rounds = Rounds { count: self.rounds, seed: self.seed };
        let mut subjects = Kind::ALL.map(Subject::new);
        rounds.run("linux-guest", &mut subjects, |round, subject| {
            subject.run_round(&guest, self, round)
        })?;

        outcome.put("client_core", self.client_core);
        let [standalone, protected] = Kind::ALL
            .map(|kind| subjects[kind as usize].request_times.service.quantile_ns(0.5) as f64);
        outcome.put("ratio_protected_to_standalone_p50", protected / standalone);
        for Subject { kind, request_times, log } in subjects {
            let count = request_times.service.len();
            let mut figures = json!({
                "count": count,
                "per_second": request_times.rate(),
                "latency": outcome.keep(kind.name(), request_times.service),
            });
            if kind == Kind::Protected {
                let each = |bytes: u64| bytes as f64 / count as f64;
                figures["log"] = json!({
                    "bytes_each": each(log.total()),
                    "bytes_each_by_kind": log.by_kind(each),
                });
            }
            outcome.put(kind.name(), figures);
        }
        Ok(())
    }
}

fn print(figures: &Value) {
    for kind in Kind::ALL {
        let of = &figures[kind.name()];
        let ms = |name: &str| number(&of["latency"][name]) / 1e6;
        let (p50, p99) = (ms("p50_ns"), ms("p99_ns"));
        outln!("{:<11} {} INCR, p50 {p50:.2} ms, p99 {p99:.2} ms", kind.name(), of["count"]);
    }
    let ratio = number(&figures["ratio_protected_to_standalone_p50"]);
    outln!("p50 latency ratio, protected / standalone: {ratio:.3}");
    let log = &figures[Kind::Protected.name()]["log"];
    outln!("log: {:.0} bytes per INCR, by entry kind:", number(&log["bytes_each"]));
    for (kind, bytes) in log["bytes_each_by_kind"].as_object().into_iter().flatten() {
        outln!("  {kind:<12} {:.1}", number(bytes));
    }
}
