//! One VM with one deadline, in every guest state.

use super::Args;
use super::prober::{Delivered, Sent};
use super::state::GuestState;
use crate::error::BenchError;
use crate::interleave::Round;
use crate::outcome::Outcome;
use crate::stage_trace::run_traced;
use crate::vms::{Protection, core_b, pin};
use serde_json::{Value, json};

/// The benchmark fails if more than one frame in this many was not seen to be delivered, because the
/// figures would then represent only the other frames.
const MISSING_MAX: u64 = 4;

/// A VM and its measurements.
pub(super) struct Subject {
    pub(super) protected: bool,
    pub(super) deadline_us: u64,
    /// Deliveries by guest state.
    delivered: Vec<Delivered>,
}

impl Subject {
    /// Creates a subject without measurements.
    pub(super) fn new(protected: bool, deadline_us: u64) -> Subject {
        let delivered = GuestState::ALL.iter().map(|_| Delivered::new()).collect();
        Subject { protected, deadline_us, delivered }
    }

    /// Runs one round: starts the VM, sends this round's share of the frames in each guest state, stops
    /// the VM, and reads its trace.
    pub(super) fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let frames = round.share(args.frames);
        if frames == 0 {
            return Ok(());
        }
        let (deadline, spin) = (self.deadline_us.to_string(), args.spin_us.to_string());
        let options = ["--deadline-us", &deadline, "--spin-us", &spin];
        let protection = if self.protected { Protection::Sealed } else { Protection::Standalone };
        let (sent, trace) = run_traced(protection, &options, || send(frames, round.seed))?;
        for (all, sent) in self.delivered.iter_mut().zip(sent) {
            let Delivered { times, missing, shadowed } = sent.delivered(&trace);
            all.times.add(&times);
            all.missing += missing;
            all.shadowed += shadowed;
        }
        self.check()
    }

    fn check(&self) -> Result<(), BenchError> {
        for (delivered, state) in self.delivered.iter().zip(GuestState::ALL) {
            let missing = delivered.missing + delivered.shadowed;
            let seen = delivered.times.len();
            if missing * MISSING_MAX > seen + missing {
                return Err(BenchError::Wrong(format!(
                    "guest state {}: the delivery of {missing} of {} frames was not seen",
                    state.name(),
                    seen + missing
                )));
            }
        }
        Ok(())
    }

    /// Returns the figures of `state` and adds its series to `outcome`.
    pub(super) fn figures(&self, state: GuestState, outcome: &mut Outcome) -> Value {
        let kind = if self.protected { "protected" } else { "standalone" };
        let name = format!("{kind}.{}.{}us", state.name(), self.deadline_us);
        let Delivered { times, missing, shadowed } = &self.delivered[state as usize];
        let mut figures = outcome.keep(&name, times.clone());
        figures["frames"] = json!(times.len());
        figures["not_seen"] = json!(missing);
        figures["shadowed"] = json!(shadowed);
        figures
    }
}

/// Sends `frames` frames in each guest state. Must be called in the client's namespace.
fn send(frames: u64, seed: u64) -> Result<Vec<Sent>, BenchError> {
    pin(core_b())?;
    GuestState::ALL.iter().map(|state| state.send(frames, seed)).collect()
}
