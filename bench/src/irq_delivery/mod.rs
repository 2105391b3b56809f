//! How long a frame takes to become an interrupt that the guest's handler has seen: from just before the
//! client hands it to its kernel to the handler's acknowledgement at the NIC. The guest is idle, computes
//! at CPL3 without an exit, or does both in turns; it is protected or not; the deadline of a pending
//! input is swept.
//!
//! - `state`: what the guest does meanwhile
//! - `prober`: who sends the frames, and when
//! - `subject`: one VM under one deadline
//! - `report`: the table
//!
//! The VM (of a pair: the primary) has one core, the client the other; a backup has the client's, and
//! seldom wants it.

mod prober;
mod report;
mod state;
mod subject;

use crate::error::BenchError;
use crate::interleave::Rounds;
use crate::outcome::{self, Outcome, OutputArgs};
use serde_json::{Map, json};
use state::GuestState;
use subject::Subject;

/// The deadline that ships.
const DEADLINE_US: u64 = 1000;

/// Options of `irq-delivery`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Turns of each VM and deadline
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Frames for each VM, deadline and state of its guest
    #[arg(long, default_value_t = 300)]
    frames: u64,
    /// Deadlines of a pending input, microseconds; the default one is always measured
    #[arg(long, value_delimiter = ',', default_values_t = [250, 500, 2000, 4000],
          value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    deadlines_us: Vec<u64>,
    /// How long an idle VM looks before it blocks, microseconds
    #[arg(long, default_value_t = 50)]
    spin_us: u64,
    /// What the orders of turns and the times between frames are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    /// For a report in minutes: half a minute.
    pub(crate) fn quick() -> Args {
        Args { rounds: 1, frames: 150, deadlines_us: vec![250], ..Args::full() }
    }

    /// For figures that are kept.
    pub(crate) fn full() -> Args {
        Args { frames: 900, ..outcome::defaults() }
    }
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    outcome::run(&args.output, || measure(args), report::print)
}

/// Measures.
pub(crate) fn measure(args: &Args) -> Result<Outcome, BenchError> {
    let rounds = Rounds { count: args.rounds, seed: args.seed };
    let mut deadlines = args.deadlines_us.clone();
    deadlines.push(DEADLINE_US);
    deadlines.sort_unstable();
    deadlines.dedup();
    let kinds = [false, true];
    let mut subjects: Vec<Subject> = kinds
        .iter()
        .flat_map(|&protected| deadlines.iter().map(move |&us| Subject::new(protected, us)))
        .collect();
    rounds.run("interrupt delivery", &mut subjects, |round, subject| {
        subject.run_round(args, &rounds, round)
    })?;

    let mut outcome = Outcome::new("irq-delivery");
    outcome.put("deadline_us", DEADLINE_US);
    outcome.put("spin_us", args.spin_us);
    let mut sweeps = [Map::new(), Map::new()];
    for subject in &subjects {
        let mut states = Map::new();
        for state in GuestState::ALL {
            let figures = subject.figures(state, &mut outcome);
            // The shipped deadline without protection is the measurement's head.
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
    Ok(outcome)
}
