//! What a channel has to tell.

use crate::ids::{Lane, LogSeq, Term};
use crate::time::Time;

/// What happened. See [`poll_event`](super::Channel::poll_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame of a newer term arrived: somebody else speaks for the VM. Told once for each term
    /// that is newer than all before.
    PeerTermNewer {
        /// Its term.
        term: Term,
    },
    /// The other end has the role of this one: a mistake in its configuration. Told once.
    PeerSameRole,
    /// The peer was not heard for the silence timeout. The channel is over: it hears and sends
    /// nothing more, so that no acknowledgement can extend a lease from here on.
    PeerSilent {
        /// When it was last heard.
        heard_at: Time,
    },
    /// The peer stops in good order. The channel is over but for acknowledging that.
    PeerBye,
    /// This end has left, after [`bye`](super::Channel::bye).
    Left {
        /// The peer acknowledged it; otherwise it may take the silence for death.
        confirmed: bool,
    },
    /// The primary has a lease that it had not before.
    LeaseHeld,
    /// The primary has no lease any more: nothing may be released.
    LeaseLost,
    /// The peer holds everything of the latency lane before `up_to`, and what that needs of the
    /// bulk lane ([`require_bulk`](super::Channel::require_bulk)).
    Acked {
        /// The position.
        up_to: LogSeq,
    },
    /// The peer has executed up to here: what it said with
    /// [`set_executed`](super::Channel::set_executed).
    PeerExecuted {
        /// The position, in the units of whoever set it.
        up_to: u64,
    },
    /// An append that was refused has room now.
    Room {
        /// In this lane.
        lane: Lane,
    },
}

/// Events that were not polled yet. Of each kind only the newest counts, so this never grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingEvents {
    pub(super) newer_term: Option<Term>,
    pub(super) same_role: bool,
    pub(super) silent: Option<Time>,
    pub(super) bye: bool,
    pub(super) left: Option<bool>,
    /// The lease as it is now, if that is not what was told last.
    pub(super) lease: Option<bool>,
    pub(super) acked: Option<LogSeq>,
    pub(super) executed: Option<u64>,
    pub(super) room: [bool; Lane::ALL.len()],
}

impl PendingEvents {
    /// The next one: what ends a channel before what it did.
    pub(super) fn take(&mut self) -> Option<Event> {
        if let Some(term) = self.newer_term.take() {
            return Some(Event::PeerTermNewer { term });
        }
        if core::mem::take(&mut self.same_role) {
            return Some(Event::PeerSameRole);
        }
        if let Some(heard_at) = self.silent.take() {
            return Some(Event::PeerSilent { heard_at });
        }
        if core::mem::take(&mut self.bye) {
            return Some(Event::PeerBye);
        }
        if let Some(confirmed) = self.left.take() {
            return Some(Event::Left { confirmed });
        }
        if let Some(held) = self.lease.take() {
            return Some(if held { Event::LeaseHeld } else { Event::LeaseLost });
        }
        if let Some(up_to) = self.acked.take() {
            return Some(Event::Acked { up_to });
        }
        if let Some(up_to) = self.executed.take() {
            return Some(Event::PeerExecuted { up_to });
        }
        let lane = Lane::ALL.into_iter().find(|lane| self.room[lane.index()])?;
        self.room[lane.index()] = false;
        Some(Event::Room { lane })
    }
}
