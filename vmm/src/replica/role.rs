//! The states of a replica. The diagram is at the head of [`super`].

use super::claim::Claim;
use super::precopy::Precopy;
use logchan::ids::{LogSeq, Term};

/// What this host is for the VM.
#[derive(Debug)]
pub(super) enum Role {
    /// There is no other host.
    Standalone,
    /// Runs the VM.
    Primary(Primary),
    /// Follows the VM.
    Backup(Backup),
    /// Over. The VM does not run here any more.
    Halted(Halt),
}

/// The states of a primary.
#[derive(Debug)]
pub(super) enum Primary {
    /// Asks the witness whether this VM may be booted.
    Starting(Claim),
    /// Holds the witness for its term, and nobody else can take over.
    Alone,
    /// As `Alone`; a backup that attached is being given the memory beside the running VM.
    Copying(Precopy),
    /// The backup can take over, as far as this host knows: output needs its acknowledgement.
    Protected(Protected),
    /// The backup is lost, and may take over at any time: who may go on, the witness says.
    Losing(Claim),
}

/// A primary with a backup.
#[derive(Debug)]
pub(super) struct Protected {
    /// The backup holds the whole VM when the log is acknowledged up to here.
    pub(super) sync_end: LogSeq,
    /// That was told.
    pub(super) is_confirmed: bool,
}

/// The states of a backup.
#[derive(Debug)]
pub(super) enum Backup {
    /// No primary was met.
    Seeking,
    /// Memory is arriving.
    Syncing,
    /// Holds the whole VM, and executes the log.
    Following,
    /// The primary is silent: executes what is left of the log.
    Finishing,
    /// The log is over: who may go on, the witness says.
    Claiming(Claim),
    /// Differs from the primary, and says goodbye to be given the memory again.
    Leaving,
}

/// Why a replica is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The VM was started before: this term has a speaker.
    AlreadyStarted {
        /// The term.
        term: Term,
    },
    /// The other host went on with the VM.
    Replaced {
        /// In this term.
        term: Term,
    },
    /// Somebody asked for it.
    Stopped,
    /// The primary stopped in good order, and the VM with it.
    PrimaryStopped,
    /// The primary is gone, and what is here is not what it was.
    Diverged,
}

/// A role's name, as a status shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// There is no other host.
    Standalone,
    /// A primary that asks whether it may boot.
    Starting,
    /// A primary without a backup.
    Alone,
    /// A primary that copies memory to a backup.
    Copying,
    /// A primary whose backup does not hold the whole VM yet, but is about to.
    Closing,
    /// A primary with a backup.
    Protected,
    /// A primary that asks whether it may go on alone.
    Losing,
    /// A backup without a primary.
    Seeking,
    /// A backup that is given the memory.
    Syncing,
    /// A backup that could take over.
    Following,
    /// A backup that executes the last of the log.
    Finishing,
    /// A backup that asks whether it may take over.
    Claiming,
    /// A backup that has to begin anew.
    Leaving,
    /// Over.
    Halted,
}

impl RoleName {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Standalone,
        Self::Starting,
        Self::Alone,
        Self::Copying,
        Self::Closing,
        Self::Protected,
        Self::Losing,
        Self::Seeking,
        Self::Syncing,
        Self::Following,
        Self::Finishing,
        Self::Claiming,
        Self::Leaving,
        Self::Halted,
    ];

    /// In lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Starting => "starting",
            Self::Alone => "alone",
            Self::Copying => "copying",
            Self::Closing => "closing",
            Self::Protected => "protected",
            Self::Losing => "losing",
            Self::Seeking => "seeking",
            Self::Syncing => "syncing",
            Self::Following => "following",
            Self::Finishing => "finishing",
            Self::Claiming => "claiming",
            Self::Leaving => "leaving",
            Self::Halted => "halted",
        }
    }
}

impl std::fmt::Display for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Role {
    pub(super) fn name(&self) -> RoleName {
        match self {
            Role::Standalone => RoleName::Standalone,
            Role::Primary(primary) => match primary {
                Primary::Starting(_) => RoleName::Starting,
                Primary::Alone => RoleName::Alone,
                Primary::Copying(_) => RoleName::Copying,
                Primary::Protected(Protected { is_confirmed: false, .. }) => RoleName::Closing,
                Primary::Protected(Protected { is_confirmed: true, .. }) => RoleName::Protected,
                Primary::Losing(_) => RoleName::Losing,
            },
            Role::Backup(backup) => match backup {
                Backup::Seeking => RoleName::Seeking,
                Backup::Syncing => RoleName::Syncing,
                Backup::Following => RoleName::Following,
                Backup::Finishing => RoleName::Finishing,
                Backup::Claiming(_) => RoleName::Claiming,
                Backup::Leaving => RoleName::Leaving,
            },
            Role::Halted(_) => RoleName::Halted,
        }
    }
}
