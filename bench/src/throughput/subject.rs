//! One VM under every kind of work.

use super::work::Work;
use super::{Args, cpu};
use crate::counter_client::RequestTimes;
use crate::error::BenchError;
use crate::interleave::Round;
use crate::log_share::LogShare;
use crate::outcome::Outcome;
use crate::vms::{Protection, Vm, VmOptions};
use serde_json::{Map, Value, json};

/// How the VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Without a backup.
    Standalone,
    /// Without a backup and without stage timestamps.
    NoStages,
    /// With a backup, on a sealed link.
    Protected,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Kind; 3] = [Kind::Standalone, Kind::NoStages, Kind::Protected];

    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Standalone => "standalone",
            Kind::NoStages => "no-stages",
            Kind::Protected => "protected",
        }
    }

    const fn protection(self) -> Protection {
        match self {
            Kind::Standalone | Kind::NoStages => Protection::Standalone,
            Kind::Protected => Protection::Sealed,
        }
    }
}

/// Measurements of one kind of work.
struct WorkResult {
    request_times: RequestTimes,
    /// CPU time of the VM's process, or of primary and backup, seconds.
    cpu_seconds: Vec<f64>,
    /// Log bytes that the primary wrote.
    log: LogShare,
    /// The primary's stage histograms at the end of the work in the last round.
    stages: Value,
    /// Largest replay lag of the backup at the end of the work, bytes of log.
    lag_bytes: u64,
}

impl WorkResult {
    /// Adds the difference between the primary's status before and after the work.
    fn add_status(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        self.lag_bytes = self.lag_bytes.max(after["lag_bytes"].as_u64().unwrap_or(0));
        self.stages = after["stages"].clone();
        self.log.add(before, after);
    }
}

/// A VM and its measurements. Every round starts new processes.
pub(super) struct Subject {
    pub(super) kind: Kind,
    done: Vec<WorkResult>,
}

impl Subject {
    /// Creates a subject without measurements.
    pub(super) fn new(kind: Kind) -> Subject {
        let hosts = if kind == Kind::Protected { 2 } else { 1 };
        let nothing = |_work: &Work| WorkResult {
            request_times: RequestTimes::new(),
            cpu_seconds: vec![0.0; hosts],
            log: LogShare::default(),
            stages: Value::Null,
            lag_bytes: 0,
        };
        Subject { kind, done: Work::ALL.iter().map(nothing).collect() }
    }

    /// Runs one round: starts the VM, sends it this round's share of every kind of work, stops it.
    pub(super) fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let spin = args.spin_us.to_string();
        let mut options = VmOptions::new(&["--spin-us", &spin]);
        if self.kind == Kind::NoStages {
            options.options.push("--no-stages".into());
        }
        let mut vm = Vm::start(self.kind.protection(), &options)?;
        let pids = vm.pids();
        let mut before = vm.status()?;
        for work in Work::ALL {
            let amount = round.share(work.amount(args));
            self.work(work, amount, &pids, |amount| {
                vm.client(|| work.run(amount, args.client_core))
            })?;
            let after = vm.status()?;
            if let Some((before, after)) = before.as_ref().zip(after.as_ref()) {
                self.done[work as usize].add_status(before, after);
            }
            before = after;
        }
        vm.stop()
    }

    fn work(
        &mut self,
        work: Work,
        amount: u64,
        pids: &[u32],
        run: impl FnOnce(u64) -> Result<RequestTimes, BenchError>,
    ) -> Result<(), BenchError> {
        if amount == 0 {
            return Ok(());
        }
        let before: Vec<f64> =
            pids.iter().map(|&pid| cpu::seconds(pid)).collect::<Result<_, _>>()?;
        let request_times = run(amount)?;
        let done = &mut self.done[work as usize];
        done.request_times.add(&request_times);
        for ((sum, before), &pid) in done.cpu_seconds.iter_mut().zip(before).zip(pids) {
            *sum += cpu::seconds(pid)? - before;
        }
        Ok(())
    }

    /// Returns the requests or echoes per second.
    pub(super) fn rate(&self, work: Work) -> f64 {
        self.done[work as usize].request_times.rate()
    }

    /// Returns the figures of `work` and adds its series to `outcome`.
    pub(super) fn figures(&self, work: Work, outcome: &mut Outcome) -> Value {
        let done = &self.done[work as usize];
        let count = done.request_times.service.len();
        if count == 0 {
            return Value::Null;
        }
        let name = format!("{}.{}", self.kind.name(), work.name());
        let us_each: Vec<f64> =
            done.cpu_seconds.iter().map(|seconds| seconds * 1e6 / count as f64).collect();
        let mut figures = json!({
            "count": count,
            "per_second": self.rate(work),
            "bytes_per_second": work.bytes().map(|bytes| self.rate(work) * bytes as f64),
            "latency": outcome.keep(&name, done.request_times.service.clone()),
            "cpu_us_each": us_each,
        });
        if self.kind == Kind::Protected {
            let mbit = |bytes: u64| bytes as f64 * 8.0 / 1e6 / done.request_times.seconds;
            let bytes = done.log.total();
            figures["log"] = json!({
                "mbit_per_s": mbit(bytes),
                "mbit_per_s_by_kind": done.log.by_kind(mbit),
                "bytes_each": bytes as f64 / count as f64,
            });
            figures["stages"] = done.stages.clone();
            figures["lag_bytes_max"] = json!(done.lag_bytes);
        }
        figures
    }
}
