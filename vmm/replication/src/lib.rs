//! Replication of one VM on two hosts, as pure state machines.
//!
//! | module | contents |
//! |---|---|
//! | [`boundary`] | the nondeterminism boundary between a machine and everything else |
//! | [`checkpoint`] | checkpoints as data: images, digests, the delta cache |
//! | [`divergence`] | the first difference between a log and the execution that follows it |
//! | [`log_writer`], [`verifier`] | what a live machine does as log entries; comparison of an execution with them |
//! | [`replica`] | the engine of one host of a pair: who may send output, and when to take over |
//! | [`driver`] | the loop that runs a host of a pair, over what a host provides |
//! | [`witness`] | the rules by which a witness grants terms |
//! | [`hold`] | outputs that wait until the backup has acknowledged the log that they need |
//! | [`announce`] | the guest's addresses, and their announcement at a takeover |
//! | [`limits`] | limits of the hold queue and of the announcements |
//! | [`error`] | errors of the boundary |
//!
//! The crate is pure: it opens no file or socket, reads no clock, starts no thread and draws no random
//! number. Times are arguments, and what a host provides comes through traits. The compiler enforces this:
//! the crate is `no_std` and forbids unsafe code, and so are the crates that it uses, or they reach nothing
//! outside the process. The simulators in `tests/` run the same code as a host does.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod announce;
pub mod boundary;
pub mod checkpoint;
pub mod divergence;
pub mod driver;
pub mod error;
pub mod hold;
pub mod limits;
pub mod log_writer;
mod mutant;
pub mod replica;
mod vcpu_parts;
pub mod verifier;
pub mod witness;

pub use announce::{
    AddressesError, AllowedSources, AnnounceStats, Announcement, Announcer, GuestAddresses,
};
pub use divergence::Divergence;
pub use error::BoundaryError;
pub use hold::{Full, Held, HoldLimits, HoldLimitsError, HoldQueue, HoldStats};
pub use mutant::Mutants;
#[cfg(any(test, feature = "mutants"))]
pub use mutant::{DriverMutant, Mutant, WitnessMutant};
pub use pnet::util::MacAddr;
pub use vcpu_parts::{VCPU_PARTS, vcpu_digest};
