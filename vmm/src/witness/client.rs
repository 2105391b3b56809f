//! [`WitnessClient`]: asks a witness on a thread of its own, because storage may take its time or
//! never answer, and whoever speaks for a VM cannot wait for it.

use super::file::{FileWitness, WitnessError};
use crate::kvm::kick::Kicker;
use crate::replica::Answer;
use crossbeam::channel::{self, Receiver, Sender};
use logchan::ids::{Claimant, Term};
use std::time::{Duration, Instant};

/// An answer that takes longer than this is none.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// One thread's way to a witness.
#[derive(Debug)]
pub struct WitnessClient {
    questions: Sender<(Term, Option<Claimant>)>,
    answers: Receiver<(Term, Result<bool, WitnessError>)>,
    /// Asked and not answered, and since when.
    open: Option<(Term, Instant)>,
    /// The thread has a question, perhaps one that was given up.
    is_busy: bool,
    /// Why there was no answer, as it was logged last: the same question is asked again and again.
    logged: Option<String>,
}

impl WitnessClient {
    /// Asks `witness`; the calling thread is kicked when an answer is there. The thread behind it
    /// ends with the client, or with the call that hangs.
    pub fn start(witness: FileWitness) -> std::io::Result<WitnessClient> {
        let kicker = Kicker::of_this_thread();
        let (questions, asked) = channel::bounded::<(Term, Option<Claimant>)>(1);
        let (answered, answers) = channel::bounded(1);
        std::thread::Builder::new().name("witness".into()).spawn(move || {
            while let Ok((term, previous)) = asked.recv() {
                if answered.send((term, witness.claim(term, previous))).is_err() {
                    return;
                }
                kicker.kick();
            }
        })?;
        Ok(WitnessClient { questions, answers, open: None, is_busy: false, logged: None })
    }

    /// Asks for `term`, the term before being `previous`'s. One question at a time.
    ///
    /// # Panics
    ///
    /// When one is open.
    pub fn ask(&mut self, term: Term, previous: Option<Claimant>) {
        assert!(self.open.is_none(), "one question at a time");
        self.open = Some((term, Instant::now()));
        // While the thread hangs in an earlier question, this one is given up like that.
        if !self.is_busy {
            self.is_busy = self.questions.try_send((term, previous)).is_ok();
        }
    }

    /// The answer to the open question, if it is there or has taken too long.
    pub fn poll(&mut self) -> Option<(Term, Answer)> {
        if let Ok((term, answer)) = self.answers.try_recv() {
            self.is_busy = false;
            if answer.is_ok() {
                self.logged = None;
            }
            // A claim of the same term has the same answer, whenever it was made.
            if self.open.take_if(|(open, _)| *open == term).is_some() {
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
        let (term, _) = self.open.take_if(|(_, since)| since.elapsed() >= ANSWER_MAX)?;
        self.log(format!("witness: no answer in {ANSWER_MAX:?}"));
        Some((term, Answer::Unreachable))
    }

    fn log(&mut self, why: String) {
        if self.logged.as_ref() != Some(&why) {
            tracing::warn!("{why}");
            self.logged = Some(why);
        }
    }

    /// Whether an answer is waited for.
    pub fn is_asked(&self) -> bool {
        self.open.is_some()
    }

    /// When [`poll`](Self::poll) has something to say at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.open.map(|(_, since)| since + ANSWER_MAX)
    }
}
