//! A VM of a pair: connects the pure [engine](replication::replica) with a real machine, wire, tap and witness.
//!
//! - `source`: [`PairSource`], the nondeterminism boundary of a primary and of a backup
//! - `status`, `status_server`: the status of a host, and the socket that serves it
//! - `checkpoint_times`: durations and page counts of checkpoints
//! - `image`: a captured checkpoint in the form that the engine sends
//! - `peer_absence`: decides when to report that no peer is met
//! - [`event`]: the event log, for programs

mod checkpoint_times;
pub mod event;
mod peer_absence;
mod source;
mod status;
mod status_server;

pub use source::{Observer, PairParts, PairSource};
pub use status::{Status, StatusBoard};
pub use status_server::StatusServer;
