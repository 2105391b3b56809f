//! [`WitnessThreads`]: asks the witness on threads of their own. Storage may be slow or never answer, and the vCPU
//! thread must not block. Confirmations have a thread of their own: one that hangs must not delay a claim.

use super::any::Witness;
use super::asking::Asking;
use super::fence::Fence;
use super::process::{Remote, WitnessProcess};
use super::times::{AnswerTimes, WitnessTimes};
use crate::kvm::kick::{self, Kicker};
use crate::sandbox::{self, Task};
use crossbeam::channel::{self, Receiver, Sender};
use replication::driver::WitnessPort;
use replication::witness::{Answer, Question};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The witness's threads, as the vCPU thread uses them.
#[derive(Debug)]
pub struct WitnessThreads {
    claims: WitnessThread,
    confirmations: WitnessThread,
    /// The thread of the claims runs the command of the fence.
    is_fencing: Arc<AtomicBool>,
    times: Arc<WitnessTimes>,
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
    pub fn start(witness: Witness, mut fence: Option<Fence>) -> io::Result<WitnessThreads> {
        let (witness, is_fencing) = (Arc::new(witness), Arc::<AtomicBool>::default());
        let times = Arc::<WitnessTimes>::default();
        if let Some(fence) = &mut fence {
            let flag = Arc::clone(&is_fencing);
            fence.report_runs(Box::new(move |runs| flag.store(runs, Ordering::Relaxed)));
        }
        let asked_here = |mut asking: Asking| {
            move |question: Question, reply: &Reply<'_>| {
                let answer = asking.answer(question);
                let is_taken = reply(answer.clone());
                // Nobody waits for this thread now.
                asking.prepare_next(question, &answer);
                is_taken
            }
        };
        let claims = asked_here(Asking::new(Arc::clone(&witness), fence));
        let confirmations = asked_here(Asking::new(witness, None));
        Ok(WitnessThreads {
            claims: WitnessThread::start("witness", (&times, |times| &times.claims), claims)?,
            confirmations: WitnessThread::start(
                "witness-check",
                (&times, |times| &times.confirmations),
                confirmations,
            )?,
            is_fencing,
            times,
        })
    }

    /// Starts the threads that ask the witness through `process`. As [`start`](Self::start), otherwise.
    ///
    /// # Errors
    ///
    /// A thread can't be started.
    pub fn through(process: WitnessProcess) -> io::Result<WitnessThreads> {
        let (claims, confirmations) = process.watch()?;
        let is_fencing = Arc::<AtomicBool>::default();
        let times = Arc::<WitnessTimes>::default();
        let asked_there = |remote: Remote| {
            let flag = Arc::clone(&is_fencing);
            move |question: Question, reply: &Reply<'_>| {
                reply(remote.ask(question, |runs| flag.store(runs, Ordering::Relaxed)))
            }
        };
        Ok(WitnessThreads {
            claims: WitnessThread::start(
                "witness",
                (&times, |times| &times.claims),
                asked_there(claims),
            )?,
            confirmations: WitnessThread::start(
                "witness-check",
                (&times, |times| &times.confirmations),
                asked_there(confirmations),
            )?,
            is_fencing,
            times,
        })
    }

    /// Returns how long the answers took, as the threads go on to fill it.
    pub fn times(&self) -> Arc<WitnessTimes> {
        Arc::clone(&self.times)
    }
}

/// Passes an answer on, or why there is none. Returns whether somebody still wants it.
type Reply<'r> = dyn Fn(Result<Answer, String>) -> bool + 'r;

impl WitnessThread {
    /// Starts a thread that handles each question with `handle`, until that returns false. How long the answers took is
    /// added to the part of `times` that belongs to the thread.
    fn start(
        name: &str,
        (times, part): (&Arc<WitnessTimes>, fn(&WitnessTimes) -> &AnswerTimes),
        mut handle: impl FnMut(Question, &Reply<'_>) -> bool + Send + 'static,
    ) -> io::Result<WitnessThread> {
        let (questions, received) = channel::bounded::<(Question, Kicker)>(1);
        let (answers_sent, answers) = channel::bounded(1);
        let times = Arc::clone(times);
        // A kick would interrupt the system calls of a question.
        kick::spawn_unkicked(name, move || {
            sandbox::enter(Task::Waiter);
            while let Ok((question, kicker)) = received.recv() {
                let asked_at = Instant::now();
                let reply = |answer| {
                    part(&times).record(asked_at.elapsed(), &answer);
                    let is_taken = answers_sent.send((question, answer)).is_ok();
                    kicker.kick();
                    is_taken
                };
                if !handle(question, &reply) {
                    return;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{FileWitness, WitnessConfig};
    use logchan::ids::{Claimant, Term, VmId, WitnessId};
    use std::path::Path;
    use std::time::Duration;

    fn witness_in(folder: &Path) -> Witness {
        let config = WitnessConfig {
            vm: VmId(7),
            key: None,
            claimant: Claimant(0xa),
            host: String::from("host"),
        };
        Witness::Folder(FileWitness::open(folder.into(), config, WitnessId(1)).unwrap())
    }

    #[test]
    fn next_claim_is_prepared_when_the_term_is_confirmed() {
        kick::install().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let witness = witness_in(folder.path());
        let mut threads = WitnessThreads::start(witness, None).unwrap();
        let prepared = folder.path().join(".000000000000000a.next-vm-7.term-2");
        for question in [
            Question::Boot { again: false, after: None },
            Question::Confirm { term: Term(1), owner: Claimant(0xa) },
        ] {
            assert!(!prepared.exists());
            assert!(threads.try_ask(question));
            let answer = loop {
                match threads.try_answer() {
                    None => std::thread::sleep(Duration::from_millis(1)),
                    Some(answer) => break answer,
                }
            };
            assert_eq!(answer, (question, Answer::Won { term: Term(1) }, None));
        }
        // The answer does not wait for it.
        while !prepared.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
