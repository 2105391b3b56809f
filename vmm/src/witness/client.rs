//! [`WitnessThreads`]: asks the witness on threads of their own. Storage may be slow or never answer, and the vCPU
//! thread must not block. Confirmations have a thread of their own: one that hangs must not delay a claim.

use super::any::Witness;
use super::fence::Fence;
use crate::kvm::kick::{self, Kicker};
use crossbeam::channel::{self, Receiver, Sender};
use replication::driver::WitnessPort;
use replication::witness::{Answer, Question};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The witness's threads, as the vCPU thread uses them.
#[derive(Debug)]
pub struct WitnessThreads {
    claims: WitnessThread,
    confirmations: WitnessThread,
    /// The thread of the claims runs the command of the fence.
    is_fencing: Arc<AtomicBool>,
}

/// A thread that asks the witness.
#[derive(Debug)]
struct WitnessThread {
    /// With the thread that asks.
    questions: Sender<(Question, Kicker)>,
    /// An error says why there is no answer.
    answers: Receiver<(Question, Result<Answer, String>)>,
    /// The thread works on a question.
    is_busy: bool,
}

impl WitnessThreads {
    /// Starts the threads that ask `witness`. An answer that lets this host take the VM over is passed on when
    /// `fence` has succeeded. They kick the thread that asked when an answer is there. They end
    /// when this value is dropped, or when a call that hangs returns after that.
    ///
    /// Must not be called on a vCPU thread. The threads would inherit that RDTSC is trapped
    /// ([`clock`](crate::kvm::clock)), and libc reads clocks in its own way while it resolves a name.
    ///
    /// # Errors
    ///
    /// A thread can't be started.
    pub fn start(witness: Witness, fence: Option<Fence>) -> io::Result<WitnessThreads> {
        let witness = Arc::new(witness);
        let is_fencing = fence.as_ref().map_or_else(Arc::default, Fence::running);
        Ok(WitnessThreads {
            claims: WitnessThread::start("witness", Arc::clone(&witness), fence)?,
            confirmations: WitnessThread::start("witness-check", witness, None)?,
            is_fencing,
        })
    }
}

impl WitnessThread {
    fn start(
        name: &str,
        witness: Arc<Witness>,
        mut fence: Option<Fence>,
    ) -> io::Result<WitnessThread> {
        let (questions, received) = channel::bounded::<(Question, Kicker)>(1);
        let (answers_sent, answers) = channel::bounded(1);
        // A kick would interrupt the system calls of a question.
        kick::spawn_unkicked(name, move || {
            while let Ok((question, kicker)) = received.recv() {
                let answer = answer(&witness, fence.as_mut(), question);
                if answers_sent.send((question, answer)).is_err() {
                    return;
                }
                kicker.kick();
            }
        })?;
        Ok(WitnessThread { questions, answers, is_busy: false })
    }

    fn try_ask(&mut self, question: Question) -> bool {
        if self.is_busy {
            return false;
        }
        let asked = self.questions.try_send((question, Kicker::of_this_thread()));
        self.is_busy = asked.is_ok();
        self.is_busy
    }

    fn try_answer(&mut self) -> Option<(Question, Answer, Option<String>)> {
        let (question, answer) = self.answers.try_recv().ok()?;
        self.is_busy = false;
        Some(match answer {
            Ok(answer) => (question, answer, None),
            Err(reason) => (question, Answer::Unreachable, Some(reason)),
        })
    }
}

/// Asks `witness`, and fences the lost host if the answer requires it.
fn answer(
    witness: &Witness,
    fence: Option<&mut Fence>,
    question: Question,
) -> Result<Answer, String> {
    let answer = witness.answer(question).map_err(|error| error.to_string())?;
    if let Some(fence) = fence {
        fence.require(question, answer)?;
    }
    Ok(answer)
}

impl WitnessPort for WitnessThreads {
    fn try_ask(&mut self, question: Question) -> bool {
        match question.is_confirmation() {
            true => self.confirmations.try_ask(question),
            false => self.claims.try_ask(question),
        }
    }

    fn try_answer(&mut self) -> Option<(Question, Answer, Option<String>)> {
        self.claims.try_answer().or_else(|| self.confirmations.try_answer())
    }

    fn delay(&self) -> Option<String> {
        let text = "--fence runs: this host takes the VM over when it has succeeded";
        self.is_fencing.load(Ordering::Relaxed).then(|| text.to_string())
    }
}
