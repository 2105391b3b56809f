//! Sessions: those in use, and those that wait for proof of a living peer.

use alloc::vec::Vec;

use super::noise::SessionKeys;
use super::report::Peer;
use super::{ANSWER_BURST, ANSWER_EACH, PENDING_MAX};
use crate::seal::{Opener, Protection, Sealer};
use crate::time::Time;

/// Both directions of one session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: Peer,
    pub(super) key_id: u32,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
}

impl Session {
    pub(super) fn new(protection: Protection, keys: &SessionKeys, peer: Peer) -> Session {
        Session {
            peer,
            key_id: keys.key_id,
            sealer: Sealer::new(protection, &keys.send, keys.key_id),
            opener: Opener::new(protection, &keys.receive, keys.key_id),
        }
    }
}

/// Whether a pending session may become current when its first frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingState {
    /// It may.
    Fresh,
    /// It may, but our own attempt in progress began later.
    BeforeOurs,
    /// It must not: a later session became current. Frames sealed in it are opened.
    Superseded,
}

/// A session that we answered with a response.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) session: Session,
    pub(super) state: PendingState,
    pub(super) expires: Time,
}

/// At most [`PENDING_MAX`] pending sessions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct PendingList(Vec<Pending>);

impl PendingList {
    /// Adds a session. If the list is full, the oldest one is dropped.
    pub(super) fn push(&mut self, pending: Pending) {
        if self.0.len() == PENDING_MAX {
            self.0.remove(0);
        }
        self.0.push(pending);
    }

    /// Returns the index of a session.
    pub(super) fn position(&self, key_id: u32) -> Option<usize> {
        self.0.iter().position(|pending| pending.session.key_id == key_id)
    }

    /// Drops the sessions of other incarnations.
    pub(super) fn retain_incarnation(&mut self, incarnation: u64) {
        self.0.retain(|pending| pending.session.peer.incarnation == incarnation);
    }

    /// Returns all pending sessions.
    pub(super) fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.0.iter_mut().map(|pending| &mut pending.session)
    }

    pub(super) fn session_mut(&mut self, position: usize) -> &mut Session {
        &mut self.0[position].session
    }

    /// The peer has shown that it has the keys of this session. Removes and returns the session, to
    /// become current, unless it is superseded. All earlier ones are superseded then.
    pub(super) fn activate(&mut self, position: usize) -> Option<Session> {
        if self.0[position].state == PendingState::Superseded {
            return None;
        }
        let older = &mut self.0[..position];
        older.iter_mut().for_each(|older| older.state = PendingState::Superseded);
        Some(self.0.remove(position).session)
    }

    /// Notes that an attempt of our own begins.
    pub(super) fn begin_attempt(&mut self) {
        for pending in &mut self.0 {
            if pending.state == PendingState::Fresh {
                pending.state = PendingState::BeforeOurs;
            }
        }
    }

    /// Notes that our attempt has ended with a session. Supersedes the pending sessions from before the
    /// attempt, and, if `ours_first`, also those that crossed it: both ends must keep the same one of
    /// two.
    pub(super) fn end_attempt(&mut self, ours_first: bool) {
        for pending in &mut self.0 {
            if ours_first || pending.state == PendingState::BeforeOurs {
                pending.state = PendingState::Superseded;
            }
        }
    }

    /// Lets all sessions become current again: a planted bug.
    pub(super) fn revive(&mut self) {
        self.0.iter_mut().for_each(|pending| pending.state = PendingState::Fresh);
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.0.retain(|pending| now < pending.expires);
    }

    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.0.iter().map(|pending| pending.expires).min()
    }
}

/// A token bucket that limits the rate of responses.
#[derive(Debug)]
pub(super) struct AnswerBudget {
    left: u32,
    /// The time up to which `left` is accounted for.
    at: Time,
}

impl AnswerBudget {
    pub(super) fn new() -> AnswerBudget {
        AnswerBudget { left: ANSWER_BURST, at: Time::default() }
    }

    /// Takes a token. Returns whether there was one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let earned = now.since(self.at).as_nanos() / ANSWER_EACH.as_nanos();
        if earned >= u64::from(ANSWER_BURST - self.left) {
            self.left = ANSWER_BURST;
            self.at = self.at.max(now);
        } else {
            self.left += earned as u32;
            self.at = self.at + ANSWER_EACH * earned;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn answer_budget_is_spent_and_refilled_in_time() {
        let mut budget = AnswerBudget::new();
        let start = Time::default() + ANSWER_EACH * 7;
        let just_less = ANSWER_EACH.saturating_sub(Duration::from_nanos(1));
        for _ in 0..ANSWER_BURST {
            assert!(budget.take(start));
        }
        assert!(!budget.take(start));
        assert!(!budget.take(start + just_less));
        assert!(budget.take(start + ANSWER_EACH));
        assert!(!budget.take(start + ANSWER_EACH + just_less));
        let later = start + ANSWER_EACH * 100;
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), ANSWER_BURST as usize);
        // A clock that stands still or goes back adds no tokens.
        assert!(!budget.take(start));
    }
}
