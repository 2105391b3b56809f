//! What happened to the machine, as bytes, and the channel that takes those to the other host.
//!
//! | module | holds |
//! |---|---|
//! | [`entry`] | what can happen to a machine: the log entries |
//! | [`entry_kind`] | an entry's kind: its number on the wire and its name |
//! | [`entry_codec`] | an entry as bytes, both directions |
//! | [`changes`] | what changed in a page or in a state since it was told of |
//! | [`sequence`] | which entries may follow which |
//! | [`log_header`] | the head of a log file: what was recorded, where, and in which format |
//! | [`log_block`] | the rest of a log file: blocks of entries, each with its CRC |
//! | [`dump`] | an entry as one readable line |
//! | [`entry_stats`] | entries and bytes by kind |
//! | [`seal`] | frames that nobody else can read, change, invent or repeat |
//! | [`handshake`] | from a shared secret to the keys of a session |
//! | [`channel`] | both ends of the logging channel: the log, whole and in order, over a lossy link |
//! | [`endpoint`] | handshake, seal and channel as one: what a host runs |
//! | [`frame`] | one frame of the channel as bytes |
//! | [`liveness`] | whether the peer lives, and how long the primary may speak |
//! | [`stats`] | what a channel counted |
//! | [`ids`], [`time`] | names and times |
//! | [`limits`] | every bound, and how the bounds relate |
//! | [`error`] | what can be wrong with bytes or with a sequence of entries |
//!
//! The crate is pure: it opens no file or socket, reads no clock and draws no random number. Whoever
//! calls it brings the bytes and takes them away. Two kinds of failure are kept apart: bytes that are wrong come back as an
//! error of [`error`], whatever they are, and never panic; an entry that the caller built outside
//! of [`limits`] is a bug of ours and panics, in release builds too.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod channel;
pub mod dump;
pub mod endpoint;
pub mod entry;
pub mod entry_codec;
pub mod entry_kind;
pub mod entry_stats;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod limits;
pub mod liveness;
pub mod log_block;
pub mod log_header;
pub mod page_delta;
pub mod seal;
pub mod sequence;
pub mod stats;
pub mod time;
mod wire;
