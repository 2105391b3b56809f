//! The claim, and what follows from its answer.

use super::claim::{Answer, Claim};
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::guard::Ignored;
use super::mutant::Mutant;
use super::role::{Backup, Halt, Primary, Role};
use logchan::ids::Term;
use logchan::time::Time;

impl Replica {
    /// What the witness says of the claim of `term`. An answer that is long in coming is
    /// [`Answer::Unreachable`]; whoever asks for us decides how long that is.
    pub fn handle_witness(&mut self, now: Time, term: Term, answer: Answer) {
        let retry = self.config.witness_retry;
        let claim = match &mut self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(claim))
            | Role::Backup(Backup::Claiming(claim)) => claim,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                return self.ignore(Ignored::AnswerToNoClaim);
            }
        };
        if !claim.is_asked() {
            return self.ignore(Ignored::AnswerToNoClaim);
        }
        if claim.term != term {
            return self.ignore(Ignored::AnswerOfOtherTerm);
        }
        match answer {
            Answer::Unreachable => {
                claim.unanswered(now, retry);
                self.emit(ReplicaEvent::WitnessUnreachable { term });
            }
            Answer::Won => self.won(now, term),
            Answer::Lost if self.planted(Mutant::IgnoreLostClaim) => self.won(now, term),
            Answer::Lost => self.lost(now, term),
        }
        self.process(now);
    }

    fn won(&mut self, now: Time, term: Term) {
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
                unreachable!("an answer to no claim was sorted out")
            }
        }
    }

    fn lost(&mut self, now: Time, term: Term) {
        match &self.role {
            Role::Primary(Primary::Starting(_)) => self.over(Halt::AlreadyStarted { term }),
            Role::Primary(Primary::Losing(_)) => self.over(Halt::Replaced { term }),
            Role::Backup(Backup::Claiming(_)) => {
                // The primary lives, in this term.
                self.term = term;
                self.seek(now);
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                unreachable!("an answer to no claim was sorted out")
            }
        }
    }

    /// Over, and nobody is there who should be told.
    pub(super) fn over(&mut self, halt: Halt) {
        self.halt(halt);
        self.endpoint = None;
    }

    /// The machine has executed all there is of the dead primary's log.
    pub(super) fn log_over(&mut self, now: Time) {
        self.receive = super::checkpoint_receive::CheckpointReceive::default();
        self.emit(ReplicaEvent::LogFinished);
        let claim = Claim::after(self.term, self.term_owner);
        if self.planted(Mutant::LiveWithoutWitness) {
            return self.go_live(now, claim.term);
        }
        self.role = Role::Backup(Backup::Claiming(claim));
    }

    /// The VM lives here: in this order, the term is ours, the tap opens, the LAN is told, and what
    /// the dead primary may have kept back is sent again. What it may have said beyond its log the machine
    /// makes before anything enters it: [`stretch`](super::stretch).
    fn go_live(&mut self, now: Time, term: Term) {
        if !self.planted(Mutant::KeepTerm) {
            self.term = term;
        }
        if self.planted(Mutant::ForgetKeptOutput) {
            self.hold.clear();
        }
        self.role = Role::Primary(Primary::Alone);
        self.must_resume_clock = true;
        self.begin_replay_out(now);
        self.announcer.start(now.as_nanos(), &self.addresses);
        self.stats.takeovers += 1;
        self.stats.sent_again += self.hold.len() as u64;
        self.emit(ReplicaEvent::WentLive { term: self.term });
        self.renew(now);
    }
}
