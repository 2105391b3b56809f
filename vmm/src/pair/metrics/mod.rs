//! Metrics of a host of a pair, for Prometheus.
//!
//! ```text
//!   metrics thread                        vcpu0
//!   a client asks
//!   wants a sample  ---- is_wanted ---->  sees it when it publishes the status, every 100 ms
//!   waits           <------ Sample -----  reads its counters and histograms
//!   makes the text
//! ```
//!
//! So a host that nobody asks does nothing for it on `vcpu0`, except for adding up how long the VM was protected.
//!
//! - `board`: [`MetricsBoard`], where the threads meet
//! - `sample`: [`Sample`], what `vcpu0` passes on
//! - `exposition`: [`Exposition`], the text

mod board;
mod exposition;
mod families;
mod sample;

pub use board::MetricsBoard;
pub use exposition::Exposition;
pub(super) use sample::MetricsPublisher;
pub use sample::Sample;
