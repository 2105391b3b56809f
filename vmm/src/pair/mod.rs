//! A VM of a pair: the pure [engine](crate::replica) with a real machine, wire, tap and witness.
//!
//! - `source`: [`PairSource`], the event source behind the vCPU loop of a primary and of a backup
//! - `status`, `status_server`: what it says about itself, and to whom
//! - `image`: a checkpoint as the engine wants it
//! - `absence_alarm`: whether it is time to say that nobody is met
//! - [`event`]: what a process of a pair tells of itself, for programs

mod checkpoint_times;
pub mod event;
mod image;
mod peer_absence;
mod source;
mod status;
mod status_server;

pub use source::{Observer, PairParts, PairSource};
pub use status::{Status, StatusBoard};
pub use status_server::StatusServer;
