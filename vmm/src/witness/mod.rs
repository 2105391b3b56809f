//! The witness: who may speak for a VM in a term, decided once and for all.
//!
//! - [`mod@file`]: claims as files on storage that both hosts reach
//! - [`client`]: asking without waiting

pub mod client;
pub mod file;

pub use client::WitnessClient;
pub use file::FileWitness;
