//! The log of a VM, its encoding, and the logging channel that carries it to the other host.
//!
//! | module | contents |
//! |---|---|
//! | [`entry`] | log entries |
//! | [`entry_kind`] | the kind of an entry: its number on the wire and its name |
//! | [`entry_codec`] | encoding and decoding of entries |
//! | [`page_delta`] | page deltas: the bytes of a page or a state that changed since the log last carried it |
//! | [`sequence`] | the grammar of a log: which entry may follow which |
//! | [`log_header`] | the header of a log file: what was recorded, on which machine, in which format |
//! | [`log_block`] | the body of a log file: blocks of entries, each with a CRC |
//! | [`dump`] | an entry as one line of text |
//! | [`entry_stats`] | number and bytes of entries by kind |
//! | [`seal`] | authenticated encryption of frames, and replay protection |
//! | [`handshake`] | from a pre-shared key to the keys of a session |
//! | [`channel`] | both ends of the logging channel: reliable, ordered delivery over a link that loses frames |
//! | [`endpoint`] | handshake, seal and channel combined: what a host runs |
//! | [`disk_copy`] | messages about the copy of a disk to a new backup |
//! | [`claim`] | what a claim at the witness states, and its authentication |
//! | [`frame`] | encoding and decoding of one frame of the channel |
//! | [`health`] | what a host lacks to run the VM |
//! | [`host_profile`] | how a host's KVM and processor run a guest |
//! | [`liveness`] | the failure detector and the primary's lease |
//! | [`stats`] | counters of a channel |
//! | [`ids`], [`time`] | identifiers, times and durations |
//! | [`limits`] | every limit, and const assertions on how the limits relate |
//! | [`error`] | errors in received bytes and in the order of entries |
//!
//! The crate is pure: it opens no file or socket, reads no clock and draws no random number. The caller
//! passes bytes, times and randomness in, and takes bytes out.
//!
//! Two kinds of failure are kept apart. Bytes that are wrong, whatever they are, are reported as an
//! error of [`error`] and never cause a panic. An entry that the caller built outside of [`limits`] is a
//! bug of this program and panics, in release builds too.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]
extern crate alloc;

pub mod channel;
pub mod claim;
pub mod disk_copy;
pub mod dump;
pub mod endpoint;
pub mod entry;
pub mod entry_codec;
pub mod entry_kind;
pub mod entry_stats;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod health;
pub mod host_profile;
pub mod ids;
pub mod limits;
pub mod liveness;
pub mod log_block;
pub mod log_header;
pub mod page_delta;
pub mod seal;
mod secret;
pub mod sequence;
pub mod stats;
pub mod time;
mod wire;
