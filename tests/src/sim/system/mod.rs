//! The simulator of the pair: two production replication engines with their channels, each with a toy machine;
//! a log link and a LAN between them, clients, a witness; and faults of all of these.
//!
//! | module | contents |
//! |---|---|
//! | `options` | the options of a run, drawn from its seed |
//! | `machine` | the toy machine: deterministic, with a guest program |
//! | `steps`, `boundary` | the machine's calls of the engine, in the order of the vCPU loop |
//! | `drive` | an iteration of a host's driver |
//! | `pair` | the state of a run, and its events |
//! | `process`, `host`, `tap_world`, `sim_disk` | a process, a host, the machine's live inputs, the host's disk |
//! | `shared_disk` | the disk that both hosts share |
//! | `lan`, `packet`, `client`, `witness` | the environment of the pair |
//! | `faults`, `crash`, `notices` | the faults; the death notices of processes |
//! | `check` | the checkers |
//! | [`mutants`] | searches for planted bugs |
//!
//! The events of a trace: `send`, `got` (log frames, by number), `role`, `event` (of the engine), `claim`,
//! `witness`, `output` (number of a frame of the VM that is on the LAN), `announce`, `ask`, `answered`
//! (clients), `notice` (of a supervisor), `boot`, `end`, `lost`, `VIOLATION`, and the faults by their names.

mod boundary;
pub(in crate::sim) mod check;
pub(in crate::sim) mod client;
mod count;
mod crash;
mod drive;
mod faults;
mod host;
mod lan;
pub(in crate::sim) mod machine;
pub mod mutants;
mod notices;
pub(in crate::sim) mod options;
pub(in crate::sim) mod packet;
mod pair;
pub(in crate::sim) mod process;
mod shared_disk;
pub(in crate::sim) mod sim_disk;
pub(in crate::sim) mod steps;
pub(in crate::sim) mod tap_world;
pub(in crate::sim) mod witness;

pub use count::Count;

use crate::sim::Checked;
use crate::sim::counts::Counts;
use crate::sim::runner::Scenario;
use crate::sim::trace::Trace;
use mutants::Planted;
use pair::{Bugs, Pair};

/// The scenario of the pair, with or without a planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct System {
    /// The planted bug.
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
