//! Takeover announcements: frames that redirect the VM's traffic to the host that went live.
//!
//! The VM keeps its addresses when it moves, but its port on the LAN changes. Switches learn the new
//! port from any frame with the VM's source MAC address; routers and some hosts need ARP or Neighbour
//! Discovery. The new host therefore sends announcements in the VM's name immediately and repeats
//! them, instead of waiting for the guest to send something.
//!
//! ```text
//!   every frame the guest sends         at go-live: start
//!   ----> [ GuestAddresses ] --------------------------------> [ Announcer ] ----> the tap
//!          learn, encode, decode                                poll_transmit, poll_timeout
//! ```
//!
//! - [`GuestAddresses`] learns the addresses from the frames that the guest sends, and from nothing
//!   else. Both hosts see the same frames and so learn the same addresses; a checkpoint carries what
//!   was learned before it.
//! - [`AllowedSources`] says which addresses the guest may use; nothing is learned from its other frames.
//! - [`Announcer`] builds the frames, in rounds.

mod addresses;
mod announcer;
mod codec;
mod frames;
mod learn;
mod pnet_address;
mod sources;
mod table;

pub use addresses::GuestAddresses;
pub use announcer::{AnnounceStats, Announcer};
pub use codec::{ADDRESSES_BYTES_MAX, ADDRESSES_VERSION, AddressesError};
pub use frames::Announcement;
pub use sources::AllowedSources;
pub use table::{Evidence, Learned, Station};
