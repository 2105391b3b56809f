//! The machine and the one loop that runs it.

mod digest;
pub mod machine;
pub mod run_loop;

pub use machine::{Counters, Machine, MachineConfig, MachineError};
pub use run_loop::{RunError, run};
