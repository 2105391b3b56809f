//! The witness: an atomic test-and-set for each term.

use logchan::ids::{Claimant, Term};
use vmm::replica::Answer;

use super::count::Count;
use super::pair::{Claim, Event, Pair};
use super::process::ProcessId;

/// Who holds which term. Every process that claims one twice is told the same twice.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// By term, from 1 on. Terms are claimed in order.
    owners: Vec<ProcessId>,
}

impl Witness {
    /// Claims `term`, the term before being `previous`'s, for `claimant`; whether it has it.
    pub(crate) fn claim(
        &mut self,
        term: u64,
        previous: Option<Claimant>,
        claimant: ProcessId,
    ) -> bool {
        let index = (term - 1) as usize;
        let before = index.checked_sub(1).and_then(|before| self.owners.get(before));
        assert_eq!(previous, before.map(ProcessId::claimant), "who owns the term before {term}");
        if index == self.owners.len() {
            self.owners.push(claimant);
        }
        // Nobody can know of a term that is more than one ahead.
        assert!(index < self.owners.len(), "term {term} is claimed before the one before it");
        self.owners[index] == claimant
    }

    /// The newest term that is somebody's, and whose: the true speaker for the VM.
    pub(crate) fn newest(&self) -> Option<(u64, ProcessId)> {
        self.owners.last().map(|&owner| (self.owners.len() as u64, owner))
    }
}

impl Pair<'_> {
    /// The process of `host` claims `term`.
    pub(crate) fn ask_witness(&mut self, host: usize, term: Term, previous: Option<Claimant>) {
        let now = self.queue.now();
        self.claims += 1;
        let number = self.claims;
        let patience_ns = self.options.witness.patience_ns;
        let Some(process) = &mut self.hosts[host].process else { return };
        process.claim = Some((term, number));
        let claim = Claim { process: process.id, term, previous, number };
        self.counts.count(Count::Claims);
        self.trace.line(now, Some(host), "claim", format_args!("{claim:?}"));
        self.queue.push(now + patience_ns, Event::ClaimOverdue { host, claim });
        if let Some(takes_ns) = self.reaches_witness(host) {
            self.queue.push(now + takes_ns, Event::Claim { host, claim });
        }
    }

    /// How long a message between `host` and the witness takes, if it arrives.
    fn reaches_witness(&mut self, host: usize) -> Option<u64> {
        let witness = &self.options.witness;
        let takes_ns = self.rng.within(1..=witness.delay_ns_max);
        let is_slow = self.rng.chance(witness.slow);
        let slow_ns = self.rng.within(1..=4 * witness.patience_ns);
        let is_lost = self.rng.chance(witness.loss);
        let faulty = self.is_faulty();
        let arrives = !(self.hosts[host].witness_cut || is_lost && faulty);
        self.counts.add(Count::ClaimsLost, u64::from(!arrives));
        arrives.then_some(if is_slow && faulty { takes_ns + slow_ns } else { takes_ns })
    }

    /// A claim is at the witness.
    pub(crate) fn claim_arrives(&mut self, host: usize, claim: Claim) {
        let won = self.witness.claim(claim.term.0, claim.previous, claim.process);
        let now = self.queue.now();
        self.trace.line(now, Some(host), "witness", format_args!("{claim:?}: {won}"));
        self.counts.add(Count::ClaimsWon, u64::from(won));
        let answer = if won { Answer::Won } else { Answer::Lost };
        if let Some(takes_ns) = self.reaches_witness(host) {
            self.queue.push(now + takes_ns, Event::Answer { host, claim, answer });
        }
    }

    /// An answer is at the host, in time or not.
    pub(crate) fn answer_arrives(&mut self, host: usize, claim: Claim, answer: Answer) {
        let tells_late = self.options.witness.tells_late;
        let process = self.hosts[host].process.as_mut();
        let Some(process) = process.filter(|process| process.id == claim.process) else { return };
        let in_time = process.claim == Some((claim.term, claim.number));
        if in_time {
            process.claim = None;
        }
        if in_time || tells_late {
            process.answers.push_back((claim.term, answer));
            self.wake_soon(host);
        }
    }

    /// The host has waited long enough.
    pub(crate) fn claim_overdue(&mut self, host: usize, claim: Claim) {
        let process = self.hosts[host].process.as_mut();
        let Some(process) = process.filter(|process| process.id == claim.process) else { return };
        if process.claim == Some((claim.term, claim.number)) {
            process.claim = None;
            process.answers.push_back((claim.term, Answer::Unreachable));
            self.wake_soon(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn term_is_given_once() {
        let mut witness = Witness::default();
        let [a, b] = [1, 2].map(ProcessId);
        assert_eq!([a, b, a].map(|claimant| witness.claim(1, None, claimant)), [true, false, true]);
        assert!(witness.claim(2, Some(a.claimant()), b));
        assert_eq!(witness.newest(), Some((2, b)));
    }
}
