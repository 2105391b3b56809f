//! A question to the witness in progress: asked, and repeated until the witness answers.

use crate::witness::{ClaimCause, Question};
use logchan::ids::{Claimant, Term};
use logchan::time::Time;

/// A question to the witness in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) question: Question,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The witness must be asked now.
    Due,
    /// The witness was asked and has not answered.
    Asked,
    /// Ask at this time: the witness did not answer, the question is repeated, or the other host shall ask first.
    At(Time),
}

impl Claim {
    /// Creates the question that is asked now.
    pub(super) fn of(question: Question) -> Claim {
        Claim { question, state: State::Due }
    }

    /// Creates the question that is asked at `at`.
    pub(super) fn later(question: Question, at: Time) -> Claim {
        Claim { question, state: State::At(at) }
    }

    /// Creates the claim of the term after `term`, which `owner` holds, to be made at `at`.
    pub(super) fn after(term: Term, owner: Claimant, cause: ClaimCause, at: Time) -> Claim {
        let term = Term(term.0 + 1);
        Claim::later(Question::Claim { term, previous: owner, cause }, at)
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

    /// Schedules the next attempt.
    pub(super) fn repeat_at(&mut self, at: Time) {
        self.state = State::At(at);
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::At(at) if at <= now => self.state = State::Due,
            State::At(_) | State::Due | State::Asked => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::At(at) => Some(at),
            State::Due | State::Asked => None,
        }
    }
}
