//! What a host that went live tells the LAN, so that frames to the VM come to it.
//!
//! The VM's addresses do not change when it moves; the way to it does. Switches learn the way from
//! any frame that the VM's MAC address sends, routers and some hosts from ARP and Neighbour
//! Discovery. So the new host speaks in the VM's name at once, several times, and does not wait
//! until the VM has something to say.
//!
//! ```text
//!   every frame of the guest            at go-live: start
//!   ----> [ GuestAddresses ] --------------------------------> [ Announcer ] ----> the tap
//!          learn, encode, decode                                poll_transmit, poll_timeout
//! ```
//!
//! - [`GuestAddresses`] learns the addresses from what the guest sends, and from nothing else. Both
//!   hosts see the same frames and know the same; a checkpoint carries the rest.
//! - [`Announcer`] makes the frames, in rounds.

mod addresses;
mod announcer;
mod codec;
mod frames;
mod learn;
mod table;

pub use addresses::GuestAddresses;
pub use announcer::{AnnounceStats, Announcer};
pub use codec::{ADDRESSES_BYTES_MAX, ADDRESSES_VERSION, AddressesError};
pub use frames::Announcement;
pub use table::{Evidence, Learned, Station};
