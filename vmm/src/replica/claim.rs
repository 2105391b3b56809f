//! Asking the witness, until it answers.

use logchan::ids::{Claimant, Term};
use logchan::time::{Duration, Time};

/// What the witness says about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The term is ours, now or since an earlier claim of ours.
    Won,
    /// The term is somebody else's.
    Lost,
    /// No answer: the claim may have been made or not.
    Unreachable,
}

/// A claim under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) term: Term,
    /// Who must own the term before, or the witness is not the one that gave it; `None`: the VM is booted.
    pub(super) previous: Option<Claimant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be asked.
    Due,
    /// Asked; the answer is to come.
    Asked,
    /// Not answered; to be asked again then.
    Again(Time),
}

impl Claim {
    /// The claim of the term in which a VM is booted.
    pub(super) fn first(term: Term) -> Claim {
        Claim { term, previous: None, state: State::Due }
    }

    /// The claim of the term after `term`, which is `owner`'s.
    pub(super) fn after(term: Term, owner: Claimant) -> Claim {
        Claim { term: Term(term.0 + 1), previous: Some(owner), state: State::Due }
    }

    /// Whether the witness is to be asked now; from now on it counts as asked.
    pub(super) fn take_due(&mut self) -> bool {
        let due = self.state == State::Due;
        if due {
            self.state = State::Asked;
        }
        due
    }

    /// Whether an answer is waited for.
    pub(super) fn is_asked(&self) -> bool {
        self.state == State::Asked
    }

    /// There was no answer.
    pub(super) fn unanswered(&mut self, now: Time, retry: Duration) {
        self.state = State::Again(now + retry);
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::Again(at) if at <= now => self.state = State::Due,
            State::Again(_) | State::Due | State::Asked => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Again(at) => Some(at),
            State::Due | State::Asked => None,
        }
    }
}
