//! [`WitnessClient`]: which claim the witness works on, which of its answers counts, and when the witness
//! counts as unreachable.

use super::host::WitnessPort;
use crate::mutant::{DriverMutant, Mutants};
use crate::witness::{Answer, Question};
use alloc::format;
use alloc::string::String;
use logchan::time::{Duration, Time};

/// Longest time to wait for an answer. After it, the witness counts as unreachable.
pub const ANSWER_MAX: Duration = Duration::from_millis(1000);

/// Client of a witness, for one thread.
#[derive(Debug)]
pub struct WitnessClient<W> {
    port: W,
    pending: Option<Pending>,
    /// The error that was reported last. A claim is repeated, and the same error is reported once.
    reported: Option<String>,
    mutants: Mutants,
}

/// An outstanding question.
#[derive(Clone, Copy, Debug)]
struct Pending {
    question: Question,
    made_at: Time,
    /// The witness's thread works on it.
    is_passed_on: bool,
}

/// An answer that counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// The question.
    pub question: Question,
    /// The answer.
    pub answer: Answer,
    /// An error that the operator should know of, if it was not reported before.
    pub error: Option<String>,
}

impl<W: WitnessPort> WitnessClient<W> {
    /// Creates the client of the witness that `port` asks.
    pub fn new(port: W, mutants: Mutants) -> WitnessClient<W> {
        WitnessClient { port, pending: None, reported: None, mutants }
    }

    /// Asks `question` at `now`. One question at a time; a [`Question::Confirm`] gives way to any other.
    ///
    /// # Panics
    ///
    /// Panics if another question is outstanding.
    pub fn ask(&mut self, now: Time, question: Question) {
        let is_free = self.pending.is_none_or(|pending| pending.question.is_confirmation());
        assert!(is_free, "one question at a time");
        self.pending = Some(Pending { question, made_at: now, is_passed_on: false });
        self.pass_on();
    }

    /// Passes the outstanding claim on, unless the thread still works on an earlier one.
    fn pass_on(&mut self) {
        if let Some(claim) = &mut self.pending
            && !claim.is_passed_on
        {
            claim.is_passed_on = self.port.try_ask(claim.question);
        }
    }

    /// Returns the answer to the outstanding claim, once it is there or has taken too long.
    pub fn poll(&mut self, now: Time) -> Option<Answered> {
        while let Some((question, answer, error)) = self.port.try_answer() {
            if answer != Answer::Unreachable {
                self.reported = None;
            }
            if self.counts(question, answer) {
                let question = self.pending.take().map_or(question, |pending| pending.question);
                return Some(Answered {
                    question,
                    answer,
                    error: error.and_then(|e| self.news(e)),
                });
            }
        }
        // The thread may have become free.
        self.pass_on();
        let claim = self.pending.take_if(|claim| now.since(claim.made_at) >= ANSWER_MAX)?;
        let error = self.port.delay().unwrap_or_else(|| {
            let ms = ANSWER_MAX.as_nanos() / 1_000_000;
            format!("witness: no answer in {ms} ms: check the storage")
        });
        let error = self.news(error);
        Some(Answered { question: claim.question, answer: Answer::Unreachable, error })
    }

    /// Returns whether `answer` to `question` is one to the outstanding question. Every claim of a term has the same
    /// answer, so the answer to an earlier, equal question counts as well; but that the earlier one had none, which is
    /// known late, says nothing about this one, which is passed on now.
    fn counts(&self, question: Question, answer: Answer) -> bool {
        self.pending.is_some_and(|pending| {
            let is_answer = pending.is_passed_on || answer != Answer::Unreachable;
            (pending.question == question && is_answer)
                || self.mutants.has_driver(DriverMutant::TakeOlderAnswer)
        })
    }

    /// Returns `error` unless it was the last one reported.
    fn news(&mut self, error: String) -> Option<String> {
        let is_new = self.reported.as_ref() != Some(&error);
        is_new.then(|| {
            self.reported = Some(error.clone());
            error
        })
    }

    /// Returns whether the VM may wait for an answer: one to another question than a confirmation.
    pub fn is_awaited(&self) -> bool {
        self.pending.is_some_and(|pending| !pending.question.is_confirmation())
    }

    /// Returns whether an answer is outstanding.
    pub fn is_asked(&self) -> bool {
        self.pending.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use logchan::ids::{Claimant, Term};

    /// A port that has an answer when it is given one.
    #[derive(Default)]
    struct Port {
        answer: Option<Answer>,
        asked: Option<Question>,
        delay: Option<&'static str>,
    }

    impl WitnessPort for Port {
        fn try_ask(&mut self, question: Question) -> bool {
            self.asked.is_none() && self.asked.replace(question).is_none()
        }

        fn try_answer(&mut self) -> Option<(Question, Answer, Option<String>)> {
            let answer = self.answer.take()?;
            self.asked.take().map(|question| (question, answer, None))
        }

        fn delay(&self) -> Option<String> {
            self.delay.map(str::to_string)
        }
    }

    /// The storage hangs for longer than an answer may take, and fails then.
    #[test]
    fn question_is_passed_on_when_an_earlier_equal_one_ends_late_without_an_answer() {
        let question = Question::Confirm { term: Term(2), owner: Claimant(1) };
        let (port, answer) = (Port::default(), Answer::Unreachable);
        let mut client = WitnessClient::new(port, Mutants::default());
        let later = Time::from_nanos(0) + ANSWER_MAX;
        client.ask(Time::from_nanos(0), question);
        assert!(client.poll(later).is_some());
        client.ask(later, question);
        client.port.answer = Some(answer);
        assert_eq!(client.poll(later), None, "the answer is to the earlier question");
        assert_eq!(client.port.asked, Some(question), "the thread is free");
        client.port.answer = Some(answer);
        assert_eq!(client.poll(later), Some(Answered { question, answer, error: None }));
    }

    #[test]
    fn question_that_takes_long_is_unanswered_for_the_ports_reason_and_answered_later() {
        let question = Question::Claim {
            term: Term(2),
            previous: Claimant(1),
            cause: crate::witness::ClaimCause::PrimarySilent,
        };
        for (delay, error) in [
            (None, "witness: no answer in 1000 ms: check the storage"),
            (Some("a command runs"), "a command runs"),
        ] {
            let port = Port { delay, ..Port::default() };
            let mut client = WitnessClient::new(port, Mutants::default());
            let mut now = Time::from_nanos(0);
            client.ask(now, question);
            for error in [Some(error.to_string()), None] {
                assert_eq!(client.poll(now), None);
                now = now + ANSWER_MAX;
                let answer = Answer::Unreachable;
                assert_eq!(client.poll(now), Some(Answered { question, answer, error }));
                client.ask(now, question);
            }
            let answer = Answer::Won { term: Term(2) };
            client.port.answer = Some(answer);
            assert_eq!(client.poll(now), Some(Answered { question, answer, error: None }));
        }
    }
}
