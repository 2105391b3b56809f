//! Measures the stages of failovers by killing the primary.

use crate::error::BenchError;
use crate::interrupt;
use crate::outcome::Outcome;
use crate::series::Series;
use serde_json::{Map, Value, json};
use testbed::pair::Death;
use testbed::vm_process::understudy;
use testbed::{Guest, TestbedError};
use vmm::demo::pair::{self, Failover, Plan, Progress, VmPlan};

/// A stage of a failover: its name and its value in nanoseconds.
type Stage = (&'static str, fn(&Failover) -> u64);
const STAGES: [Stage; 4] = [
    ("detect", |failover| failover.detect_ns),
    ("golive", |failover| failover.golive_ns),
    ("outage", |failover| failover.outage_ns),
    ("tcp_gap", |failover| failover.tcp_gap_ns),
];

/// Results of the kills with one silence timeout.
pub(super) struct Kills {
    series: [Series; STAGES.len()],
    completed: u64,
    unplanned: u64,
    backups_lost: u64,
    /// Longest scheduling delay around a failover of a client that wakes up every millisecond,
    /// nanoseconds.
    late_ns: u64,
    /// Why a demonstration failed.
    failure: Option<String>,
}

/// Quiet.
struct Quiet;

impl Progress for Quiet {
    fn message(&mut self, _line: &str) {}
    fn steps_done(&mut self, _done: u32) {}
}

impl Kills {
    pub(super) fn new() -> Kills {
        Kills {
            series: std::array::from_fn(|_| Series::new()),
            completed: 0,
            unplanned: 0,
            backups_lost: 0,
            late_ns: 0,
            failure: None,
        }
    }

    /// Runs `understudy demo` with `kills` kills, on its own LAN with all its clients.
    pub(super) fn run_round(
        &mut self,
        kills: u32,
        silence_ms: u64,
        seed: u64,
    ) -> Result<(), BenchError> {
        if kills == 0 || self.failure.is_some() {
            return Ok(());
        }
        let silence = Some(silence_ms);
        // The death of a process alone is noticed without the silence timeout.
        let (guest, death) = (Guest::Reference, Death::OfHost);
        let vm = VmPlan { guest, silence_ms: silence, ..VmPlan::default() };
        let plan = Plan { vm, kills, seed, death, ..Plan::default() };
        let summary = match pair::run(&understudy()?, &plan, &interrupt::flag()?, &mut Quiet) {
            Ok(summary) => summary,
            // With too short a timeout, false alarms can prevent the demonstration from completing.
            // That is a result.
            Err(TestbedError::Wrong(why)) => {
                self.failure = Some(why);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(fault) = summary.fault() {
            return Err(BenchError::Wrong(format!(
                "silence {silence_ms} ms, seed {seed}: {fault}"
            )));
        }
        for failover in &summary.failovers {
            for (series, (_, value_ns)) in self.series.iter_mut().zip(STAGES) {
                series.record(value_ns(failover));
            }
            self.late_ns = self.late_ns.max(failover.late_ns);
        }
        self.completed += summary.failovers.len() as u64;
        self.unplanned += summary.totals.unplanned;
        self.backups_lost += summary.totals.backups_lost;
        Ok(())
    }

    /// Returns the figures and adds the series to `outcome`, with `name` as a prefix.
    pub(super) fn figures(self, outcome: &mut Outcome, name: &str) -> Map<String, Value> {
        let mut figures = Map::new();
        figures.insert("kills".into(), self.completed.into());
        figures.insert("unplanned_takeovers".into(), self.unplanned.into());
        figures.insert("backups_lost".into(), self.backups_lost.into());
        figures.insert("host_late_ms_max".into(), json!(self.late_ns as f64 / 1e6));
        figures.insert("failure".into(), json!(self.failure));
        for (series, (stage, _)) in self.series.into_iter().zip(STAGES) {
            let max_ns = series.quantile_ns(1.0);
            let mut values = outcome.keep(&format!("{name}.{stage}"), series);
            values["max_ns"] = max_ns.into();
            figures.insert(stage.into(), values);
        }
        figures
    }
}
