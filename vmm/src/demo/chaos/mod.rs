//! The demonstration with all kinds of faults: one fault after the other hits a pair while clients use its VM. A
//! seed draws them. After each one, everything is repaired, the VM must be protected again, and the clients and
//! the capture on the LAN say whether anything was lost, repeated or contradictory.
//!
//! | file | contents |
//! |---|---|
//! | `kind` | the table of all kinds: whom a fault hits, how long the service may be interrupted, what to do |
//! | `hosts`, `network`, `witness`, `operators`, `output`, `load` | what is done, and how it is repaired |
//! | `deck` | the order of the faults |
//! | `tools` | what is prepared before the first process starts |
//! | `bound` | the longest interruption of the service that a kind may cause on this machine |
//! | `run`, `summary` | the sequence of the faults and the checks; the results |
//!
//! Only one fault is present at a time: the pair promises nothing beyond that. Faults that end the VM are left
//! out: orders to end it, and the death of both hosts.

mod bound;
mod deck;
mod hosts;
mod kind;
mod load;
mod network;
mod operators;
mod output;
mod run;
mod summary;
mod tools;
mod witness;

pub use kind::Kind;
pub use summary::ChaosSummary;

use super::pair::running::Environment;
use super::pair::{Progress, VmPlan};
use run::Chaos;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testbed::{Guest, GuestDisk, TestbedError};
use tools::{Logs, Tools};

/// Parameters of a run.
#[derive(Clone, Debug, Default)]
pub struct ChaosPlan {
    /// The VM.
    pub vm: VmPlan,
    /// No fault begins later than this after the VM was protected for the first time.
    pub time: Duration,
    /// Seed for the order of the faults, and for their times and places.
    pub seed: u64,
    /// The kinds to draw from. Those that do not exist with the guest are left out.
    pub kinds: Vec<Kind>,
}

impl ChaosPlan {
    /// Returns the command that repeats this run.
    fn command(&self) -> String {
        let mut command = format!(
            "understudy demo --chaos {} --seed {}",
            self.time.as_secs_f64() / 60.0,
            self.seed
        );
        if let Some(silence_ms) = self.vm.silence_ms {
            command += &format!(" --silence {silence_ms}");
        }
        if let Some(name) = self.vm.cpu_model {
            command += &format!(" --cpu-model {name}");
        }
        if self.kinds != Kind::ALL {
            let names: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
            command += &format!(" --faults {}", names.join(","));
        }
        match self.vm.disk {
            GuestDisk::None => {}
            GuestDisk::Mirrored => command += " --disk",
        }
        match &self.vm.guest {
            Guest::Reference => {}
            Guest::Linux(path) => {
                command += &format!(" --guest linux --snapshot {}", path.display());
            }
        }
        command
    }
}

/// Runs the demonstration with the executable `program`. `interrupted` ends it early. Removes everything that
/// it created, except that after a failure the logs of the hosts stay, in a folder that the result names.
///
/// # Errors
///
/// If the pair can't be set up, or the run is interrupted. Everything that goes wrong later is part of the
/// result.
pub fn run(
    program: &Path,
    plan: &ChaosPlan,
    interrupted: &Arc<AtomicBool>,
    progress: &mut dyn Progress,
) -> Result<ChaosSummary, TestbedError> {
    let logs = Logs::new(plan.seed)?;
    let mut progress = logs.recorder(progress)?;
    let mut environment = Environment::new(program, &plan.vm, interrupted, &mut progress)?;
    let tools = Tools::new(program, &mut environment, logs.path())?;
    let mut summary = environment
        .run(interrupted, &mut progress, |pair| Chaos::new(plan, pair, &tools)?.run())?;
    if summary.fault().is_some() {
        summary.logs = Some(logs.keep());
    }
    Ok(summary)
}
