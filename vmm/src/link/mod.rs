//! The logging channel on a wire: the pure [`Endpoint`](logchan::endpoint::Endpoint) with a packet
//! port, a clock and the system's randomness.
//!
//! - `ethernet`: [`EthernetLink`], a packet port to one peer
//! - [`header`]: the header of its frames, with the number of the VM
//! - `nic_watch`: the thread that watches the interface and opens it again
//! - `peer_address`: the peer's MAC address, which may change
//! - `reach`: whether frames go to the peer's address or to all stations
//! - `log_link`: [`LogLink`], an endpoint on a wire, without a replica
//! - [`key_file`]: the pre-shared key on disk
//! - [`timing`]: all times of a channel, derived from its silence timeout
//! - [`diagnosis`]: the likeliest reason why no peer was met
//! - [`error`]: errors of opening a link

pub mod diagnosis;
pub mod error;
mod ethernet;
pub mod header;
pub mod key_file;
mod log_link;
mod nic_watch;
mod peer_address;
mod reach;
pub mod timing;

pub use error::LinkError;
pub use ethernet::{BootClock, EthernetLink, LinkOptions, now};
pub use log_link::{LinkReport, LogLink, system_entropy};
pub use peer_address::OtherAddresses;
