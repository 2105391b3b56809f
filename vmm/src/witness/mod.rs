//! The witness: an atomic test-and-set that grants each term of a VM to exactly one process.
//!
//! - [`mod@file`]: claims as files on storage that both hosts reach
//! - [`claim_file`]: the content of a claim file, and its authentication
//! - [`mod@folder`]: files are read as hostile input; hard links; who else can write to the folder
//! - [`file_system`]: which hosts reach a file system, by its type
//! - [`client`]: makes claims without blocking the calling thread

pub mod claim_file;
pub mod client;
pub mod file;
pub mod file_system;
pub mod folder;

pub use client::WitnessThreads;
pub use file::{FileWitness, WitnessConfig};
