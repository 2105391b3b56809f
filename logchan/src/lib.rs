//! What happened to the machine, as bytes.
//!
//! | module | holds |
//! |---|---|
//! | [`entry`] | what can happen to a machine: the log entries |
//! | [`entry_kind`] | an entry's kind: its number on the wire and its name |
//! | [`entry_codec`] | an entry as bytes, both directions |
//! | [`sequence`] | which entries may follow which |
//! | [`log_header`] | the head of a log file: what was recorded, where, and in which format |
//! | [`log_block`] | the rest of a log file: blocks of entries, each with its CRC |
//! | [`dump`] | an entry as one readable line |
//! | [`entry_stats`] | entries and bytes by kind |
//! | [`limits`] | every bound, and how the bounds relate |
//! | [`error`] | what can be wrong with bytes or with a sequence of entries |
//!
//! The crate is pure: it opens no file and reads no clock. Whoever calls it brings the bytes and
//! takes them away. Two kinds of failure are kept apart: bytes that are wrong come back as an
//! error of [`error`], whatever they are, and never panic; an entry that the caller built outside
//! of [`limits`] is a bug of ours and panics, in release builds too.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod dump;
pub mod entry;
pub mod entry_codec;
pub mod entry_kind;
pub mod entry_stats;
pub mod error;
pub mod limits;
pub mod log_block;
pub mod log_header;
pub mod sequence;
mod wire;
