//! The witness: an atomic test-and-set for each term, reached over a lossy path. In the place of the witness, a host
//! may find another storage: an empty one, or one with an older state of the claims.

use std::collections::BTreeMap;
use std::convert::Infallible;

use logchan::ids::{Claimant, Term};
use replication::witness::{self, Answer, ClaimCause, ClaimStore, NOBODY, Question, Rules};

use super::check::EndCause;
use super::count::Count;
use super::host::Host;
use super::pair::{Bugs, Claim, Event, Pair, other};
use super::process::ProcessId;
use crate::sim::rng::Chance;

/// The storage of the claims. A repeated claim by the same process gets the same answer.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    claims: BTreeMap<Term, Claimant>,
    rules: Rules,
    /// The newest claim that was ever made, removed or not.
    granted: Option<(Term, Claimant)>,
    /// When that was.
    granted_at: u64,
    /// The owner of the newest term that has one.
    last_owner: Option<ProcessId>,
}

impl ClaimStore for Witness {
    type Error = Infallible;

    fn newest(&mut self) -> Result<Option<Term>, Infallible> {
        Ok(self.claims.keys().next_back().copied())
    }

    fn owner(&mut self, term: Term) -> Result<Option<Claimant>, Infallible> {
        Ok(self.claims.get(&term).copied())
    }

    fn create(&mut self, term: Term, owner: Claimant) -> Result<(), Infallible> {
        let owner = *self.claims.entry(term).or_insert(owner);
        self.granted = self.granted.max(Some((term, owner)));
        Ok(())
    }
}

impl Witness {
    /// Returns a storage without claims.
    pub(crate) fn new(bugs: Bugs) -> Self {
        Self { rules: Rules::with_bugs(bugs.replica), ..Self::default() }
    }

    /// Returns another storage, with the claims of this one or with none. It does not know what this one grants.
    pub(crate) fn other(&self, bugs: Bugs, has_claims: bool) -> Self {
        let claims = if has_claims { self.claims.clone() } else { BTreeMap::new() };
        Self { claims, ..Self::new(bugs) }
    }

    /// Answers `question` of `process` at `now`.
    pub(crate) fn answer(&mut self, now: u64, question: Question, process: ProcessId) -> Answer {
        let before = self.granted;
        let rules = self.rules;
        let answer = rules.answer(self, process.claimant(), question);
        if self.granted != before {
            self.granted_at = now;
            let owner = self.granted.and_then(|(_, owner)| ProcessId::of(owner));
            self.last_owner = owner.or(self.last_owner);
        }
        answer.unwrap_or(Answer::Unreachable)
    }

    /// Whether any term was claimed.
    pub(crate) fn has_granted(&self) -> bool {
        self.granted.is_some()
    }

    /// Claims the next term for nobody. Returns whether it did.
    pub(crate) fn forget(&mut self, now: u64) -> bool {
        let before = self.granted;
        let forgotten = witness::forget(self).is_ok() && self.granted != before;
        if forgotten {
            self.granted_at = now;
        }
        forgotten
    }

    /// Whether the VM has ended by an order.
    pub(crate) fn is_released(&self) -> bool {
        self.granted.is_some_and(|(_, owner)| owner == NOBODY)
    }

    /// The process that is, or was, the last to run the VM.
    pub(crate) fn last_owner(&self) -> Option<ProcessId> {
        self.last_owner
    }

    /// When the newest claim was made.
    pub(crate) fn granted_at(&self) -> u64 {
        self.granted_at
    }

    /// The newest term that was ever granted and its owner, the only process that may send for the VM; `None` if
    /// nobody may.
    pub(crate) fn newest(&self) -> Option<(u64, ProcessId)> {
        let (term, owner) = self.granted?;
        ProcessId::of(owner).map(|owner| (term.0, owner))
    }

    /// Removes the newest claim or all claims.
    pub(crate) fn remove(&mut self, all: bool) {
        match all {
            true => self.claims.clear(),
            false => drop(self.claims.pop_last()),
        }
    }

    /// Whether the newest claim is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.granted.is_none_or(|(term, owner)| self.claims.get(&term) == Some(&owner))
    }

    /// Brings the newest claim back.
    pub(crate) fn restore(&mut self) {
        self.claims.extend(self.granted);
    }
}

impl Pair<'_> {
    /// Sends a question of the process of `host` to the witness.
    pub(crate) fn send_claim(&mut self, host: usize, question: Question) {
        let now = self.queue.now();
        self.claims += 1;
        let number = self.claims;
        let timeout_ns = self.options.witness.timeout_ns;
        let Some(process) = &mut self.hosts[host].process else { return };
        process.claim = Some((question, number));
        let claim = Claim { process: process.id, question, number };
        self.counts.add(Count::Claims, is_claim(question).into());
        self.trace.line(now, Some(host), "claim", format_args!("{claim:?}"));
        self.queue.push(now + timeout_ns, Event::ClaimOverdue { host, claim });
        if let Some(takes_ns) = self.witness_delay(host) {
            self.queue.push(now + takes_ns, Event::Claim { host, claim });
        }
    }

    /// Draws the delay of a message between `host` and the witness; `None` if the message is lost.
    fn witness_delay(&mut self, host: usize) -> Option<u64> {
        let witness = &self.options.witness;
        let takes_ns = self.rng.within(1..=witness.delay_ns_max);
        let is_slow = self.rng.chance(witness.slow);
        let slow_ns = self.rng.within(1..=4 * witness.timeout_ns);
        let is_lost = self.rng.chance(witness.loss);
        let faulty = self.is_faulty();
        let arrives = !(self.hosts[host].witness_cut || is_lost && faulty);
        self.counts.add(Count::ClaimsLost, u64::from(!arrives));
        if !arrives || is_slow {
            self.hosts[host].disturbed_at = self.queue.now();
        }
        arrives.then_some(if is_slow && faulty { takes_ns + slow_ns } else { takes_ns })
    }

    /// A claim reaches the witness, which answers it.
    pub(crate) fn claim_arrives(&mut self, host: usize, claim: Claim) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if own.other_witness.is_some() {
            own.disturbed_at = now;
        }
        let answer = match &mut own.other_witness {
            // Its identity is not the one of the witness that the pair uses.
            Some(_) if !self.bugs.ignores_identity => Answer::Unreachable,
            Some(other) => other.answer(now, claim.question, claim.process),
            None => self.witness.answer(now, claim.question, claim.process),
        };
        let answer = self.fenced_answer(host, claim.question, answer);
        self.trace.line(now, Some(host), "witness", format_args!("{claim:?}: {answer:?}"));
        let won = matches!(answer, Answer::Won { .. }) && is_claim(claim.question);
        self.counts.add(Count::ClaimsWon, won.into());
        if let Some(takes_ns) = self.witness_delay(host) {
            self.queue.push(now + takes_ns, Event::Answer { host, claim, answer });
        }
    }

    /// Fences the lost primary before `host` learns that it has won the next term, if the hosts share a disk. Returns the
    /// answer that the host gets.
    fn fenced_answer(&mut self, host: usize, question: Question, answer: Answer) -> Answer {
        let Question::Claim { previous, cause: ClaimCause::PrimarySilent, .. } = question else {
            return answer;
        };
        let Answer::Won { .. } = answer else { return answer };
        if !self.options.disk.is_shared || self.bugs.skips_fence {
            return answer;
        }
        if self.is_faulty() && self.rng.chance(Chance::percent(20)) {
            self.counts.count(Count::FencesFailed);
            return Answer::Unreachable;
        }
        let Some(lost) = ProcessId::of(previous) else { return answer };
        self.counts.count(Count::Fences);
        let (now, rival) = (self.queue.now(), other(host));
        self.trace.line(now, Some(rival), "fenced", format_args!("{lost:?}"));
        if self.hosts[rival].process.as_ref().is_some_and(|process| process.id == lost) {
            self.end_process(rival, EndCause::Crashed);
        }
        let Host { process, disk, .. } = &self.hosts[host];
        let disk = process.as_ref().map(|process| &process.world.disk).or(disk.as_ref());
        if let Some(shared) = disk.and_then(|disk| disk.shared.as_ref()) {
            shared.fence(now, lost);
        }
        answer
    }

    /// An answer reaches the host, in time or after the timeout.
    pub(crate) fn answer_arrives(&mut self, host: usize, claim: Claim, answer: Answer) {
        let delivers_late = self.options.witness.delivers_late;
        let process = self.hosts[host].process.as_mut();
        let Some(process) = process.filter(|process| process.id == claim.process) else { return };
        let in_time = process.claim == Some((claim.question, claim.number));
        if in_time {
            process.claim = None;
        }
        if in_time || delivers_late {
            process.answers.push_back((claim.question, answer));
            self.wake_soon(host);
        }
    }

    /// A claim has timed out at the host.
    pub(crate) fn claim_overdue(&mut self, host: usize, claim: Claim) {
        let process = self.hosts[host].process.as_mut();
        let Some(process) = process.filter(|process| process.id == claim.process) else { return };
        if process.claim == Some((claim.question, claim.number)) {
            process.claim = None;
            process.answers.push_back((claim.question, Answer::Unreachable));
            self.wake_soon(host);
        }
    }
}

/// Whether `question` is a claim of a term in order to run the VM.
pub(in crate::sim) fn is_claim(question: Question) -> bool {
    match question {
        Question::Boot { .. } | Question::Claim { .. } => true,
        Question::Confirm { .. } | Question::Release { .. } => false,
    }
}
