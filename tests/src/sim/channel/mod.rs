//! The logging channel under simulation: two [`Endpoint`](logchan::endpoint::Endpoint)s as they ship,
//! with handshake, seal and channel, on two hosts with their owners.
//!
//! ```text
//!   owner 0                                                               owner 1
//!     |  renew, go live, restart              witness: newest term          |
//!   program 0  append, read, execute, bye     and its primary     program 1 |
//!     |                                                             |
//!   Endpoint 0 <- ring of frames <---- link, forger <---- <- - - Endpoint 1
//!              - - - - - - - - - - - > link, forger ----> ring ->
//!   clock 0 (drifts, freezes)                             clock 1
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `options`, `load` | what a run is like, drawn from its seed |
//! | `world`, `faults`, `forge` | what happens next; what goes wrong; who makes it go wrong |
//! | `host`, `turn`, `owner` | a host, its driver's loop, its role |
//! | `model` | what the checkers know |
//! | `arrival`, `events`, `check`, `wire`, `progress` | the checkers: of what comes in, of what is told, of what holds always, of what goes out, of what must happen in the end |
//! | `mutants` | whether planted bugs are found |
//!
//! The events of a trace: `send`, `got` (a frame, and the verdict), `told` (an event of the endpoint),
//! `append`, `full`, `bye`, `met`, `renew`, `kill`, `boot`, `freeze`, `thaw`, `rate` of a host; `cut`,
//! `mend`, `hold`, `forged`, `heal`, `finish`, `calm`, `VIOLATION` of the world.

mod arrival;
mod check;
mod count;
mod events;
mod faults;
mod forge;
mod host;
mod load;
mod model;
pub mod mutants;
mod options;
mod owner;
mod progress;
mod turn;
mod wire;
mod world;

pub use count::Count;

use logchan::channel::{Mutant, Mutants};

use self::world::World;
use super::Checked;
use super::counts::Counts;
use super::runner::Scenario;
use super::trace::Trace;

/// The channel, with a bug planted in it or without.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelScenario {
    /// The bug.
    pub mutant: Option<Mutant>,
}

impl Scenario for ChannelScenario {
    type Counter = Count;

    fn run(&self, seed: u64, counts: &mut Counts<Count>, trace: &mut Trace) -> Checked {
        let mutants = self.mutant.map_or_else(Mutants::default, Mutants::plant);
        World::new(seed, mutants, counts, trace).run()
    }

    fn command(&self, seed: u64) -> String {
        let mutant = self.mutant.map(|mutant| format!(" --mutant {mutant:?}"));
        format!(
            "cargo run --release -p tests --bin sim -- channel --seeds 1 --seed {seed} --trace{}",
            mutant.unwrap_or_default()
        )
    }
}
