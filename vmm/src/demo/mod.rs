//! Demonstrations on a single machine, with the hosts, VM processes and clients of the crate `testbed`.
//!
//! - [`pair`]: a protected VM on two hosts, whose primary is killed repeatedly
//! - [`chaos`]: the same with all kinds of faults
//! - [`many`]: several protected VMs on two hosts, which are lost one after the other
//! - [`relay`]: a log link that loses frames
//! - [`standalone`]: one unprotected VM

pub mod chaos;
pub mod many;
pub mod pair;
pub mod relay;
pub mod standalone;

use crate::devices::DEFAULT_MAC;
use crate::link::timing::{SILENCE_MS_DEFAULT, SILENCE_MS_MAX};

// The testbed knows the program only from outside.
const _: () = assert!(testbed::pace::SILENCE_MS_MAX == SILENCE_MS_MAX);
const _: () = assert!(testbed::pair::DEFAULT_MAC.5 == DEFAULT_MAC.5);
const _: () = assert!(testbed::guest::REFERENCE_SILENCE_MS == SILENCE_MS_DEFAULT);
