//! A host of a pair: what it provides to the [driver](replication::driver), and what its operator sees.
//!
//! - `host`: [`PairHost`], the parts of a real host
//! - `observer`: [`PairObserver`], notices and measurements
//! - `status`, `status_server`: the status of a host, and the socket that serves it
//! - `checkpoint_times`: durations and page counts of checkpoints
//! - [`event`]: the event log, for programs

mod checkpoint_times;
pub mod event;
mod host;
mod observer;
mod status;
mod status_server;

pub use host::{PairDriver, PairHost};
pub use observer::{OnNotice, PairObserver};
pub use status::{Status, StatusBoard};
pub use status_server::StatusServer;
