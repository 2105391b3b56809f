//! What a replica tells people, and whom it has to ask.

use super::role::Halt;
use logchan::handshake::{Mismatch, Peer};
use logchan::ids::{Claimant, Term};
use logchan::time::Time;
use std::collections::VecDeque;

/// Somebody outside of the pair has to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the witness whether `term` can be ours:
    /// [`Replica::handle_witness`](super::Replica::handle_witness).
    Claim {
        /// The term.
        term: Term,
        /// Who must own the term before; otherwise the answer is
        /// [`Answer::Unreachable`](super::Answer::Unreachable). `None`: there is none before.
        previous: Option<Claimant>,
    },
}

/// Something that the owner of a VM would like to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaEvent {
    /// The other host was met.
    PeerMet {
        /// Which.
        peer: Peer,
        /// The term of the session.
        term: Term,
    },
    /// The other host does not fit.
    PeerRefused {
        /// Why.
        mismatch: Mismatch,
        /// Whether it says so now; otherwise it may be a recording.
        proven: bool,
    },
    /// The witness gave us a term: we are the only one to speak for the VM in it.
    TermWon {
        /// The term.
        term: Term,
    },
    /// The witness can't be reached: nothing changes before it can.
    WitnessUnreachable {
        /// The term that we asked for.
        term: Term,
    },
    /// A backup is being given the memory.
    SyncBegun,
    /// The backup holds the whole VM.
    Protected,
    /// The backup fell silent.
    BackupSilent {
        /// When it was last heard.
        heard_at: Time,
    },
    /// The backup said goodbye.
    BackupLeft,
    /// The whole VM is here: we follow.
    Following,
    /// The primary fell silent.
    PrimarySilent {
        /// When it was last heard.
        heard_at: Time,
        /// Whether the whole VM is here.
        whole: bool,
    },
    /// The last entry of the dead primary's log was executed.
    LogFinished,
    /// The VM lives here.
    WentLive {
        /// In this term.
        term: Term,
    },
    /// This host's VM differs from the primary's, or the log makes no sense.
    Diverged,
    /// It is over.
    Halted(Halt),
}

/// Events that were not fetched; beyond this many the oldest gives way.
const EVENTS_MAX: usize = 64;

/// Events in order.
#[derive(Debug)]
pub(super) struct Events(VecDeque<ReplicaEvent>);

impl Events {
    pub(super) fn new() -> Events {
        Events(VecDeque::with_capacity(EVENTS_MAX))
    }

    pub(super) fn push(&mut self, event: ReplicaEvent) {
        if self.0.len() == EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(super) fn take(&mut self) -> Option<ReplicaEvent> {
        self.0.pop_front()
    }
}
