//! The disk of a VM on two hosts: its images, who writes to it, and what is on it.
//!
//! - [`Images`]: an image on each host, and their comparison
//! - [`chain`]: the chain that a client appends to on the disk of the reference guest
//! - [`redis_log`], [`database`]: the append-only file of a Linux guest's redis, and the database of its SQLite, in its
//!   [`file_system`]
//! - [`DiskCheck`]: whether both images have what the clients were answered

pub mod chain;
mod check;
pub mod database;
pub mod file_system;
mod images;
pub mod redis_log;

pub use check::{CHAIN, DiskCheck};
pub use images::{BLOCK_BYTES, Comparison, FirstContents, Images};

use std::collections::BTreeMap;

/// How often something was written or answered, by its name: the chain of the reference guest, keys of redis, or the table
/// of a database.
pub type Counts = BTreeMap<String, u64>;
