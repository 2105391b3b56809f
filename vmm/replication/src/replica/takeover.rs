//! Takeover: the claim of the next term, and the role changes that follow from its answer.

use super::claim::Claim;
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::guard::Ignored;
use super::role::{AfterHandover, Backup, Halt, HandingOver, Losing, Primary, Protected, Role};
use super::watch::WitnessState;
use crate::limits::SMALL_ENTRY_BYTES_MAX;
use crate::mutant::Mutant;
use crate::witness::{Answer, ClaimCause, Question};
use logchan::entry::Entry;
use logchan::ids::{Lane, Term};
use logchan::time::{Duration, Time};

impl Replica {
    /// Handles the witness's answer to `question`. The driver limits how long an answer may take, and passes
    /// [`Answer::Unreachable`] after that.
    pub fn handle_witness(&mut self, now: Time, question: Question, answer: Answer) {
        match question {
            Question::Boot { .. } | Question::Claim { .. } => {
                self.claim_answered(now, question, answer);
            }
            Question::Confirm { .. } => self.confirmed(now, question, answer),
            Question::Release { .. } => self.released(answer),
        }
        self.process(now);
    }

    fn claim_answered(&mut self, now: Time, question: Question, answer: Answer) {
        let retry_at = now + self.config.witness_retry;
        let claim = match &mut self.role {
            Role::Primary(Primary::Starting(claim) | Primary::Losing(Losing { claim, .. }))
            | Role::Backup(Backup::Claiming(claim)) => claim,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                return self.ignore(Ignored::AnswerWithoutClaim);
            }
        };
        if !claim.is_asked() {
            return self.ignore(Ignored::AnswerWithoutClaim);
        }
        if claim.question != question {
            return self.ignore(Ignored::AnswerForOtherTerm);
        }
        match answer {
            Answer::Unreachable => {
                claim.repeat_at(retry_at);
                let term = match question {
                    Question::Claim { term, .. } => term,
                    Question::Boot { .. } | Question::Confirm { .. } | Question::Release { .. } => {
                        self.term
                    }
                };
                self.watch.state = WitnessState::Unreachable;
                self.emit(ReplicaEvent::WitnessUnreachable { term });
            }
            Answer::Won { term } => {
                self.watch.state = WitnessState::Reachable;
                self.claim_won(now, term);
            }
            Answer::Lost { newest } if self.planted(Mutant::IgnoreLostClaim) => {
                self.claim_won(now, newest);
            }
            Answer::Lost { newest } => {
                self.watch.state = WitnessState::Reachable;
                self.claim_lost(now, newest);
            }
        }
    }

    /// Handles the answer to the release of the VM's last term. If another host has a newer term, it runs the VM.
    fn released(&mut self, answer: Answer) {
        match self.release.take() {
            Some(release) if release.is_asked() => {}
            other => {
                self.release = other;
                return self.ignore(Ignored::AnswerWithoutClaim);
            }
        }
        match answer {
            Answer::Won { .. } | Answer::Lost { .. } => {}
            Answer::Unreachable => self.emit(ReplicaEvent::ReleaseFailed),
        }
    }

    fn claim_won(&mut self, now: Time, term: Term) {
        self.emit(ReplicaEvent::TermWon { term });
        match &self.role {
            Role::Primary(Primary::Starting(_)) => {
                self.term = term;
                self.role = Role::Primary(Primary::Alone);
                self.renew(now);
            }
            Role::Primary(Primary::Losing(Losing { handed_over, .. })) => {
                if handed_over.is_some() {
                    self.handover_failed();
                }
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
            Role::Primary(Primary::Losing(Losing { handed_over, .. })) => match handed_over {
                None => self.halt_without_bye(Halt::Replaced { term }),
                Some(AfterHandover::Leave) => self.halt_without_bye(Halt::HandedOver { term }),
                Some(AfterHandover::Follow) => {
                    self.term = term;
                    self.seek(now);
                }
            },
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

    /// Hands the VM over to the backup, which goes live at once: a planned takeover. Returns false if there
    /// is no backup that holds the whole VM, or if the VM shall come back ([`AfterHandover::Follow`]) and the backup
    /// can't serve it as well as this host. From the hand-over on, this host sends no more output, and its
    /// machine waits. If the backup fails before it goes live, this host continues
    /// ([`ReplicaEvent::HandoverFailed`]).
    #[must_use]
    pub fn hand_over(&mut self, now: Time, after: AfterHandover) -> bool {
        if after == AfterHandover::Follow && self.would_lose_service() {
            self.stats.handovers_refused += 1;
            return false;
        }
        match &mut self.role {
            Role::Primary(Primary::Protected(_)) => {
                self.handover = Some(after);
                self.try_hand_over(now);
                true
            }
            Role::Primary(
                Primary::HandingOver(HandingOver { after: before, .. })
                | Primary::Losing(Losing { handed_over: Some(before), .. }),
            ) => {
                *before = after;
                true
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                self.stats.handovers_refused += 1;
                false
            }
        }
    }

    /// Begins the handover that is due, and ends the log when the last output is on the LAN. A checkpoint that
    /// is being sent is completed before, and so is a replay-out: the new primary does none, and what a dead primary
    /// has released must be reproduced before any input. Requests to shared disks are done before, because no fence stops a
    /// host that hands the VM over.
    pub(super) fn try_hand_over(&mut self, now: Time) {
        if let Some(after) = self.handover
            && let Role::Primary(Primary::Protected(Protected { is_confirmed: true, .. })) =
                self.role
            && self.sending.is_none()
            && !self.replay_out.is_active()
            && self.shared_disks_are_quiet()
        {
            self.handover = None;
            self.passed.begin();
            let log_ends_at = Some(self.commit.spoke_at() + self.config.tap_delay);
            self.role = Role::Primary(Primary::HandingOver(HandingOver { after, log_ends_at }));
            self.stats.handovers += 1;
            self.emit(ReplicaEvent::HandingOver);
        }
        if let Role::Primary(Primary::HandingOver(handing_over)) = &mut self.role
            && handing_over.log_ends_at.is_some_and(|at| at <= now)
            && self.session.room(Lane::Latency) >= SMALL_ENTRY_BYTES_MAX
        {
            handing_over.log_ends_at = None;
            self.session.append(now, &Entry::HandOver);
            self.pass_on(now);
            if self.planted(Mutant::ByeAfterHandover) {
                self.halt(Halt::HandedOver { term: self.term });
                self.session.bye_or_close(now);
            }
        }
    }

    /// Returns when the log must be ended.
    pub(super) fn handover_timeout(&self) -> Option<Time> {
        match self.role {
            Role::Primary(Primary::HandingOver(HandingOver { log_ends_at, .. })) => log_ends_at,
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => None,
        }
    }

    /// The backup failed before it took over: this host continues the VM.
    pub(super) fn handover_failed(&mut self) {
        self.stats.handovers_failed += 1;
        self.take_passed_back();
        self.emit(ReplicaEvent::HandoverFailed);
    }

    /// Ends this host's part without a Bye: there is no peer to send it to.
    pub(super) fn halt_without_bye(&mut self, halt: Halt) {
        self.halt(halt);
        self.session.close();
    }

    /// Claims the next term, after the machine has executed the dead primary's log to its end.
    pub(super) fn log_finished(&mut self, now: Time) {
        self.received = None;
        self.session.finish_log();
        self.emit(ReplicaEvent::LogFinished);
        if self.planted(Mutant::LiveWithoutWitness) {
            return self.go_live(now, Term(self.term.0 + 1));
        }
        // A primary that hands over is no rival.
        let (cause, delay) = match self.session.is_handed_over() {
            true => (ClaimCause::HandedOver, Duration::ZERO),
            false => (ClaimCause::PrimarySilent, self.claim_delay()),
        };
        let mut claim = Claim::after(self.term, self.term_owner, cause, now + delay);
        claim.handle_timeout(now);
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
        self.take_over_shared();
        let starts_over = self.planted(Mutant::ClockStartsOver);
        self.resume_clock_at = Some(if starts_over { 0 } else { self.verifier.clock_ns() });
        let is_handed_over = self.session.is_handed_over();
        // A primary that handed over has released nothing beyond its log.
        if !self.planted(Mutant::InputsBeforeReplayOut) && !is_handed_over {
            self.replay_out.begin(now, self.config.early_release_window);
        }
        self.announcements.start(now);
        self.stats.takeovers += 1;
        self.stats.sent_again += self.commit.queue().len() as u64;
        self.emit(ReplicaEvent::WentLive { term: self.term });
        self.receive_passed();
        if is_handed_over && self.session.is_open() {
            // The old primary passes on more frames.
            self.session.renew_at(now + self.passing_time());
        } else {
            self.renew(now);
        }
        if self.planted(Mutant::ForgetPassedFrames) {
            self.passed.clear();
        }
    }
}
