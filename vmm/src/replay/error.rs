//! Ways in which the door can fail.

use super::divergence::Divergence;
use crate::checkpoint::MACHINE_SCHEMA;
use crate::kvm::KvmError;
use logchan::error::{BlockError, DecodeError, FieldError, HeaderError, SequenceError};
use netpath::port::PortError;
use std::io;

/// The door failed, or what came through it is not what the log says.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The VM's network port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The timer that kicks.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The replay went another way than the recording.
    #[error(transparent)]
    Diverged(Box<Divergence>),
    /// DeltaCache to stop where there is nothing to end in order.
    #[error("stopped before the end")]
    Stopped,
    /// The machine's state is of no use any more; another machine takes its place.
    #[error("the machine's state was invalidated")]
    Invalidated,
    /// A snapshot could not be written.
    #[error("the snapshot could not be written: {0}")]
    Snapshot(#[from] crate::checkpoint::SnapshotError),
    /// The kernel's entropy.
    #[error("getrandom failed: {0}")]
    Entropy(io::Error),
}

/// A log that can't be written or read. The path is named by whoever opened it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The header is not one of ours, or damaged.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// A block is damaged.
    #[error("damaged at byte {offset}: {source}")]
    Block {
        /// Offset of the block in the file.
        offset: u64,
        /// What is wrong with it.
        source: BlockError,
    },
    /// An entry in a sound block does not decode: it was written wrong.
    #[error("bad entry in the block at byte {offset}: {source}")]
    Entry {
        /// Offset of the block in the file.
        offset: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Entries in an order that no recording has.
    #[error("entries out of order in the block at byte {offset}: {source}")]
    Sequence {
        /// Offset of the block in the file.
        offset: u64,
        /// What is wrong.
        source: SequenceError,
    },
    /// Machine state in bytes of another version.
    #[error("its machine state is of schema {found}, this program reads {MACHINE_SCHEMA}")]
    Schema {
        /// The version in the log.
        found: u16,
    },
    /// Guest time beyond what 64 bits of nanoseconds hold.
    #[error("the guest clock overflows at byte {offset}")]
    Clock {
        /// Offset of the entry in the file.
        offset: u64,
    },
    /// More vCPUs than a machine has here.
    #[error("it has {found} vCPUs, one is supported")]
    Vcpus {
        /// The number in the log.
        found: u16,
    },
    /// A checkpoint tells of changes in what it was not told of, or not so.
    #[error(
        "the checkpoint in the block at byte {offset} does not follow the one before: {source}"
    )]
    DeltaBase {
        /// Offset in the file of where it begins.
        offset: u64,
        /// What does not fit.
        source: FieldError,
    },
    /// The digest that closes a checkpoint does not match it.
    #[error("the checkpoint in the block at byte {offset} does not match its digest")]
    CheckpointDigest {
        /// Offset of the block in the file.
        offset: u64,
    },
    /// The log stops without an `End` entry: the recorder was killed or the file was cut.
    #[error(
        "truncated: it ends without an end entry at byte {offset}, after {natural_exits} exits"
    )]
    Truncated {
        /// Where the last whole block ends.
        offset: u64,
        /// Natural exits that could be replayed.
        natural_exits: u64,
    },
}
