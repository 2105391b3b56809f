//! Takeover: the claim of the next term, and the role changes that follow from its answer.

use super::claim::{Answer, Claim};
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::guard::Ignored;
use super::role::{Backup, Halt, Primary, Role};
use crate::mutant::Mutant;
use logchan::ids::Term;
use logchan::time::Time;

impl Replica {
    /// Handles the witness's answer to the claim of `term`. The driver limits how long an answer may take,
    /// and passes [`Answer::Unreachable`] after that.
    pub fn handle_witness(&mut self, now: Time, term: Term, answer: Answer) {
        let retry = self.config.witness_retry;
        let claim = match &mut self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(claim))
            | Role::Backup(Backup::Claiming(claim)) => claim,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                return self.ignore(Ignored::AnswerWithoutClaim);
            }
        };
        if !claim.is_asked() {
            return self.ignore(Ignored::AnswerWithoutClaim);
        }
        if claim.term != term {
            return self.ignore(Ignored::AnswerForOtherTerm);
        }
        match answer {
            Answer::Unreachable => {
                claim.retry_later(now, retry);
                self.emit(ReplicaEvent::WitnessUnreachable { term });
            }
            Answer::Won => self.claim_won(now, term),
            Answer::Lost if self.planted(Mutant::IgnoreLostClaim) => self.claim_won(now, term),
            Answer::Lost => self.claim_lost(now, term),
        }
        self.process(now);
    }

    fn claim_won(&mut self, now: Time, term: Term) {
        self.emit(ReplicaEvent::TermWon { term });
        match &self.role {
            Role::Primary(Primary::Starting(_)) => {
                self.term = term;
                self.role = Role::Primary(Primary::Alone);
            }
            Role::Primary(Primary::Losing(_)) => {
                self.term = term;
                self.role = Role::Primary(Primary::Alone);
                self.renew(now);
            }
            Role::Backup(Backup::Claiming(_)) => self.go_live(now, term),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                unreachable!("handle_witness ignores answers without a claim")
            }
        }
    }

    fn claim_lost(&mut self, now: Time, term: Term) {
        match &self.role {
            Role::Primary(Primary::Starting(_)) => {
                self.halt_without_bye(Halt::AlreadyStarted { term });
            }
            Role::Primary(Primary::Losing(_)) => self.halt_without_bye(Halt::Replaced { term }),
            Role::Backup(Backup::Claiming(_)) => {
                // The primary won this term and continues in it.
                self.term = term;
                self.seek(now);
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                unreachable!("handle_witness ignores answers without a claim")
            }
        }
    }

    /// Ends this host's part without a Bye: there is no peer to send it to.
    pub(super) fn halt_without_bye(&mut self, halt: Halt) {
        self.halt(halt);
        self.session.close();
    }

    /// Claims the next term, after the machine has executed the dead primary's log to its end.
    pub(super) fn log_finished(&mut self, now: Time) {
        self.received = None;
        self.emit(ReplicaEvent::LogFinished);
        let claim = Claim::after(self.term, self.term_owner);
        if self.planted(Mutant::LiveWithoutWitness) {
            return self.go_live(now, claim.term);
        }
        self.role = Role::Backup(Backup::Claiming(claim));
    }

    /// Goes live: this host becomes the primary of `term`, which it owns. The order is: the term changes, the
    /// tap opens, the VM is announced on the LAN, and the outputs that the dead primary may not have released
    /// are sent again. Before it accepts any input, the machine reproduces the outputs that the dead primary
    /// may have released beyond its log: see [`segment`](super::segment).
    fn go_live(&mut self, now: Time, term: Term) {
        if !self.planted(Mutant::KeepTerm) {
            self.term = term;
        }
        if self.planted(Mutant::ForgetKeptOutput) {
            self.commit.clear();
        }
        self.role = Role::Primary(Primary::Alone);
        let starts_over = self.planted(Mutant::ClockStartsOver);
        self.resume_clock_at = Some(if starts_over { 0 } else { self.verifier.clock_ns() });
        if !self.planted(Mutant::InputsBeforeReplayOut) {
            self.replay_out.begin(now, self.config.early_release_window);
        }
        self.announcements.start(now);
        self.stats.takeovers += 1;
        self.stats.sent_again += self.commit.queue().len() as u64;
        self.emit(ReplicaEvent::WentLive { term: self.term });
        self.renew(now);
    }
}
