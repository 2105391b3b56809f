//! Every failure of a command, and its exit code.

use super::link::LinkFailure;
use crate::boot::cpu_features::ModelName;
use crate::boot::{image::ImageError, pvh::PvhError, sweep::SweepError};
use crate::checkpoint::SnapshotError;
use crate::checkpoint::restore::RestoreError;
use crate::devices::ReissueError;
use crate::disk::DiskError;
use crate::files::FileError;
use crate::kvm::KvmError;
use crate::kvm::offered_models::ModelError;
use crate::link::LinkError;
use crate::link::key_file::KeyFileError;
use crate::mem::MemoryError;
use crate::metrics::MetricsError;
use crate::replay::error::{HostError, LogError, SourceError};
use crate::reservation::ReservationError;
use crate::sandbox::SandboxError;
use crate::vcpu::{MachineError, RunError};
use crate::vm_tap::VmTapError;
use logchan::host_profile::ProfileDifference;
use netpath::port::PortError;
use std::io;
use std::path::PathBuf;
use testbed::TestbedError;

/// Exit codes, as `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// An unexpected failure, or a result that can't be written.
    Unexpected = 1,
    /// Wrong usage (clap exits with the same code).
    Usage = 2,
    /// KVM or the host can't run a VM, or a folder can't be a witness.
    Host = 3,
    /// The VM's network port or the interface of the logging channel failed.
    Port = 4,
    /// The guest image or kernel can't be used.
    Image = 5,
    /// A log or a snapshot can't be used.
    Log = 6,
    /// The log or snapshot was made with another CPU model than this host's, or on another kind of host; or this
    /// host does not offer the chosen model.
    CpuModel = 7,
    /// The replay diverged.
    Diverged = 8,
    /// The guest stopped by itself.
    Guest = 9,
    /// The log ends without an end entry.
    Truncated = 10,
    /// A replay was stopped before the end of the log.
    Stopped = 11,
    /// The key of the logging channel can't be used, or no matching peer was found.
    Link = 12,
    /// The peer on the logging channel fell silent, or sent an unexpected entry.
    PeerLost = 13,
    /// The VM of a pair continues on the other host, or can't continue.
    Halted = 14,
    /// No process answers on the status socket.
    NoAnswer = 15,
    /// The host is too slow for a demonstration.
    TooSlow = 16,
    /// An order to the VM can't be carried out.
    Refused = 17,
    /// A disk can't be used, or is not the one of the log or snapshot.
    Disk = 18,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A failure of a command. Displays as one line.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An option has an invalid value, or options do not go together.
    #[error("{0}")]
    Usage(String),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The sandbox of the VM's process can't be entered.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Metrics can't be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A network port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Another VM of this host has what this one needs.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// The pre-shared key of the logging channel can't be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The logging channel failed.
    #[error(transparent)]
    Link(#[from] LinkFailure),
    /// The file of a guest image, kernel or initrd can't be read.
    #[error("guest image {}: {source}", path.display())]
    ImageFile {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// The machine of a log needs more memory than this host can give.
    #[error("log {}: {source}", path.display())]
    LogMemory {
        /// Path of the log.
        path: PathBuf,
        /// Why the memory is not available.
        source: MemoryError,
    },
    /// The guest image is malformed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The guest image has a forbidden instruction.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// The boot data can't be written.
    #[error(transparent)]
    Boot(#[from] PvhError),
    /// A log file can't be used.
    #[error("log {}: {source}", path.display())]
    Log {
        /// Path of the log.
        path: PathBuf,
        /// What is wrong with it.
        source: LogError,
    },
    /// A snapshot can't be used.
    #[error("snapshot {}: {source}", path.display())]
    Snapshot {
        /// Path of the snapshot.
        path: PathBuf,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// A disk can't be opened.
    #[error("disk {0}")]
    Disk(#[from] DiskError),
    /// The image of a disk can't be read.
    #[error("disk {}: {source}", path.display())]
    DiskImage {
        /// Path of the image.
        path: PathBuf,
        /// Error of the system call.
        source: io::Error,
    },
    /// What is known about the images of a pair's disks can't be stored.
    #[error("the superblocks of the disks can't be stored: see the warning above")]
    Superblocks,
    /// The disk given for a log or a snapshot is not the one of its VM.
    #[error("disk {index}, {}, is not {}: {what}", path.display(), source_of.whose())]
    OtherDisk {
        /// What the VM comes from.
        source_of: MachineSource,
        /// Index of the disk.
        index: usize,
        /// Path of the image.
        path: PathBuf,
        /// How they differ.
        what: String,
    },
    /// The snapshot of the Linux guest was not made yet.
    #[error("snapshot {} does not exist: make it with {script}", path.display())]
    NoSnapshot {
        /// Path at which it is expected.
        path: PathBuf,
        /// What makes it.
        script: &'static str,
    },
    /// The VM ended before it could be saved.
    #[error("snapshot {} not written: the VM ended{never}", path.display())]
    NotSaved {
        /// Path of the snapshot.
        path: PathBuf,
        /// What the VM never did, as a clause; empty without `--when`.
        never: String,
    },
    /// Another file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// This host does not offer a CPU model.
    #[error("{0}")]
    ModelNotOffered(ModelError),
    /// The snapshot has another CPU model than the chosen one.
    #[error("snapshot {} has CPU model {theirs}, not {chosen}: leave out --cpu-model", path.display())]
    OtherModel {
        /// Path of the snapshot.
        path: PathBuf,
        /// Model of the snapshot.
        theirs: ModelName,
        /// Value of the option.
        chosen: ModelName,
    },
    /// A log or snapshot from a host with another CPU model.
    #[error("{what} {} was made with CPU model {theirs}, but this host offers {ours}: use it on a host of the same model", path.display())]
    CpuModel {
        /// "log" or "snapshot".
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Name and digest in the file.
        theirs: String,
        /// Name and digest of this host.
        ours: String,
    },
    /// A log or snapshot from a host of another kind.
    #[error(
        "{what} {} was made on another kind of host: {}: {} there, {} here: use it on a host of that kind (see 'understudy doctor')",
        path.display(), difference.name, difference.theirs, difference.ours
    )]
    HostProfile {
        /// "log" or "snapshot".
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The first field that differs.
        difference: ProfileDifference,
    },
    /// The run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The nondeterminism boundary could not be set up.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Another system call failed, for example one for threads or signals.
    #[error("{doing}: {source}")]
    Os {
        /// What the program was doing.
        doing: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
    /// The result can't be written to standard output.
    #[error("can't write to standard output: {0}")]
    Output(io::Error),
    /// The demonstration failed.
    #[error("demo: {0}")]
    Demo(#[from] TestbedError),
    /// The failure was reported already; only the exit code is left.
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

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> CliError {
        match error {
            ModelError::Kvm(error) => error.into(),
            ModelError::Memory(error) => error.into(),
            ModelError::NotOffered { .. } => CliError::ModelNotOffered(error),
        }
    }
}

impl From<VmTapError> for CliError {
    fn from(error: VmTapError) -> CliError {
        match error {
            VmTapError::Port(error) => error.into(),
            VmTapError::Thread(source) => {
                CliError::Os { doing: "starting the thread that watches the tap", source }
            }
        }
    }
}

impl From<LinkError> for CliError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Port(error) => error.into(),
            LinkError::Key(error) => error.into(),
            LinkError::Thread(source) => {
                CliError::Os { doing: "starting the thread that watches the log interface", source }
            }
            LinkError::Config(_) | LinkError::OwnAddress { .. } => {
                CliError::Usage(error.to_string())
            }
        }
    }
}

/// What a machine comes from that runs with the disks that it had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineSource {
    /// A log.
    Log,
    /// A snapshot.
    Snapshot,
}

impl MachineSource {
    /// Returns its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            MachineSource::Log => "log",
            MachineSource::Snapshot => "snapshot",
        }
    }

    fn whose(self) -> &'static str {
        match self {
            MachineSource::Log => "the recorded one",
            MachineSource::Snapshot => "the one of the snapshot",
        }
    }
}

impl From<HostError> for CliError {
    fn from(error: HostError) -> CliError {
        CliError::Source(error.into())
    }
}

impl CliError {
    /// Returns the exit code of this failure.
    pub fn code(&self) -> Code {
        match self {
            CliError::Usage(_) | CliError::Memory(_) | CliError::Metrics(_) => Code::Usage,
            CliError::Kvm(_) | CliError::Sandbox(_) | CliError::LogMemory { .. } => Code::Host,
            CliError::Port(error) => port_code(error),
            CliError::Reservation(ReservationError::Port(error)) => port_code(error),
            CliError::Reservation(ReservationError::Taken { .. }) => Code::Port,
            CliError::Reservation(ReservationError::Os { .. }) => Code::Unexpected,
            CliError::Key(_) => Code::Link,
            CliError::Link(failure) => match failure {
                LinkFailure::NoPeer { .. } | LinkFailure::Refused { .. } => Code::Link,
                LinkFailure::PeerSilent { .. } | LinkFailure::UnexpectedEntry { .. } => {
                    Code::PeerLost
                }
            },
            CliError::ImageFile { .. }
            | CliError::Image(_)
            | CliError::Sweep(_)
            | CliError::Boot(_) => Code::Image,
            CliError::Log { source, .. } => log_code(source),
            CliError::Snapshot { source, .. } => snapshot_code(source),
            CliError::NoSnapshot { .. } => Code::Log,
            CliError::Disk(_)
            | CliError::DiskImage { .. }
            | CliError::Superblocks
            | CliError::OtherDisk { .. } => Code::Disk,
            CliError::NotSaved { .. } => Code::Guest,
            CliError::Demo(TestbedError::TooSlow(_)) => Code::TooSlow,
            CliError::File { .. }
            | CliError::Os { .. }
            | CliError::Output(_)
            | CliError::Demo(_) => Code::Unexpected,
            CliError::CpuModel { .. }
            | CliError::HostProfile { .. }
            | CliError::ModelNotOffered(_)
            | CliError::OtherModel { .. } => Code::CpuModel,
            CliError::Run(error) => match error {
                RunError::Kvm(_) => Code::Host,
                RunError::Source(error) => source_code(error),
                RunError::Restore(error) => restore_code(error),
                RunError::Reissue(ReissueError::Source(error)) => source_code(error),
                RunError::Reissue(ReissueError::Changed { .. }) => Code::Guest,
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
        SourceError::Host(error) => match error {
            HostError::Port(error) => port_code(error),
            HostError::Kvm(_) => Code::Host,
            HostError::Log(error) => log_code(error),
            HostError::Entropy(_) => Code::Unexpected,
        },
        SourceError::Diverged(_) => Code::Diverged,
        SourceError::Stopped => Code::Stopped,
        SourceError::NoDisk { .. } | SourceError::Invalidated => Code::Unexpected,
    }
}

fn port_code(error: &PortError) -> Code {
    match error {
        PortError::RingUnavailable { .. } | PortError::RingFeature { .. } => Code::Host,
        PortError::TunMissing
        | PortError::TunPermission
        | PortError::BadName { .. }
        | PortError::TapMissing { .. }
        | PortError::TapBusy { .. }
        | PortError::TapPermission { .. }
        | PortError::NotATap { .. }
        | PortError::TapMultiQueue { .. }
        | PortError::DescriptorDead { .. }
        | PortError::Unreadable { .. }
        | PortError::InterfaceMissing { .. }
        | PortError::NotEthernet { .. }
        | PortError::MtuTooSmall { .. }
        | PortError::PacketPermission
        | PortError::InterfaceGone { .. }
        | PortError::TapGone { .. }
        | PortError::WrongThread { .. }
        | PortError::NotOpened { .. }
        | PortError::System { .. } => Code::Port,
    }
}

fn snapshot_code(error: &SnapshotError) -> Code {
    match error {
        SnapshotError::Memory(_) => Code::Host,
        SnapshotError::Restore(error) => restore_code(error),
        SnapshotError::Io(_)
        | SnapshotError::File(_)
        | SnapshotError::NotSnapshot
        | SnapshotError::Version { .. }
        | SnapshotError::Schema { .. }
        | SnapshotError::Length { .. }
        | SnapshotError::Checksum { .. }
        | SnapshotError::Malformed { .. }
        | SnapshotError::Disk(_) => Code::Log,
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
        | LogError::File(_)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_that_lacks_a_feature_is_an_unsuitable_host_wherever_it_is_noticed() {
        let lacking = || PortError::RingFeature { feature: "X", purpose: "sending", since: "6.1" };
        let refused = || PortError::RingUnavailable { why: "a seccomp filter hides it" };
        let errors: [CliError; 4] = [
            lacking().into(),
            refused().into(),
            LinkError::from(lacking()).into(),
            HostError::from(lacking()).into(),
        ];
        for error in errors {
            assert_eq!(error.code(), Code::Host, "{error}");
        }
        let missing = PortError::TapMissing { name: "tap0".into() };
        assert_eq!(CliError::from(missing).code(), Code::Port);
    }
}
