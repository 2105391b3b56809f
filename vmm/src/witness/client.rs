//! [`WitnessClient`]: makes claims at a witness on a thread of its own. Storage may be slow or never answer,
//! and the vCPU thread must not block.

use super::file::{FileWitness, WitnessError};
use crate::kvm::kick::Kicker;
use crossbeam::channel::{self, Receiver, Sender};
use logchan::ids::{Claimant, Term};
use replication::replica::Answer;
use std::time::{Duration, Instant};

/// Longest time to wait for an answer. After it, the witness counts as unreachable.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Client of a witness, for one thread.
#[derive(Debug)]
pub struct WitnessClient {
    claims: Sender<(Term, Option<Claimant>)>,
    answers: Receiver<(Term, Result<bool, WitnessError>)>,
    /// The outstanding claim, and when it was made.
    pending: Option<(Term, Instant)>,
    /// The witness thread works on a claim. It may be one that timed out here.
    is_busy: bool,
    /// The error that was logged last. A claim is repeated, and the same error is logged once.
    logged: Option<String>,
}

impl WitnessClient {
    /// Starts the thread that asks `witness`. It kicks the calling thread when an answer is there. It ends
    /// when the client is dropped, or when a call that hangs returns after that.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub fn start(witness: FileWitness) -> std::io::Result<WitnessClient> {
        let kicker = Kicker::of_this_thread();
        let (claims, claims_received) = channel::bounded::<(Term, Option<Claimant>)>(1);
        let (answers_sent, answers) = channel::bounded(1);
        std::thread::Builder::new().name("witness".into()).spawn(move || {
            while let Ok((term, previous)) = claims_received.recv() {
                if answers_sent.send((term, witness.claim(term, previous))).is_err() {
                    return;
                }
                kicker.kick();
            }
        })?;
        Ok(WitnessClient { claims, answers, pending: None, is_busy: false, logged: None })
    }

    /// Claims `term`; `previous` must own the term before. One claim at a time.
    ///
    /// # Panics
    ///
    /// Panics if a claim is outstanding.
    pub fn ask(&mut self, term: Term, previous: Option<Claimant>) {
        assert!(self.pending.is_none(), "one claim at a time");
        self.pending = Some((term, Instant::now()));
        // While the thread hangs in an earlier claim, this one is not passed on and times out.
        if !self.is_busy {
            self.is_busy = self.claims.try_send((term, previous)).is_ok();
        }
    }

    /// Returns the answer to the outstanding claim, once it is there or has taken too long.
    pub fn poll(&mut self) -> Option<(Term, Answer)> {
        if let Ok((term, answer)) = self.answers.try_recv() {
            self.is_busy = false;
            if answer.is_ok() {
                self.logged = None;
            }
            // Every claim of a term has the same answer, so the answer to an earlier one is used as well.
            if self.pending.take_if(|(pending, _)| *pending == term).is_some() {
                return Some(match answer {
                    Ok(true) => (term, Answer::Won),
                    Ok(false) => (term, Answer::Lost),
                    Err(error) => {
                        self.log(error.to_string());
                        (term, Answer::Unreachable)
                    }
                });
            }
        }
        let (term, _) = self.pending.take_if(|(_, since)| since.elapsed() >= ANSWER_MAX)?;
        self.log(format!("witness: no answer in {ANSWER_MAX:?}: check the storage"));
        Some((term, Answer::Unreachable))
    }

    /// Logs `error` unless it was the last one logged.
    fn log(&mut self, error: String) {
        if self.logged.as_ref() != Some(&error) {
            tracing::warn!("{error}");
            self.logged = Some(error);
        }
    }

    /// Returns whether an answer is outstanding.
    pub fn is_asked(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns the latest time at which [`poll`](Self::poll) returns an answer.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.map(|(_, since)| since + ANSWER_MAX)
    }
}
