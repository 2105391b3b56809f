//! The simulator of the driver: two hosts run the production driver (`replication::driver`) with the production
//! engine and channel, each with a toy machine whose vCPU loop blocks in the driver, as the real one does.
//!
//! Each process is a coroutine. It blocks where the driver waits, and virtual time passes only there: an event
//! runs exactly when no process has an earlier step to do. One thread runs a seed, so the seed determines the
//! run.
//!
//! | module | contents |
//! |---|---|
//! | `options` | the options of a run, drawn from its seed |
//! | `run` | the event loop, which resumes the coroutines |
//! | `state`, `host` | the state of a run, and its events; the two hosts |
//! | `thread` | a process's thread: how time passes, how it sleeps and is woken |
//! | `process` | a process: engine, driver, one machine after the other |
//! | `vcpu` | the machine's vCPU loop, in the order of calls of `vmm::vcpu::run_loop` |
//! | `sim_host`, `link_port`, `tap`, `observer`, `supervisor` | what a host provides to the driver |
//! | `witness`, `lan`, `terminal` | the environment |
//! | `faults` | the faults |
//! | `check` | the checkers |
//! | [`mutants`] | searches for planted bugs |
//!
//! The events of a trace: `boot`, `end`, `role`, `notice`, `claim`, `witness`, `answer`, `output`, `announce`,
//! `answered`, `death`, `fault`, `freeze`, `thaw`, `heal`, `lost`, `VIOLATION`.

mod check;
mod count;
mod faults;
mod host;
mod lan;
mod link_port;
pub mod mutants;
mod observer;
mod options;
mod process;
mod run;
mod sim_host;
mod state;
mod supervisor;
mod tap;
mod terminal;
mod thread;
mod vcpu;
mod witness;

pub use count::Count;

use crate::sim::Checked;
use crate::sim::counts::Counts;
use crate::sim::runner::Scenario;
use crate::sim::trace::Trace;
use replication::DriverMutant;

/// The scenario of the driver, with or without a planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverScenario {
    /// The planted bug.
    pub planted: Option<DriverMutant>,
}

impl Scenario for DriverScenario {
    type Counter = Count;

    fn run(&self, seed: u64, counts: &mut Counts<Count>, trace: &mut Trace) -> Checked {
        run::run(seed, self.planted, counts, trace)
    }

    fn command(&self, seed: u64) -> String {
        let mutant =
            self.planted.map_or_else(String::new, |planted| format!(" --mutant {planted:?}"));
        format!(
            "cargo run --release -p tests --bin sim -- driver --seeds 1 --seed {seed} --trace{mutant}"
        )
    }
}
