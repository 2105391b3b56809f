//! The machine and the vCPU loop, which is the same for every role.

mod digest;
mod fixups;
pub mod machine;
mod processor_ports;
pub mod run_loop;
mod state_trace;

pub use fixups::Fixups;
pub use machine::{Counters, Machine, MachineConfig, MachineError};
pub use run_loop::{RunError, run};
pub use state_trace::StateTrace;
