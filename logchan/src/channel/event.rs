//! Events of a channel.

use crate::ids::{Lane, LogSeq, Term};
use crate::time::Time;

/// What happened in a channel. See [`poll_event`](super::Channel::poll_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame of a newer term arrived, so another host speaks for the VM. Reported once for each term
    /// newer than all before.
    PeerTermNewer {
        /// The newer term.
        term: Term,
    },
    /// The other end has the same role as this one, which is a configuration error. Reported once.
    PeerSameRole,
    /// No sign of life came from the peer within the silence timeout. The channel has ended: it accepts
    /// and sends no more frames, so that no acknowledgement can extend a lease from here on.
    PeerSilent {
        /// Time of the peer's last sign of life.
        heard_at: Time,
    },
    /// The peer's process is gone: its death notice arrived. The channel has ended, as after
    /// [`PeerSilent`](Self::PeerSilent).
    PeerGone,
    /// The peer leaves in good order. The channel has ended, except that it acknowledges the peer's
    /// `Bye` frames.
    PeerBye,
    /// This end has left, after [`bye`](super::Channel::bye).
    Left {
        /// Whether the peer acknowledged it. If not, the peer may declare this end dead.
        confirmed: bool,
    },
    /// The primary has obtained a lease.
    LeaseHeld,
    /// The primary has lost its lease and must not release output.
    LeaseLost,
    /// The peer holds the latency lane up to here, and all of the bulk lane that this requires
    /// ([`require_bulk`](super::Channel::require_bulk)).
    Acked {
        /// End of what the peer holds.
        up_to: LogSeq,
    },
    /// The peer has executed up to here, as it reported with
    /// [`set_executed`](super::Channel::set_executed).
    PeerExecuted {
        /// The position, in the units of the peer's caller.
        up_to: u64,
    },
    /// There is room now for an append that was refused.
    Room {
        /// Lane of the append.
        lane: Lane,
    },
}

/// Events not polled yet. Only the newest of each kind is kept, so this has a fixed size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingEvents {
    pub(super) newer_term: Option<Term>,
    pub(super) same_role: bool,
    pub(super) silent: Option<Time>,
    pub(super) gone: bool,
    pub(super) bye: bool,
    pub(super) left: Option<bool>,
    /// The current state of the lease, if it is not the one reported last.
    pub(super) lease: Option<bool>,
    pub(super) acked: Option<LogSeq>,
    pub(super) executed: Option<u64>,
    pub(super) room: [bool; Lane::ALL.len()],
}

impl PendingEvents {
    /// Takes the next event. Events that end the channel come before the others.
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
        // After a Bye that came before it: that says more.
        if core::mem::take(&mut self.gone) {
            return Some(Event::PeerGone);
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
