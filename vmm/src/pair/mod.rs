//! A host of a pair: what it provides to the [driver](replication::driver), and what its operator sees.
//!
//! - `host`: [`PairHost`], the parts of a real host
//! - `observer`: [`PairObserver`], notices and measurements
//! - `status`: the status of a host
//! - [`control_server`]: the socket that serves the status and takes orders
//! - `checkpoint_times`: durations and page counts of checkpoints
//! - [`metrics`]: the metrics of a host, for Prometheus
//! - [`event`]: the event log, for programs
//! - [`event_feed`]: the last events, for those who follow them
//! - `followers`: the clients that do

mod checkpoint_times;
pub mod control_server;
pub mod event;
pub mod event_feed;
mod followers;
mod host;
pub mod metrics;
mod observer;
mod status;

pub use control_server::{ControlServer, Request};
pub use host::{PairDriver, PairHost};
pub use observer::{OnNotice, PairObserver};
pub use status::{Status, StatusBoard};
