//! The witness: an atomic test-and-set for each term, reached over a lossy path.

use logchan::ids::{Claimant, Term};
use replication::replica::Answer;

use super::count::Count;
use super::pair::{Claim, Event, Pair};
use super::process::ProcessId;

/// The owners of the terms. A repeated claim by the same process gets the same answer.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// The owners, by term, from term 1 on. Terms are claimed in order.
    owners: Vec<ProcessId>,
}

impl Witness {
    /// Claims `term` for `claimant`, which believes that `previous` owns the term before. Returns whether
    /// `claimant` owns the term.
    pub(crate) fn claim(
        &mut self,
        term: u64,
        previous: Option<Claimant>,
        claimant: ProcessId,
    ) -> bool {
        let index = (term - 1) as usize;
        let before = index.checked_sub(1).and_then(|before| self.owners.get(before));
        assert_eq!(previous, before.map(ProcessId::claimant), "owner of the term before {term}");
        if index == self.owners.len() {
            self.owners.push(claimant);
        }
        // A process can claim at most the term after the newest one.
        assert!(index < self.owners.len(), "term {term} is claimed before the one before it");
        self.owners[index] == claimant
    }

    /// The newest term and its owner, the only process that may send for the VM.
    pub(crate) fn newest(&self) -> Option<(u64, ProcessId)> {
        self.owners.last().map(|&owner| (self.owners.len() as u64, owner))
    }
}

impl Pair<'_> {
    /// Sends a claim of `term` from the process of `host` to the witness.
    pub(crate) fn send_claim(&mut self, host: usize, term: Term, previous: Option<Claimant>) {
        let now = self.queue.now();
        self.claims += 1;
        let number = self.claims;
        let timeout_ns = self.options.witness.timeout_ns;
        let Some(process) = &mut self.hosts[host].process else { return };
        process.claim = Some((term, number));
        let claim = Claim { process: process.id, term, previous, number };
        self.counts.count(Count::Claims);
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
        arrives.then_some(if is_slow && faulty { takes_ns + slow_ns } else { takes_ns })
    }

    /// A claim reaches the witness, which answers it.
    pub(crate) fn claim_arrives(&mut self, host: usize, claim: Claim) {
        let won = self.witness.claim(claim.term.0, claim.previous, claim.process);
        let now = self.queue.now();
        self.trace.line(now, Some(host), "witness", format_args!("{claim:?}: {won}"));
        self.counts.add(Count::ClaimsWon, u64::from(won));
        let answer = if won { Answer::Won } else { Answer::Lost };
        if let Some(takes_ns) = self.witness_delay(host) {
            self.queue.push(now + takes_ns, Event::Answer { host, claim, answer });
        }
    }

    /// An answer reaches the host, in time or after the timeout.
    pub(crate) fn answer_arrives(&mut self, host: usize, claim: Claim, answer: Answer) {
        let delivers_late = self.options.witness.delivers_late;
        let process = self.hosts[host].process.as_mut();
        let Some(process) = process.filter(|process| process.id == claim.process) else { return };
        let in_time = process.claim == Some((claim.term, claim.number));
        if in_time {
            process.claim = None;
        }
        if in_time || delivers_late {
            process.answers.push_back((claim.term, answer));
            self.wake_soon(host);
        }
    }

    /// A claim has timed out at the host.
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
    fn term_has_one_owner() {
        let mut witness = Witness::default();
        let [a, b] = [1, 2].map(ProcessId);
        assert_eq!([a, b, a].map(|claimant| witness.claim(1, None, claimant)), [true, false, true]);
        assert!(witness.claim(2, Some(a.claimant()), b));
        assert_eq!(witness.newest(), Some((2, b)));
    }
}
