//! One VM under one deadline, in every state of its guest.

use super::Args;
use super::prober::{Delivered, Sent};
use super::state::GuestState;
use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::outcome::Outcome;
use crate::stage_trace::{Protection, run_traced};
use crate::vms::{core_b, pin};
use serde_json::{Value, json};

/// Of frames that the guest could not be seen to acknowledge one by one, one in this many is too many: the
/// figures would be those of the others.
const MISSING_MAX: u64 = 4;

/// A VM, and what was measured on it.
pub(super) struct Subject {
    pub(super) protected: bool,
    pub(super) deadline_us: u64,
    /// By state of the guest.
    delivered: Vec<Delivered>,
}

impl Subject {
    /// Nothing measured yet.
    pub(super) fn new(protected: bool, deadline_us: u64) -> Subject {
        let delivered = GuestState::ALL.iter().map(|_| Delivered::new()).collect();
        Subject { protected, deadline_us, delivered }
    }

    /// One turn: starts the VM, sends a share of the frames in each state, stops it, and reads what it
    /// followed.
    pub(super) fn run_round(
        &mut self,
        args: &Args,
        rounds: &Rounds,
        round: u32,
    ) -> Result<(), BenchError> {
        let frames = share(args.frames, rounds.count, round);
        if frames == 0 {
            return Ok(());
        }
        let seed = args.seed.wrapping_add(u64::from(round));
        let (deadline, spin) = (self.deadline_us.to_string(), args.spin_us.to_string());
        let options = ["--deadline-us", &deadline, "--spin-us", &spin];
        let protection = if self.protected { Protection::Sealed } else { Protection::Standalone };
        let (sent, trace) = run_traced(protection, &options, || send(frames, seed))?;
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
                    "in a guest that is {}, {missing} frames of {} were not seen to be delivered",
                    state.name(),
                    seen + missing
                )));
            }
        }
        Ok(())
    }

    /// What is reported of `state`; its series goes to `outcome`.
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

/// Sends `frames` in each state of the guest. Called where the client is.
fn send(frames: u64, seed: u64) -> Result<Vec<Sent>, BenchError> {
    pin(core_b())?;
    GuestState::ALL.iter().map(|state| state.send(frames, seed)).collect()
}
