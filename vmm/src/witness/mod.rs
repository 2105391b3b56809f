//! The witness: an atomic test-and-set that grants each term of a VM to exactly one process.
//!
//! - [`any`]: [`Witness`], a witness of either kind
//! - [`mod@file`]: claims as files on storage that both hosts reach
//! - [`etcd`]: claims as keys of etcd
//! - [`claim_file`]: the content of a claim file, and its authentication
//! - [`mod@folder`]: files are read as hostile input; hard links; who else can write to the folder
//! - [`file_system`]: which hosts reach a file system, by its type
//! - [`client`]: makes claims without blocking the calling thread

pub mod any;
pub mod claim_file;
pub mod client;
pub mod etcd;
pub mod file;
pub mod file_system;
pub mod folder;

pub use any::Witness;
pub use client::WitnessThreads;
pub use file::{FileWitness, WitnessConfig};
