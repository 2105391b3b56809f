//! [`WitnessThread`]: asks the witness on a thread of its own. Storage may be slow or never answer, and the vCPU
//! thread must not block.

use super::file::{FileWitness, WitnessError};
use crate::kvm::kick::Kicker;
use crossbeam::channel::{self, Receiver, Sender};
use logchan::ids::{Claimant, Term};
use replication::driver::WitnessPort;
use replication::replica::Answer;

/// The witness's thread, as the vCPU thread uses it.
#[derive(Debug)]
pub struct WitnessThread {
    claims: Sender<(Term, Option<Claimant>)>,
    answers: Receiver<(Term, Result<bool, WitnessError>)>,
    /// The thread works on a claim.
    is_busy: bool,
}

impl WitnessThread {
    /// Starts the thread that asks `witness`. It kicks the calling thread when an answer is there. It ends
    /// when this value is dropped, or when a call that hangs returns after that.
    ///
    /// # Errors
    ///
    /// The thread can't be started.
    pub fn start(witness: FileWitness) -> std::io::Result<WitnessThread> {
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
        Ok(WitnessThread { claims, answers, is_busy: false })
    }
}

impl WitnessPort for WitnessThread {
    fn try_ask(&mut self, term: Term, previous: Option<Claimant>) -> bool {
        if self.is_busy {
            return false;
        }
        self.is_busy = self.claims.try_send((term, previous)).is_ok();
        self.is_busy
    }

    fn try_answer(&mut self) -> Option<(Term, Answer, Option<String>)> {
        let (term, answer) = self.answers.try_recv().ok()?;
        self.is_busy = false;
        Some(match answer {
            Ok(true) => (term, Answer::Won, None),
            Ok(false) => (term, Answer::Lost, None),
            Err(error) => (term, Answer::Unreachable, Some(error.to_string())),
        })
    }
}
