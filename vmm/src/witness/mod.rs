//! The witness: an atomic test-and-set that grants each term of a VM to exactly one process.
//!
//! - [`any`]: [`Witness`], a witness of either kind
//! - [`mod@file`]: claims as files on storage that both hosts reach
//! - [`etcd`]: claims as keys of etcd
//! - [`claim_file`]: the content of a claim file, and its authentication
//! - [`mod@folder`]: files are read as hostile input; hard links; who else can write to the folder
//! - [`file_system`]: which hosts reach a file system, by its type
//! - [`fence`]: a command that runs before this host takes the VM over
//! - `asking`: a question with all that belongs to it: the fence, the trial, the next claim
//! - [`client`]: makes claims without blocking the calling thread
//! - [`process`]: a process that asks the witness for one in a sandbox; `message`: what the two say
//! - `times`: how long its answers took

pub mod any;
mod asking;
pub mod claim_file;
pub mod client;
pub mod etcd;
pub mod fence;
pub mod file;
pub mod file_system;
pub mod folder;
mod message;
pub mod process;
mod times;

pub use any::Witness;
pub use client::WitnessThreads;
pub use fence::{Fence, FenceConfig};
pub use file::{FileWitness, WitnessConfig};
pub use process::{KeyFiles, WitnessProcess, WitnessSetup};
pub use times::{AnswerTimes, WitnessTimes};

use crate::limits::REASON_CHARS_MAX;

/// Returns the beginning of `text`, which another program wrote, as one line without control characters.
fn one_line(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(REASON_CHARS_MAX).collect()
}
