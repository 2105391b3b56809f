//! What can go wrong from a user's point of view, and the exit code of each.

use super::link::LinkFailure;
use crate::boot::{image::ImageError, pvh::PvhError, sweep::SweepError};
use crate::checkpoint::SnapshotError;
use crate::checkpoint::restore::RestoreError;
use crate::demo::DemoError;
use crate::kvm::KvmError;
use crate::link::LinkError;
use crate::link::key_file::KeyFileError;
use crate::mem::MemoryError;
use crate::replay::error::{LogError, SourceError};
use crate::vcpu::{MachineError, RunError};
use netpath::port::PortError;
use std::io;
use std::path::PathBuf;

/// Exit codes, as `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Something nobody expected, or a result that can't be written.
    Unexpected = 1,
    /// Wrong usage (clap's own code).
    Usage = 2,
    /// KVM or the host.
    Host = 3,
    /// A network port: the VM's, or the logging channel's interface.
    Port = 4,
    /// The guest image.
    Image = 5,
    /// The log, or a snapshot.
    Log = 6,
    /// The CPU model of a log or snapshot is not this host's.
    CpuModel = 7,
    /// The replay diverged.
    Diverged = 8,
    /// The guest stopped by itself.
    Guest = 9,
    /// The log ends without an end entry.
    Truncated = 10,
    /// A replay was told to stop before the log's end.
    Stopped = 11,
    /// The logging channel's key is of no use, or nobody was met who fits.
    Link = 12,
    /// The peer on the logging channel fell silent, or said what it must not.
    PeerLost = 13,
    /// The VM of a pair goes on elsewhere, or cannot go on.
    Halted = 14,
    /// Nobody answers who could tell a status.
    NoAnswer = 15,
    /// The host is too slow for a demonstration.
    TooSlow = 16,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Every failure of a command, one line each.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An option's value, or a combination of them.
    #[error("{0}")]
    Usage(String),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A network port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The pre-shared key of the logging channel.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The logging channel.
    #[error(transparent)]
    Link(#[from] LinkFailure),
    /// The guest image's file.
    #[error("guest image {}: {source}", path.display())]
    ImageFile {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A log whose machine needs memory that this host does not have.
    #[error("log {}: {source}", path.display())]
    LogMemory {
        /// Which.
        path: PathBuf,
        /// What is lacking.
        source: MemoryError,
    },
    /// The guest image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A forbidden instruction in it.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// Boot data.
    #[error(transparent)]
    Boot(#[from] PvhError),
    /// A log file.
    #[error("log {}: {source}", path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: LogError,
    },
    /// A snapshot.
    #[error("snapshot {}: {source}", path.display())]
    Snapshot {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// A snapshot that nobody has made yet.
    #[error("snapshot {} is not there: make it with scripts/linux-guest.sh", path.display())]
    NoSnapshot {
        /// Where it would be.
        path: PathBuf,
    },
    /// The VM ended before there was anything to save.
    #[error("snapshot {}: not written: the VM ended{never}", path.display())]
    NotSaved {
        /// Which.
        path: PathBuf,
        /// What it never did, as a clause; empty if nothing was waited for.
        never: String,
    },
    /// Another file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A log from a host with another CPU.
    #[error("{what} {} was made with CPU model {theirs}, this host offers {ours}: use it on a host of the same model", path.display())]
    CpuModel {
        /// "log" or "snapshot".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Name and digest in the log.
        theirs: String,
        /// Name and digest here.
        ours: String,
    },
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Setting up the run.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Threads, signals.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The result, on standard output.
    #[error("can't write to standard output: {0}")]
    Output(io::Error),
    /// The demonstration.
    #[error("demo: {0}")]
    Demo(#[from] DemoError),
    /// Everything was said already.
    #[error("")]
    Silent(Code),
}

impl From<MachineError> for CliError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Memory(error) => error.into(),
            MachineError::Kvm(error) => error.into(),
        }
    }
}

impl From<LinkError> for CliError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Port(error) => error.into(),
            LinkError::Key(error) => error.into(),
            LinkError::Config(_) | LinkError::OwnAddress { .. } => {
                CliError::Usage(error.to_string())
            }
        }
    }
}

impl CliError {
    /// The exit code of this failure.
    pub fn code(&self) -> Code {
        match self {
            CliError::Usage(_) | CliError::Memory(_) => Code::Usage,
            CliError::Kvm(_) | CliError::LogMemory { .. } => Code::Host,
            CliError::Port(_) => Code::Port,
            CliError::Key(_) => Code::Link,
            CliError::Link(failure) => match failure {
                LinkFailure::NobodyMet { .. } | LinkFailure::Refused { .. } => Code::Link,
                LinkFailure::PeerSilent { .. } | LinkFailure::Foreign { .. } => Code::PeerLost,
            },
            CliError::ImageFile { .. }
            | CliError::Image(_)
            | CliError::Sweep(_)
            | CliError::Boot(_) => Code::Image,
            CliError::Log { source, .. } => log_code(source),
            CliError::Snapshot { source, .. } => snapshot_code(source),
            CliError::NoSnapshot { .. } => Code::Log,
            CliError::NotSaved { .. } => Code::Guest,
            CliError::Demo(DemoError::TooSlow(_)) => Code::TooSlow,
            CliError::File { .. }
            | CliError::Os { .. }
            | CliError::Output(_)
            | CliError::Demo(_) => Code::Unexpected,
            CliError::CpuModel { .. } => Code::CpuModel,
            CliError::Run(error) => match error {
                RunError::Kvm(_) => Code::Host,
                RunError::Source(error) => source_code(error),
                RunError::Restore(error) => restore_code(error),
                RunError::Guest { .. }
                | RunError::HaltedForever { .. }
                | RunError::Reset { .. } => Code::Guest,
            },
            CliError::Source(error) => source_code(error),
            CliError::Silent(code) => *code,
        }
    }
}

fn source_code(error: &SourceError) -> Code {
    match error {
        SourceError::Port(_) => Code::Port,
        SourceError::Kvm(_) => Code::Host,
        SourceError::Log(error) => log_code(error),
        SourceError::Diverged(_) => Code::Diverged,
        SourceError::Stopped => Code::Stopped,
        SourceError::Snapshot(error) => snapshot_code(error),
        SourceError::Invalidated => Code::Unexpected,
        SourceError::Entropy(_) => Code::Unexpected,
    }
}

fn snapshot_code(error: &SnapshotError) -> Code {
    match error {
        SnapshotError::Memory(_) => Code::Host,
        SnapshotError::Restore(error) => restore_code(error),
        SnapshotError::Io(_)
        | SnapshotError::NotSnapshot
        | SnapshotError::Version { .. }
        | SnapshotError::Schema { .. }
        | SnapshotError::Length { .. }
        | SnapshotError::Checksum { .. }
        | SnapshotError::Malformed { .. } => Code::Log,
    }
}

fn restore_code(error: &RestoreError) -> Code {
    match error {
        RestoreError::Checkpoint(_) => Code::Log,
        RestoreError::ExitOpen { .. } => Code::Diverged,
        RestoreError::Kvm(_) => Code::Host,
    }
}

fn log_code(error: &LogError) -> Code {
    match error {
        LogError::Truncated { .. } => Code::Truncated,
        LogError::Io(_)
        | LogError::Header(_)
        | LogError::Block { .. }
        | LogError::Entry { .. }
        | LogError::Sequence { .. }
        | LogError::Schema { .. }
        | LogError::Vcpus { .. }
        | LogError::Clock { .. }
        | LogError::DeltaBase { .. }
        | LogError::CheckpointDigest { .. } => Code::Log,
    }
}
