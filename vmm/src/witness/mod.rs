//! The witness: an atomic test-and-set that grants each term of a VM to exactly one process.
//!
//! - [`mod@file`]: claims as files on storage that both hosts reach
//! - [`client`]: makes claims without blocking the calling thread

pub mod client;
pub mod file;

pub use client::WitnessThread;
pub use file::FileWitness;
