//! The logging channel on a wire: the pure [`Endpoint`](logchan::endpoint::Endpoint) with a packet
//! port, a clock and the system's randomness.
//!
//! - `log_link`: [`LogLink`], what a role drives
//! - [`key_file`]: the pre-shared key on disk
//! - [`diagnosis`]: why nobody was met, in words
//! - [`error`]: what can be wrong before the first frame

pub mod diagnosis;
pub mod error;
pub mod key_file;
mod log_link;

pub use error::LinkError;
pub use log_link::{LinkOptions, LinkReport, LogLink, UNSENT_BYTES_MAX, now};
