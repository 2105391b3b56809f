//! Errors of a host that runs a VM, and of a log file.

use crate::files::FileError;
use crate::kvm::KvmError;
use logchan::error::{BlockError, DecodeError, FieldError, HeaderError, SequenceError};
use netpath::port::PortError;
use replication::BoundaryError;
use std::io;

/// Why a question to the nondeterminism boundary got no answer on this host.
pub type SourceError = BoundaryError<HostError>;

/// The host failed while it ran a VM.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The VM's network port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The timer that kicks the vCPU failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The log cannot be written or read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The kernel gave no entropy.
    #[error("getrandom failed: {0}")]
    Entropy(io::Error),
}

/// A log that cannot be written or read. The caller that opened it adds the path.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The header is damaged, or the file is not a log.
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
    /// An entry in an undamaged block does not decode: the writer wrote it wrong.
    #[error("invalid entry in the block at byte {offset}: {source}")]
    Entry {
        /// Offset of the block in the file.
        offset: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The entries have an order that no recording produces.
    #[error("entries out of order in the block at byte {offset}: {source}")]
    Sequence {
        /// Offset of the block in the file.
        offset: u64,
        /// What is wrong with the order.
        source: SequenceError,
    },
    /// The machine state is encoded in another version of the schema.
    #[error(
        "its machine state is of schema {found}, this program reads {read}: replay it with the version that recorded it"
    )]
    Schema {
        /// The version in the log.
        found: u16,
        /// The version that this program reads.
        read: u16,
    },
    /// Guest time exceeds 64 bits of nanoseconds.
    #[error("the guest clock overflows at byte {offset}")]
    Clock {
        /// Offset of the entry in the file.
        offset: u64,
    },
    /// The log is of a machine with more vCPUs than are supported.
    #[error("it has {found} vCPUs, but only one is supported")]
    Vcpus {
        /// The number in the log.
        found: u16,
    },
    /// A checkpoint contains a delta to contents that the delta cache does not have.
    #[error("the checkpoint in the block at byte {offset} does not fit the previous one: {source}")]
    DeltaBase {
        /// Offset in the file at which the checkpoint begins.
        offset: u64,
        /// Why the delta cannot be applied.
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
        /// Offset at which the last whole block ends.
        offset: u64,
        /// Natural exits that the log still covers.
        natural_exits: u64,
    },
}
