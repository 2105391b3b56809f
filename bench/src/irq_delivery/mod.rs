//! Measures interrupt delivery: the time from just before the client passes a frame to its kernel until
//! the guest's handler acknowledges the interrupt at the NIC. The guest is idle, computes at CPL3
//! without an exit, or alternates between both; the VM is protected or not; the deadline of a pending
//! input is swept.
//!
//! - `state`: what the guest does while frames arrive
//! - `prober`: sends the frames and finds their deliveries
//! - `subject`: one VM under one deadline
//! - `report`: the table
//!
//! The VM, or the primary of a pair, has one core and the client the other. A backup shares the
//! client's core, which it seldom needs.

mod prober;
mod report;
mod state;
mod subject;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::outcome::{self, Measurement, Outcome};
use serde_json::{Map, Value, json};
use state::GuestState;
use subject::Subject;

/// The product's default deadline, microseconds.
const DEADLINE_US: u64 = 1000;

/// Options of `irq-delivery`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Rounds: how many times each combination of VM and deadline is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Frames per VM, deadline and guest state, in total
    #[arg(long, default_value_t = 300)]
    frames: u64,
    /// Deadlines of a pending input, microseconds; the product's default is always measured as well
    #[arg(long, value_delimiter = ',', default_values_t = [250, 500, 2000, 4000],
          value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    deadlines_us: Vec<u64>,
    /// How long an idle VM spins before it blocks, microseconds
    #[arg(long, default_value_t = 50)]
    spin_us: u64,
    /// Seed of the order of subjects in each round and of the times between frames
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Measurement for Args {
    const NAME: &'static str = "irq-delivery";
    const PRINT: fn(&Value) = report::print;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        let rounds = Rounds { count: self.rounds, seed: self.seed };
        let mut deadlines = self.deadlines_us.clone();
        deadlines.push(DEADLINE_US);
        deadlines.sort_unstable();
        deadlines.dedup();
        let kinds = [false, true];
        let mut subjects: Vec<Subject> = kinds
            .iter()
            .flat_map(|&protected| deadlines.iter().map(move |&us| Subject::new(protected, us)))
            .collect();
        rounds.run("interrupt delivery", &mut subjects, |round, subject| {
            subject.run_round(self, round)
        })?;

        outcome.put("deadline_us", DEADLINE_US);
        outcome.put("spin_us", self.spin_us);
        let mut sweeps = [Map::new(), Map::new()];
        for subject in &subjects {
            let mut states = Map::new();
            for state in GuestState::ALL {
                let figures = subject.figures(state, outcome);
                // The figures of the standalone VM with the default deadline are also at the top level.
                if subject.deadline_us == DEADLINE_US && !subject.protected {
                    outcome.put(state.name(), figures.clone());
                }
                states.insert(state.name().into(), figures);
            }
            let sweep = &mut sweeps[usize::from(subject.protected)];
            sweep.insert(subject.deadline_us.to_string(), states.into());
        }
        let [standalone, protected] = sweeps;
        outcome.put("by_deadline_us", json!({ "standalone": standalone, "protected": protected }));
        Ok(())
    }

    /// Options for `report --quick`: takes half a minute.
    fn quick() -> Args {
        Args { rounds: 1, frames: 150, deadlines_us: vec![250], ..Args::full() }
    }

    /// Options for `report --full`.
    fn full() -> Args {
        Args { frames: 900, ..outcome::defaults() }
    }
}
