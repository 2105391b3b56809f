//! Serves metrics to Prometheus, over HTTP on a socket that only this host reaches.
//!
//! - `address`: [`MetricsAddress`], where
//! - `listener`: [`MetricsListener`], the socket; it is opened before the process enters its sandbox
//! - `request`: which request is answered, and how
//! - `server`: [`MetricsServer`], a thread that serves all clients at a time
//!
//! What is served is none of this module's business: the caller makes the text.

mod address;
mod listener;
mod request;
mod server;

pub use address::MetricsAddress;
pub use listener::{MetricsError, MetricsListener};
pub use server::{MetricsServer, Outcome, ServedCounts};
