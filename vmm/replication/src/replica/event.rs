//! Events that the engine reports, and requests that its driver must carry out.

use super::role::Halt;
use crate::limits::EVENTS_MAX;
use alloc::collections::VecDeque;
use logchan::handshake::{Mismatch, Peer};
use logchan::ids::{Claimant, Term};
use logchan::time::Time;

/// A request to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Claim `term` at the witness, and pass the answer to
    /// [`Replica::handle_witness`](super::Replica::handle_witness).
    Claim {
        /// The term to claim.
        term: Term,
        /// The required owner of the term before; with any other owner the answer is
        /// [`Answer::Unreachable`](super::Answer::Unreachable). `None` for the first term.
        previous: Option<Claimant>,
    },
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
        /// The claimed term.
        term: Term,
    },
    /// A backup attached, and its sync has begun.
    SyncBegun,
    /// The backup holds the whole VM.
    Protected,
    /// The backup fell silent.
    BackupSilent {
        /// When it was last heard.
        heard_at: Time,
    },
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
    /// The last entry of the dead primary's log was executed.
    LogFinished,
    /// This backup went live: it has become the primary.
    WentLive {
        /// The new term.
        term: Term,
    },
    /// This host's VM diverged from the primary's, or the log is malformed.
    Diverged,
    /// This host's part is over.
    Halted(Halt),
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
