//! The states of a replica. [`super`] has the state diagram.

use super::claim::Claim;
use super::precopy::Precopy;
use logchan::ids::{LogSeq, Term};
use logchan::time::Time;

/// The state of this host.
#[derive(Debug)]
pub(super) enum Role {
    /// There is no other host.
    Standalone,
    /// Runs the VM.
    Primary(Primary),
    /// Receives or executes the primary's log.
    Backup(Backup),
    /// This host's part is over. The VM does not run here any more.
    Halted(Halt),
}

/// The states of a primary.
#[derive(Debug)]
pub(super) enum Primary {
    /// Asks the witness: may this VM be booted?
    Starting(Claim),
    /// Holds the claim of its term, and no other host can take over.
    Alone,
    /// As `Alone`, while the memory is sent to a backup and the VM runs (precopy).
    Copying(Precopy),
    /// The backup may be able to take over: output needs its acknowledgement and the lease.
    Protected(Protected),
    /// Sends no more output, and ends its log with a hand-over: the backup claims the next term. This host's
    /// machine waits, in case the backup fails before it goes live.
    HandingOver(HandingOver),
    /// The backup fell silent and may take over at any time, or has taken over. This host claims the next
    /// term, and the witness decides which host continues.
    Losing(Losing),
}

/// State of a primary that hands the VM over.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandingOver {
    pub(super) after: AfterHandover,
    /// When the log is ended: the last output is on the LAN then. `None`: it is ended.
    pub(super) log_ends_at: Option<Time>,
}

/// State of a primary that lost its backup.
#[derive(Debug)]
pub(super) struct Losing {
    pub(super) claim: Claim,
    /// The VM was handed over before; the machine has waited since then.
    pub(super) handed_over: Option<AfterHandover>,
}

/// What a primary does after the other host has taken over what it handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterHandover {
    /// Its part is over.
    Leave,
    /// It becomes the backup.
    Follow,
}

/// State of a primary with a backup.
#[derive(Debug)]
pub(super) struct Protected {
    /// Log position of the closing checkpoint's end: once it is acknowledged, the backup holds the whole VM.
    pub(super) sync_end: LogSeq,
    /// That acknowledgement has arrived, and the event was emitted.
    pub(super) is_confirmed: bool,
}

/// The states of a backup.
#[derive(Debug)]
pub(super) enum Backup {
    /// Has not met a primary.
    Seeking,
    /// Memory is arriving.
    Syncing,
    /// Holds the whole VM and executes the log.
    Following,
    /// The primary fell silent: executes the rest of the log.
    Finishing,
    /// The log is executed to its end. This host claims the next term, and the witness decides.
    Claiming(Claim),
    /// Diverged from the primary, and sends Bye in order to receive the memory again.
    Leaving,
}

/// Why a host's part is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The VM was booted before: another process owns this term.
    AlreadyStarted {
        /// The term.
        term: Term,
    },
    /// The other host won the claim and runs the VM.
    Replaced {
        /// The term that the other host won.
        term: Term,
    },
    /// The VM was handed over, and the other host runs it.
    HandedOver {
        /// The term that the other host won.
        term: Term,
    },
    /// [`Replica::stop`](super::Replica::stop) was called.
    Stopped,
    /// The primary stopped in an orderly way, and the VM with it.
    PrimaryStopped,
    /// The primary is dead, and the VM on this host had diverged from it.
    Diverged,
}

/// Name of a state, as the status shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// There is no other host.
    Standalone,
    /// A primary that claims the first term, to boot the VM.
    Starting,
    /// A primary without a backup.
    Alone,
    /// A primary that copies memory to a backup while the VM runs.
    Copying,
    /// A primary that has sent the closing checkpoint; the backup has not acknowledged it.
    Closing,
    /// A primary whose backup holds the whole VM.
    Protected,
    /// A primary that hands the VM over.
    HandingOver,
    /// A primary that lost its backup and claims the next term, to continue alone.
    Losing,
    /// A backup without a primary.
    Seeking,
    /// A backup that receives the memory.
    Syncing,
    /// A backup that could take over.
    Following,
    /// A backup whose primary fell silent, and that executes the rest of the log.
    Finishing,
    /// A backup that claims the next term, to take over.
    Claiming,
    /// A backup that diverged, and leaves the session in order to sync again.
    Leaving,
    /// This host's part is over.
    Halted,
}

impl RoleName {
    /// All names.
    pub const ALL: [Self; 15] = [
        Self::Standalone,
        Self::Starting,
        Self::Alone,
        Self::Copying,
        Self::Closing,
        Self::Protected,
        Self::HandingOver,
        Self::Losing,
        Self::Seeking,
        Self::Syncing,
        Self::Following,
        Self::Finishing,
        Self::Claiming,
        Self::Leaving,
        Self::Halted,
    ];

    /// Returns the name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Starting => "starting",
            Self::Alone => "alone",
            Self::Copying => "copying",
            Self::Closing => "closing",
            Self::Protected => "protected",
            Self::HandingOver => "handing-over",
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

impl core::fmt::Display for RoleName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
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
                Primary::HandingOver(_) => RoleName::HandingOver,
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
