//! A pair or a standalone VM under all loads.

use super::load::Load;
use super::{Args, short};
use crate::counter_client::{CounterClient, RequestTimes};
use crate::error::BenchError;
use crate::interleave::Round;
use crate::log_rtt::RoundTrip;
use crate::outcome::Outcome;
use crate::series::{Series, ratio};
use crate::stage_trace::run_traced;
use crate::vms::{Protection, core_a, pin};
use serde_json::{Map, Value, json};
use std::ops::Range;
use vmm::link::now;
use vmm::telemetry::Stage;

/// Warm-up requests per load, which are not recorded.
const WARM_UP: u64 = 20;

/// Measurements under one load.
struct LoadResult {
    request_times: RequestTimes,
    stages: Vec<Series>,
}

/// A VM and its measurements. Every round starts new processes: a VM that waits for its next
/// measurement would spin on a core that the other subjects need.
pub(super) struct Subject {
    /// The name in reports.
    pub(super) name: &'static str,
    protection: Protection,
    /// Options of its processes.
    options: &'static [&'static str],
    loads: Vec<LoadResult>,
}

impl Subject {
    /// A VM that is protected with a sealed link.
    pub(super) fn sealed() -> Subject {
        Subject::new("protected", Protection::Sealed, &[])
    }

    /// As [`sealed`](Self::sealed), but each output waits for the acknowledgement of its own log entry.
    pub(super) fn strict() -> Subject {
        Subject::new("protected-strict", Protection::Sealed, &["--output-commit=strict"])
    }

    /// A VM that is protected with an insecure link.
    pub(super) fn insecure() -> Subject {
        Subject::new("protected-insecure", Protection::Insecure, &[])
    }

    /// A VM that is not protected.
    pub(super) fn standalone() -> Subject {
        Subject::new("standalone", Protection::Standalone, &[])
    }

    fn new(
        name: &'static str,
        protection: Protection,
        options: &'static [&'static str],
    ) -> Subject {
        let unmeasured = || LoadResult {
            request_times: RequestTimes::new(),
            stages: Stage::ALL.iter().map(|_| Series::new()).collect(),
        };
        let loads = Load::ALL.iter().map(|_| unmeasured()).collect();
        Subject { name, protection, options, loads }
    }

    /// Runs one round: starts the VM, sends requests under each load, stops the VM, and reads its
    /// trace.
    pub(super) fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let spin = args.spin_us.to_string();
        let options = [&["--spin-us", &spin], self.options].concat();
        let (ran, trace) = run_traced(self.protection, &options, || ask(args, round))?;
        for (under, (request_times, within)) in self.loads.iter_mut().zip(&ran) {
            under.request_times.add(request_times);
            for (all, stage) in under.stages.iter_mut().zip(Stage::ALL) {
                all.add(&trace.spans(stage, within));
            }
        }
        Ok(())
    }

    /// Returns the times of one stage under `load`.
    pub(super) fn stage(&self, load: Load, stage: Stage) -> &Series {
        &self.loads[load as usize].stages[stage as usize]
    }

    /// Returns the figures of `load` and adds its series to `outcome`.
    pub(super) fn figures(
        &self,
        load: Load,
        channels: &[RoundTrip],
        outcome: &mut Outcome,
    ) -> Value {
        let under = &self.loads[load as usize];
        if under.request_times.service.len() == 0 {
            return Value::Null;
        }
        let name = |what: &str| format!("{}.{}.{what}", self.name, load.name());
        let mut stages = Map::new();
        for (series, stage) in under.stages.iter().zip(Stage::ALL) {
            if series.len() > 0 {
                let figures = outcome.keep(&name(stage.name()), series.clone());
                stages.insert(stage.name().into(), figures);
            }
        }
        let hold = self.stage(load, Stage::Hold);
        let bare = match self.protection {
            Protection::Sealed => Some(&channels[0].times),
            Protection::Insecure => Some(&channels[1].times),
            Protection::Standalone => None,
        };
        let to_rtt = bare.and_then(|bare| ratio(hold.quantile_ns(0.5), bare.quantile_ns(0.5)));
        json!({
            "requests": under.request_times.service.len(),
            "requests_per_second": under.request_times.rate(),
            "service": outcome.keep(&name("service"), under.request_times.service.clone()),
            "response": outcome.keep(&name("response"), under.request_times.response.clone()),
            "stages": stages,
            "hold_ns": short(hold),
            "ratio_hold_p50_to_log_rtt": to_rtt,
        })
    }
}

/// Sends requests under each load. Returns the times that the client measured and the interval of each
/// load.
fn ask(args: &Args, round: Round) -> Result<Vec<(RequestTimes, Range<u64>)>, BenchError> {
    pin(core_a())?;
    let mut ran = Vec::new();
    for load in Load::ALL {
        let requests = round.share(load.requests(args));
        if requests == 0 {
            ran.push((RequestTimes::new(), 0..0));
            continue;
        }
        let mut client = CounterClient::connect(WARM_UP)?;
        let begun = now().as_nanos();
        let request_times = client.run(requests, load.pace())?;
        ran.push((request_times, begun..now().as_nanos()));
    }
    Ok(ran)
}
