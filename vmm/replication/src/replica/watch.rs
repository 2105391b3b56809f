//! The watch over the witness: a host asks now and then whether its term is still the newest.
//!
//! A primary learns in this way that the VM was forgotten or booted elsewhere, and makes its claim again if that
//! was removed. Both hosts learn that the witness can't be reached before it is needed.

use super::claim::Claim;
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::guard::Ignored;
use super::role::{Backup, Halt, Primary, Role};
use crate::mutant::Mutant;
use crate::witness::{Answer, Question};
use logchan::time::Time;

/// How a host stands with its witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WitnessState {
    /// It was not asked in this role.
    #[default]
    Unknown,
    /// It has answered the last question.
    Reachable,
    /// It has not answered the last question.
    Unreachable,
}

impl WitnessState {
    /// Returns the name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The question that is repeated, and what the last answer said.
#[derive(Debug, Default)]
pub(super) struct WitnessWatch {
    claim: Option<Claim>,
    pub(super) state: WitnessState,
}

impl WitnessWatch {
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.claim.as_ref().and_then(Claim::poll_timeout)
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        if let Some(claim) = &mut self.claim {
            claim.handle_timeout(now);
        }
    }

    /// Takes the question if it is due.
    pub(super) fn take_due(&mut self) -> Option<Question> {
        self.claim.as_mut().and_then(|claim| claim.take_due().then_some(claim.question))
    }

    /// Asks now instead of at the next regular time.
    fn hurry(&mut self) {
        if let Some(claim) = self.claim.filter(|claim| !claim.is_asked()) {
            self.claim = Some(Claim::of(claim.question));
        }
    }
}

impl Replica {
    /// Returns how this host stands with its witness.
    pub fn witness_state(&self) -> WitnessState {
        self.watch.state
    }

    /// The question that this role repeats.
    fn watched(&self) -> Option<Question> {
        let owner = match &self.role {
            Role::Primary(Primary::Alone | Primary::Copying(_) | Primary::Protected(_)) => {
                self.config.claimant
            }
            Role::Backup(Backup::Following) => self.term_owner,
            Role::Standalone
            | Role::Primary(Primary::Starting(_) | Primary::HandingOver(_) | Primary::Losing(_))
            | Role::Backup(
                Backup::Seeking
                | Backup::Syncing
                | Backup::Finishing
                | Backup::Claiming(_)
                | Backup::Leaving,
            )
            | Role::Halted(_) => return None,
        };
        Some(Question::Confirm { term: self.term, owner })
    }

    /// Keeps the question that is repeated in step with the role.
    pub(super) fn update_watch(&mut self, now: Time) {
        let question = self.watched();
        if question == self.watch.claim.map(|claim| claim.question) {
            return;
        }
        // A host that has just got its term knows that it is the newest.
        let has_term = matches!(self.role, Role::Primary(_));
        self.watch.claim = question.map(|question| match has_term {
            true => Claim::later(question, now + self.config.witness_check),
            false => Claim::of(question),
        });
    }

    /// Another process says that it is the primary of this VM: which of them has the newest term?
    pub(super) fn rival_met(&mut self) {
        self.watch.hurry();
    }

    /// Handles the answer to the repeated question.
    pub(super) fn confirmed(&mut self, now: Time, question: Question, answer: Answer) {
        let next_at = now + self.config.witness_check;
        let claim = self.watch.claim.as_mut();
        let Some(claim) = claim.filter(|claim| claim.question == question && claim.is_asked())
        else {
            return self.ignore(Ignored::AnswerWithoutClaim);
        };
        claim.repeat_at(next_at);
        match answer {
            Answer::Won { .. } => self.set_witness_state(WitnessState::Reachable),
            Answer::Unreachable => self.set_witness_state(WitnessState::Unreachable),
            Answer::Lost { newest } => {
                self.set_witness_state(WitnessState::Reachable);
                // A backup's primary learns it as well.
                if let Role::Primary(_) = self.role
                    && !self.planted(Mutant::IgnoreNewerTerm)
                {
                    self.halt_without_bye(Halt::Replaced { term: newest });
                }
            }
        }
    }

    pub(super) fn set_witness_state(&mut self, state: WitnessState) {
        let before = core::mem::replace(&mut self.watch.state, state);
        match (before, state) {
            (WitnessState::Unreachable, WitnessState::Reachable) => {
                self.emit(ReplicaEvent::WitnessBack);
            }
            (WitnessState::Unknown | WitnessState::Reachable, WitnessState::Unreachable) => {
                self.emit(ReplicaEvent::WitnessLost);
            }
            (_, WitnessState::Unknown)
            | (WitnessState::Unknown | WitnessState::Reachable, WitnessState::Reachable)
            | (WitnessState::Unreachable, WitnessState::Unreachable) => {}
        }
    }
}
