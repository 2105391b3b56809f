//! [`WitnessClient`]: which claim the witness works on, which of its answers counts, and when the witness
//! counts as unreachable.

use super::host::WitnessPort;
use crate::mutant::{DriverMutant, Mutants};
use crate::replica::Answer;
use alloc::format;
use alloc::string::String;
use logchan::ids::{Claimant, Term};
use logchan::time::{Duration, Time};

/// Longest time to wait for an answer. After it, the witness counts as unreachable.
pub const ANSWER_MAX: Duration = Duration::from_millis(1000);

/// Client of a witness, for one thread.
#[derive(Debug)]
pub struct WitnessClient<W> {
    port: W,
    pending: Option<Claim>,
    /// The error that was reported last. A claim is repeated, and the same error is reported once.
    reported: Option<String>,
    mutants: Mutants,
}

/// An outstanding claim.
#[derive(Clone, Copy, Debug)]
struct Claim {
    term: Term,
    previous: Option<Claimant>,
    made_at: Time,
    /// The witness's thread works on it.
    is_passed_on: bool,
}

/// An answer that counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// The claimed term.
    pub term: Term,
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

    /// Claims `term` at `now`; `previous` must own the term before. One claim at a time.
    ///
    /// # Panics
    ///
    /// Panics if a claim is outstanding.
    pub fn ask(&mut self, now: Time, term: Term, previous: Option<Claimant>) {
        assert!(self.pending.is_none(), "one claim at a time");
        self.pending = Some(Claim { term, previous, made_at: now, is_passed_on: false });
        self.pass_on();
    }

    /// Passes the outstanding claim on, unless the thread still works on an earlier one.
    fn pass_on(&mut self) {
        if let Some(claim) = &mut self.pending
            && !claim.is_passed_on
        {
            claim.is_passed_on = self.port.try_ask(claim.term, claim.previous);
        }
    }

    /// Returns the answer to the outstanding claim, once it is there or has taken too long.
    pub fn poll(&mut self, now: Time) -> Option<Answered> {
        while let Some((term, answer, error)) = self.port.try_answer() {
            if answer != Answer::Unreachable {
                self.reported = None;
            }
            if self.counts(term) {
                let term = self.pending.take().map_or(term, |claim| claim.term);
                return Some(Answered { term, answer, error: error.and_then(|e| self.news(e)) });
            }
        }
        // The thread may have become free.
        self.pass_on();
        let claim = self.pending.take_if(|claim| now.since(claim.made_at) >= ANSWER_MAX)?;
        let ms = ANSWER_MAX.as_nanos() / 1_000_000;
        let error = self.news(format!("witness: no answer in {ms} ms: check the storage"));
        Some(Answered { term: claim.term, answer: Answer::Unreachable, error })
    }

    /// Returns whether an answer about `term` is one to the outstanding claim. Every claim of a term has the
    /// same answer, so the answer to an earlier claim of the same term counts as well.
    fn counts(&self, term: Term) -> bool {
        self.pending.is_some_and(|claim| {
            claim.term == term || self.mutants.has_driver(DriverMutant::TakeOlderAnswer)
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

    /// Returns whether an answer is outstanding.
    pub fn is_asked(&self) -> bool {
        self.pending.is_some()
    }
}
