//! One VM under one deadline, in every state of its guest.

use super::Args;
use super::prober::Sent;
use super::state::GuestState;
use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::outcome::Outcome;
use crate::series::Series;
use crate::stage_trace::{Protection, followed};
use crate::vms::{CORE_B, pin};
use serde_json::{Value, json};

/// Of frames that the guest could not be seen to acknowledge one by one, one in this many is too many: the
/// figures would be those of the others.
const MISSING_MAX: u64 = 4;

/// A VM, and what was measured on it.
pub(super) struct Subject {
    pub(super) protected: bool,
    pub(super) deadline_us: u64,
    delivered: Vec<Series>,
    missing: Vec<u64>,
}

impl Subject {
    /// Nothing measured yet.
    pub(super) fn new(protected: bool, deadline_us: u64) -> Subject {
        let states = GuestState::ALL.len();
        let delivered = (0..states).map(|_| Series::new()).collect();
        Subject { protected, deadline_us, delivered, missing: vec![0; states] }
    }

    /// One turn: starts the VM, sends a share of the frames in each state, stops it, and reads what it
    /// followed.
    pub(super) fn turn(
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
        let (sent, trace) = followed(protection, &options, || send(frames, seed))?;
        for (index, sent) in sent.iter().enumerate() {
            let (delivered, missing) = sent.delivered(&trace);
            self.delivered[index].add(&delivered);
            self.missing[index] += missing;
        }
        self.check()
    }

    fn check(&self) -> Result<(), BenchError> {
        for (index, state) in GuestState::ALL.iter().enumerate() {
            let (seen, missing) = (self.delivered[index].len(), self.missing[index]);
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
        let index = state as usize;
        let mut figures = outcome.keep(&name, self.delivered[index].clone());
        figures["frames"] = json!(self.delivered[index].len());
        figures["not_seen"] = json!(self.missing[index]);
        figures
    }
}

/// Sends `frames` in each state of the guest. Called where the client is.
fn send(frames: u64, seed: u64) -> Result<Vec<Sent>, BenchError> {
    pin(CORE_B)?;
    GuestState::ALL.iter().map(|state| state.send(frames, seed)).collect()
}
