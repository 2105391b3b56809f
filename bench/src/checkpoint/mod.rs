//! Measures the checkpoints of a protected VM whose guest computes: their size, their rate and how long
//! the guest is stopped, by the guest's working set, the input deadline and the input rate.
//!
//! Each combination has its own pair, and a seed decides the order, so the two hosts' counters
//! (`understudy status`) cover this combination alone. Checkpoints that complete a sync are left out.
//!
//! `load` makes the guest compute and sends the inputs.

mod load;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::interrupt;
use crate::outcome::{Measurement, Outcome};
use crate::vms::{Pair, Protection, VmOptions};
use load::Burned;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use vmm::outln;

/// Largest working set that the guest supports, KiB.
const KIB_MAX: u64 = 4096;

/// Duration of the warm-up, which is not recorded: first writes to pages, cold caches.
const WARM_UP: Duration = Duration::from_millis(200);

/// Attempts for each combination.
const ATTEMPTS_MAX: u32 = 3;

/// Options of `checkpoint`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Input deadlines (the VM's --deadline-us), microseconds
    #[arg(long, value_delimiter = ',', default_values_t = [500, 1000, 5000],
          value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    deadlines_us: Vec<u64>,
    /// Working sets of the guest, KiB
    #[arg(long, value_delimiter = ',', default_values_t = [0, 64, 256, 1024],
          value_parser = clap::value_parser!(u64).range(0..=KIB_MAX))]
    kib: Vec<u64>,
    /// Inputs per second, in addition to the guest's 100 timer ticks
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1000])]
    inputs: Vec<u32>,
    /// Seconds to measure each combination
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seed of the order of combinations
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A combination and its figures.
struct Subject {
    deadline_us: u64,
    kib: u64,
    inputs: u32,
    /// Attempts that failed.
    failed: u32,
    figures: Value,
}

/// The status of both hosts at one moment.
struct Statuses {
    primary: Map<String, Value>,
    backup: Map<String, Value>,
}

impl Statuses {
    fn ask(pair: &mut Pair) -> Result<Statuses, BenchError> {
        let [primary, backup] = pair.statuses()?;
        Ok(Statuses { primary, backup })
    }

    /// Returns one of the primary's checkpoint counters.
    fn count(&self, name: &str) -> u64 {
        self.primary["checkpoints"][name].as_u64().unwrap_or(0)
    }
}

impl Subject {
    /// Measures the combination. Tries again if the pair lost its protection, which happens when the
    /// machine stalls.
    fn measure(&mut self, seconds: f64) -> Result<(), BenchError> {
        for attempt in 1.. {
            interrupt::check()?;
            match self.run_round(seconds) {
                Err(_) if attempt < ATTEMPTS_MAX => self.failed += 1,
                result => return result,
            }
        }
        unreachable!("the last attempt's result is returned")
    }

    fn run_round(&mut self, seconds: f64) -> Result<(), BenchError> {
        let deadline_us = self.deadline_us.to_string();
        let options = VmOptions::new(&["--deadline-us", &deadline_us]);
        let mut pair = Pair::start(Protection::Sealed, &options)?;
        // The client is not pinned: both cores run a guest that computes.
        let run = |pair: &Pair, time| pair.client(|| load::run(time, self.kib, self.inputs));
        run(&pair, WARM_UP)?;
        let before = Statuses::ask(&mut pair)?;
        let begun = Instant::now();
        let burned = run(&pair, Duration::from_secs_f64(seconds))?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = Statuses::ask(&mut pair)?;
        pair.stop()?;
        self.figures = self.figures(seconds, burned, &before, &after);
        Ok(())
    }

    fn figures(&self, seconds: f64, burned: Burned, before: &Statuses, after: &Statuses) -> Value {
        let added = |name: &str| (after.count(name) - before.count(name)) as f64;
        let (sent, pages, bytes) = (added("sent"), added("pages"), added("bytes"));
        let each = |total: f64| (sent > 0.0).then(|| total / sent);
        json!({
            "deadline_us": self.deadline_us,
            "kib": self.kib,
            "inputs_per_s": self.inputs,
            "failed_attempts": self.failed,
            "seconds": seconds,
            "checkpoints": sent,
            "checkpoints_per_s": sent / seconds,
            "pages_each": {
                "mean": each(pages),
                "p50": after.primary["checkpoints"]["pages_each"]["p50"],
                "p99": after.primary["checkpoints"]["pages_each"]["p99"],
            },
            "bytes_each": each(bytes),
            "mbit_per_s": bytes * 8.0 / 1e6 / seconds,
            "capture": times(&after.primary, "capture"),
            "still": times(&after.primary, "still"),
            "apply": times(&after.backup, "apply"),
            "rounds_per_ms": burned.rounds as f64 / burned.ms.max(1) as f64,
        })
    }
}

/// One histogram of a host's status, converted to nanoseconds.
fn times(status: &Map<String, Value>, name: &str) -> Value {
    let times = &status["checkpoints"][name];
    let ns = |name: &str| times[name].as_f64().map(|us| (us * 1e3).round() as u64);
    json!({
        "count": times["count"],
        "p50_ns": ns("p50_us"),
        "p99_ns": ns("p99_us"),
        "max_ns": ns("max_us"),
    })
}

impl Measurement for Args {
    const NAME: &'static str = "checkpoint";
    const PRINT: fn(&Value) = table;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let mut subjects = Vec::new();
        for &deadline_us in &self.deadlines_us {
            for &kib in &self.kib {
                for &inputs in &self.inputs {
                    let figures = Value::Null;
                    subjects.push(Subject { deadline_us, kib, inputs, failed: 0, figures });
                }
            }
        }
        let rounds = Rounds { count: 1, seed: self.seed };
        rounds
            .run("checkpoints", &mut subjects, |_round, subject| subject.measure(self.seconds))?;
        let points: Vec<Value> = subjects.into_iter().map(|subject| subject.figures).collect();
        outcome.put("points", points);
        Ok(())
    }

    /// Options for `report --quick`: takes less than 20 seconds.
    fn quick() -> Args {
        Args {
            deadlines_us: vec![500, 2000],
            kib: vec![0, 64, 512],
            inputs: vec![1000],
            seconds: 0.7,
            ..Args::full()
        }
    }
}

fn table(figures: &Value) {
    outln!(
        "checkpoints of a guest that computes without an exit; deadline and times in us (p50, p99); pages: mean"
    );
    outln!(
        "{:>8} {:>6} {:>8} | {:>7} {:>6} {:>8} {:>7} | {:>6} {:>7} | {:>6} {:>7} | {:>6} {:>7} | {:>9}",
        "deadline",
        "KiB",
        "inputs/s",
        "ckpt/s",
        "pages",
        "KiB each",
        "Mbit/s",
        "captur",
        "p99",
        "still",
        "p99",
        "apply",
        "p99",
        "rounds/ms"
    );
    for point in figures["points"].as_array().into_iter().flatten() {
        let number =
            |pointer: &str| point.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let us = |pointer: &str| number(pointer) / 1e3;
        outln!(
            "{:>8} {:>6} {:>8} | {:>7.0} {:>6.1} {:>8.1} {:>7.1} | {:>6.0} {:>7.0} | {:>6.0} {:>7.0} | {:>6.0} {:>7.0} | {:>9.0}",
            number("/deadline_us"),
            number("/kib"),
            number("/inputs_per_s"),
            number("/checkpoints_per_s"),
            number("/pages_each/mean"),
            number("/bytes_each") / 1024.0,
            number("/mbit_per_s"),
            us("/capture/p50_ns"),
            us("/capture/p99_ns"),
            us("/still/p50_ns"),
            us("/still/p99_ns"),
            us("/apply/p50_ns"),
            us("/apply/p99_ns"),
            number("/rounds_per_ms"),
        );
    }
}
