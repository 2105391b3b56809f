//! The disk of a VM on two hosts: its images, who writes to it, and what is on it.
//!
//! - [`Images`]: an image on each host, and their comparison
//! - [`chain`]: the chain that a client appends to on the disk of the reference guest
//! - [`redis_log`]: the file system and the append-only file of a Linux guest's redis
//! - [`DiskCheck`]: whether both images have what the clients were answered

pub mod chain;
mod check;
mod images;
pub mod redis_log;

pub use check::{CHAIN, DiskCheck};
pub use images::{BLOCK_BYTES, Comparison, FirstContents, Images};

use std::collections::BTreeMap;

/// How often something was written or answered, by its name: the chain of the reference guest, or keys of redis.
pub type Counts = BTreeMap<String, u64>;
