//! Events that the engine reports, and requests that its driver must carry out.

use super::disk::{DiskFault, DisksCopied};
use super::resync::{SyncDelay, SyncLoss};
use super::role::Halt;
use super::stall::StallCause;
use crate::limits::EVENTS_MAX;
use crate::witness::Question;
use alloc::collections::VecDeque;
use logchan::handshake::{Mismatch, Peer};
use logchan::health::Unfit;
use logchan::ids::Term;
use logchan::time::Time;

/// A request to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the witness, and pass the answer to
    /// [`Replica::handle_witness`](super::Replica::handle_witness).
    Ask(Question),
}

/// A change that the VM's operator should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaEvent {
    /// The handshake with the other host is complete.
    PeerMet {
        /// The other host.
        peer: Peer,
        /// The term of the session.
        term: Term,
    },
    /// The other host's configuration does not match.
    PeerRefused {
        /// The difference.
        mismatch: Mismatch,
        /// The peer proved that it is there now; otherwise the message may be a replayed recording.
        proven: bool,
    },
    /// The witness granted a term: in it, only this host may send output for the VM.
    TermWon {
        /// The term.
        term: Term,
    },
    /// The witness can't be reached. The claim is repeated, and the role does not change until it answers.
    WitnessUnreachable {
        /// The claimed term; the host's own before it has claimed one.
        term: Term,
    },
    /// The witness does not answer any more, while no claim is made: no host can take over.
    WitnessLost,
    /// The witness answers again.
    WitnessBack,
    /// The VM has ended, and the witness could not be told: to boot it, an operator must say that no host runs it.
    ReleaseFailed,
    /// A backup attached, and its sync has begun.
    SyncBegun,
    /// A backup attached again whose protection did not last: its sync begins later.
    SyncDelayed(SyncDelay),
    /// The backup is heard, and the sync can't be completed: see [`StallCause`]. Reported once for each sync.
    SyncStalled {
        /// Since when.
        since: Time,
        /// Why.
        cause: StallCause,
    },
    /// The guest gets a smaller share of time, because it writes memory about as fast as the log link carries it, or
    /// faster: otherwise the copy would not come to an end. The share may become smaller still.
    GuestSlowed {
        /// Pages that were written while as many were sent.
        pages: u64,
        /// What the link carries, bytes per second.
        carried_per_s: u64,
    },
    /// The guest gets a smaller share of time, because it writes to its disks about as fast as they are copied, or faster.
    /// The share may become smaller still.
    GuestSlowedForDisks {
        /// Bytes that are left to copy.
        bytes_left: u64,
    },
    /// The guest is not slowed any more: the copy is complete, or was given up.
    GuestNotSlowed,
    /// The sync is given up, although the backup is there.
    SyncGivenUp(SyncLoss),
    /// The backup has all disks.
    DisksCopied(DisksCopied),
    /// The backup holds the whole VM.
    Protected,
    /// This primary hands the VM over, and sends no more output.
    HandingOver,
    /// The backup did not take over what was handed over: this host continues the VM.
    HandoverFailed,
    /// Frames can't pass between the VM and the LAN on this host.
    LanLost,
    /// They can again.
    LanBack,
    /// What the backup lacks to run the VM has changed.
    BackupHealth {
        /// What it lacks now.
        unfit: Unfit,
    },
    /// The backup fell silent.
    BackupSilent {
        /// When it was last heard.
        heard_at: Time,
    },
    /// The backup is heard, and no output may leave: see [`StallCause`].
    BackupStalled {
        /// Since when.
        since: Time,
        /// Why.
        cause: StallCause,
    },
    /// The backup's process is gone, as its supervisor says.
    BackupGone,
    /// The backup sent Bye.
    BackupLeft,
    /// This backup holds the whole VM and executes the log.
    Following,
    /// The primary fell silent.
    PrimarySilent {
        /// When it was last heard.
        heard_at: Time,
        /// This backup holds the whole VM.
        whole: bool,
    },
    /// The primary's process is gone, as its supervisor says.
    PrimaryGone {
        /// This backup holds the whole VM.
        whole: bool,
    },
    /// The last entry of the dead primary's log was executed.
    LogFinished,
    /// This backup went live: it has become the primary.
    WentLive {
        /// The new term.
        term: Term,
    },
    /// This host's VM diverged from the primary's, or the log is malformed.
    Diverged,
    /// A disk of this backup does not follow the primary's: this host leaves, and the primary continues without it.
    DiskFault(DiskFault),
    /// This host's part is over.
    Halted(Halt),
}

/// How this host knows that the other one is dead. Both have the same consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was silent for the silence timeout.
    Silent {
        /// When it was last heard.
        heard_at: Time,
    },
    /// Its supervisor has said so.
    Gone,
}

impl Loss {
    /// Returns the event on a primary, which has lost its backup.
    pub(super) fn of_backup(self) -> ReplicaEvent {
        match self {
            Loss::Silent { heard_at } => ReplicaEvent::BackupSilent { heard_at },
            Loss::Gone => ReplicaEvent::BackupGone,
        }
    }

    /// Returns the event on a backup, which has lost its primary. `whole`: it holds the whole VM.
    pub(super) fn of_primary(self, whole: bool) -> ReplicaEvent {
        match self {
            Loss::Silent { heard_at } => ReplicaEvent::PrimarySilent { heard_at, whole },
            Loss::Gone => ReplicaEvent::PrimaryGone { whole },
        }
    }
}

/// Queue of events, oldest first.
#[derive(Debug)]
pub(super) struct Events(VecDeque<ReplicaEvent>);

impl Events {
    pub(super) fn new() -> Events {
        Events(VecDeque::with_capacity(EVENTS_MAX))
    }

    /// Appends `event`, and returns whether the oldest event had to make room for it.
    pub(super) fn push(&mut self, event: ReplicaEvent) -> bool {
        let is_full = self.0.len() == EVENTS_MAX;
        if is_full {
            self.0.pop_front();
        }
        self.0.push_back(event);
        is_full
    }

    pub(super) fn take(&mut self) -> Option<ReplicaEvent> {
        self.0.pop_front()
    }
}
