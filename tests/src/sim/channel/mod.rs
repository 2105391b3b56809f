//! The simulator of the logging channel: two [`Endpoint`](logchan::endpoint::Endpoint)s as they ship,
//! with handshake, seal and channel, on two hosts. Each host has an *owner*, which decides its role.
//!
//! ```text
//!   owner 0                                                               owner 1
//!     |  renew, go live, restart              witness: newest term          |
//!   program 0  append, read, execute, bye     and its primary     program 1 |
//!     |                                                             |
//!   Endpoint 0 <- ring of frames <---- link, attacker <---- <- - - Endpoint 1
//!              - - - - - - - - - - - > link, attacker ----> ring ->
//!   clock 0 (drifts, freezes)                             clock 1
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `options`, `load` | the options of a run, drawn from its seed; the programs' actions |
//! | `world`, `faults`, `attacker` | the events of a run; host and link faults; the attacker on the link |
//! | `host`, `drive`, `owner` | a host, its driver's loop, its role |
//! | `model` | the state that the checkers keep |
//! | `notices` | death notices, and their checker |
//! | `arrival`, `events`, `wire` | the checkers of received frames, of reported events, of sent frames |
//! | `check`, `progress` | the checkers of invariants, of progress after healing |
//! | `mutants` | searches for planted bugs |
//!
//! The events of a trace: `send`, `got` (a frame, and the verdict), `event` (of the endpoint), `append`,
//! `full`, `bye`, `met`, `renew`, `kill`, `boot`, `freeze`, `thaw`, `rate`, `hold`, `forged` of a host;
//! `cut`, `mend`, `heal`, `drain`, `idle`, `VIOLATION` without a host.

mod arrival;
mod attacker;
mod check;
mod count;
mod drive;
mod events;
mod faults;
mod host;
mod load;
mod model;
pub mod mutants;
mod notices;
mod options;
mod owner;
mod progress;
mod wire;
mod world;

pub use count::Count;

use logchan::channel::{Mutant, Mutants};

use self::world::World;
use super::Checked;
use super::counts::Counts;
use super::runner::Scenario;
use super::trace::Trace;

/// The scenario of the logging channel, with or without a planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelScenario {
    /// The planted bug.
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
