//! A VM on two hosts, for tests: real namespaces, real KVM, the program that ships.
//!
//! | file | holds |
//! |---|---|
//! | `rig` | the LAN, a key, a witness, and where processes are started |
//! | `process` | one process of a pair: what it said, how it is, how it ended |
//! | `couple` | two processes of which one may die at any time |
//! | `clients` | who talks to the VM meanwhile, and what they saw |
//! | `relay` | a log link that loses, repeats and reorders frames |
//! | `capture` | frames with the kernel's time stamps |
//! | `output_rule` | no output before its acknowledgement, checked on a capture |
//! | `memory` | guest RAM of a running process, from outside |

pub mod capture;
pub mod clients;
pub mod couple;
pub mod memory;
pub mod output_rule;
pub mod process;
pub mod relay;
pub mod rig;

pub use clients::Clients;
pub use couple::Couple;
pub use process::{Ended, Process};
pub use rig::{Rig, RigOptions};
