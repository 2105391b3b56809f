//! A claim in progress: asked, repeated until the witness answers.

use logchan::ids::{Claimant, Term};
use logchan::time::{Duration, Time};

/// The witness's answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This process owns the term, by this claim or by an earlier one.
    Won,
    /// Another process owns the term.
    Lost,
    /// No answer. The claim may or may not have been made.
    Unreachable,
}

/// A claim in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) term: Term,
    /// The required owner of the term before: any other owner means that this is not the witness that granted
    /// that term. `None` for the term in which the VM is booted.
    pub(super) previous: Option<Claimant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The witness must be asked now.
    Due,
    /// The witness was asked and has not answered.
    Asked,
    /// The witness did not answer; ask again at this time.
    RetryAt(Time),
}

impl Claim {
    /// Creates the claim of the term in which a VM is booted.
    pub(super) fn first(term: Term) -> Claim {
        Claim { term, previous: None, state: State::Due }
    }

    /// Creates the claim of the term after `term`, which `owner` holds.
    pub(super) fn after(term: Term, owner: Claimant) -> Claim {
        Claim { term: Term(term.0 + 1), previous: Some(owner), state: State::Due }
    }

    /// Returns whether the witness must be asked now, and marks the claim as asked if so.
    pub(super) fn take_due(&mut self) -> bool {
        let due = self.state == State::Due;
        if due {
            self.state = State::Asked;
        }
        due
    }

    /// Returns whether an answer is outstanding.
    pub(super) fn is_asked(&self) -> bool {
        self.state == State::Asked
    }

    /// Schedules the next attempt, after an attempt without an answer.
    pub(super) fn retry_later(&mut self, now: Time, retry: Duration) {
        self.state = State::RetryAt(now + retry);
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::RetryAt(at) if at <= now => self.state = State::Due,
            State::RetryAt(_) | State::Due | State::Asked => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::RetryAt(at) => Some(at),
            State::Due | State::Asked => None,
        }
    }
}
