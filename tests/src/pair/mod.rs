//! A VM on two hosts, for tests: real namespaces, real KVM, the release program.
//!
//! | file | contents |
//! |---|---|
//! | `rig` | the LAN, a key and a witness; starts processes |
//! | `process` | one process of a pair: its events, status and exit |
//! | `couple` | two processes, either of which may die at any time |
//! | `clients` | clients of the VM and what they observed |
//! | `output_rule` | checks the output rule on a capture |

pub mod clients;
pub mod couple;
pub mod output_rule;
pub mod process;
pub mod rig;

pub use clients::Clients;
pub use couple::Couple;
pub use process::{Ended, Process};
pub use rig::{Rig, RigOptions};
