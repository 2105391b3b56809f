//! [`SimWitness`]: the thread of a host that asks the witness, and the witness's storage. The thread may hang.

use replication::driver::{ANSWER_MAX, WitnessPort};
use replication::witness::{Answer, Question};

use super::count::Count;
use super::host::{Answered, Host};
use super::state::{Claim, Event, State};
use super::thread::Thread;
use crate::sim::system::witness::is_claim;
use crate::sim::{Checked, US, require};

/// See the [module](self).
pub(super) struct SimWitness<'t>(pub(super) Thread<'t>);

impl WitnessPort for SimWitness<'_> {
    fn try_ask(&mut self, question: Question) -> bool {
        let Self(thread) = self;
        let passed = thread.with(|state| state.send_claim(thread.host, question));
        if passed {
            thread.reach(super::faults::CrashPoint::Claim);
        }
        passed
    }

    fn try_answer(&mut self) -> Option<(Question, Answer, Option<String>)> {
        let Self(thread) = self;
        let answered = thread.with(|state| {
            let own = &mut state.hosts[thread.host];
            own.is_answer_awaited &= own.answers.is_empty();
            own.answers.pop_front()
        });
        let Answered { question, answer, awaited_at } = answered?;
        thread.check(thread.with(|state| state.check_answer(thread.host, awaited_at)));
        let error = (answer == Answer::Unreachable).then(|| "the storage is gone".to_string());
        Some((question, answer, error))
    }
}

impl Host {
    /// Returns when the driver made the claim `question`, which it tries to pass on at `now`. While the witness's
    /// thread is busy, the driver repeats that try for the same claim, and its time to wait for an answer runs from
    /// the first try. After [`ANSWER_MAX`], by its own clock, it has given the claim up, and a further try is for a
    /// new one. A try shortly after that time counts for the old claim: if the time returned is too early, the
    /// answer may not be checked, but no answer is required too early.
    fn asked_at(&self, now: u64, question: Question) -> u64 {
        let given_up_ns = ANSWER_MAX.as_nanos() * 101 / 100;
        match self.refused_claim {
            Some((refused, at)) if refused == question && now < at + given_up_ns => at,
            Some(_) | None => now,
        }
    }

    /// The witness's thread was too busy to take the claim `question`. Nobody waits for a confirmation.
    fn note_refused(&mut self, asked_at: u64, question: Question) {
        if !question.is_confirmation() {
            self.refused_claim = Some((question, asked_at));
        }
    }
}

impl State {
    /// Passes a claim to the witness's thread of `host`, unless it works on another one.
    fn send_claim(&mut self, host: usize, question: Question) -> bool {
        let now = self.queue.now();
        let is_faulty = self.is_faulty();
        let witness = &self.options.witness;
        let own = &mut self.hosts[host];
        let Some(process) = &own.process else { return false };
        let thread = usize::from(question.is_confirmation());
        let asked_at = own.asked_at(now, question);
        if std::mem::replace(&mut own.is_claiming[thread], true) {
            own.note_refused(asked_at, question);
            return false;
        }
        own.refused_claim = own.refused_claim.filter(|&(refused, _)| refused != question);
        let there_ns = own.rng.within(1..=witness.delay_ns_max);
        let mut back_ns = own.rng.within(1..=witness.delay_ns_max);
        let fails = (own.is_witness_cut || own.rng.chance(witness.fails)) && is_faulty;
        let hangs = own.rng.chance(witness.hang) && is_faulty;
        let barely = own.rng.chance(witness.barely_late);
        let any_ns = own.rng.within(1..=witness.hang_ns_max);
        let retry_ns = self.options.pair.witness_retry_ns;
        let barely_ns = ANSWER_MAX.as_nanos() * 101 / 100 + own.rng.below(retry_ns);
        own.is_answer_awaited |= !question.is_confirmation();
        if hangs {
            self.counts.count(Count::ClaimsHung);
            back_ns += if barely { barely_ns } else { any_ns };
        }
        let claim = Claim { process: process.id, question, asked_at, back_ns, fails };
        self.counts.add(Count::Claims, is_claim(question).into());
        self.note(Some(host), "claim", format_args!("{claim:?}"));
        self.queue.push(now + there_ns, Event::Claim { host, claim });
        true
    }

    /// A claim reaches the storage. It takes effect even if the process has died.
    pub(super) fn claim_arrives(&mut self, host: usize, claim: Claim) {
        let now = self.queue.now();
        let answer = if claim.fails {
            Answer::Unreachable
        } else {
            let answer = self.witness.answer(now, claim.question, claim.process);
            self.note(Some(host), "witness", format_args!("{claim:?}: {answer:?}"));
            answer
        };
        self.queue.push(now + claim.back_ns, Event::Answer { host, claim, answer });
    }

    /// The witness's thread of `host` has an answer.
    pub(super) fn answer_arrives(&mut self, host: usize, claim: Claim, answer: Answer) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if own.process.as_ref().is_none_or(|process| process.id != claim.process) {
            return;
        }
        let is_confirmation = claim.question.is_confirmation();
        own.is_claiming[usize::from(is_confirmation)] = false;
        // The driver gives a claim up by its own clock, and makes it again later. An answer that comes meanwhile is
        // taken only then.
        let is_in_time = now < claim.asked_at + ANSWER_MAX.as_nanos() * 9 / 10;
        let awaited_at = (own.is_answer_awaited && is_in_time && !is_confirmation).then_some(now);
        own.answers.push_back(Answered { question: claim.question, answer, awaited_at });
        self.note(Some(host), "answer", format_args!("{:?}: {answer:?}", claim.question));
        // Half of the kicks come just before the thread begins to wait, and are lost.
        if self.rng.below(2 * US) >= US {
            self.wake(host, |by| by.kick);
        }
    }

    /// Checks that the driver of `host` takes an answer soon after it was there, at `awaited_at`, if it was waiting for it:
    /// the VM waits, too.
    fn check_answer(&self, host: usize, awaited_at: Option<u64>) -> Checked {
        let Some(at) = awaited_at.filter(|_| !self.was_frozen(host)) else { return Ok(()) };
        let (late_ns, most_ns) = (self.queue.now() - at, self.late_ns_max(host));
        require!(
            late_ns <= most_ns,
            "host {host} takes an answer of the witness after {late_ns} ns, not {most_ns}"
        );
        Ok(())
    }
}
