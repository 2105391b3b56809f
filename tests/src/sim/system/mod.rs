//! The pair: the production replication engine with its channel, twice, under toy machines; a log link
//! and a LAN between them, clients, a witness; and everything that goes wrong.
//!
//! | module | holds |
//! |---|---|
//! | `options` | what is drawn for a run |
//! | `machine` | a deterministic machine, and the program in it |
//! | `steps`, `door` | the machine's questions to the engine, in the order of the vCPU loop |
//! | `turn` | a driver's turn |
//! | `pair` | the world and its events |
//! | `process`, `host`, `tap_world` | what runs where |
//! | `lan`, `packet`, `client`, `witness` | what is around the pair |
//! | `faults`, `crash` | what goes wrong |
//! | `check` | what must hold |
//! | [`mutants`] | bugs planted on purpose |
//!
//! Lines of a trace, beside what [`crate::sim::trace`] says: `send`, `got` (log frames by number), `role`,
//! `event` (what the engine tells), `claim`, `witness`, `say` (number of a frame of the VM that is on
//! the LAN), `announce`, `ask`, `answered` (clients), and faults by their names.

mod boundary;
mod check;
mod client;
mod count;
mod crash;
mod faults;
mod host;
mod lan;
mod machine;
pub mod mutants;
mod options;
mod packet;
mod pair;
mod process;
mod steps;
mod tap_world;
mod turn;
mod witness;

pub use count::Count;

use crate::sim::Checked;
use crate::sim::counts::Counts;
use crate::sim::runner::Scenario;
use crate::sim::trace::Trace;
use mutants::Planted;
use pair::{Bugs, Pair};

/// Runs pairs, sound or with a bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct System {
    /// The bug.
    pub planted: Option<Planted>,
}

impl Scenario for System {
    type Counter = Count;

    fn run(&self, seed: u64, counts: &mut Counts<Count>, trace: &mut Trace) -> Checked {
        let bugs = self.planted.map_or_else(Bugs::default, Planted::bugs);
        Pair::new(seed, bugs, counts, trace).run()
    }

    fn command(&self, seed: u64) -> String {
        let mutant =
            self.planted.map_or_else(String::new, |planted| format!(" --mutant {planted}"));
        format!(
            "cargo run --release -p tests --bin sim -- system --seeds 1 --seed {seed} --trace{mutant}"
        )
    }
}
