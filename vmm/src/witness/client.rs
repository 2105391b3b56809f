//! [`WitnessThreads`]: asks the witness on threads of their own. Storage may be slow or never answer, and the vCPU
//! thread must not block. Confirmations have a thread of their own: one that hangs must not delay a claim.

use super::any::Witness;
use super::fence::Fence;
use crate::kvm::kick::{self, Kicker};
use crossbeam::channel::{self, Receiver, Sender};
use logchan::ids::Term;
use replication::driver::WitnessPort;
use replication::witness::{Answer, Question};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a witness that took a claim on trial counts as one that takes claims.
const TRIAL_INTERVAL: Duration = Duration::from_secs(10);

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
            let mut trial = Trial::default();
            while let Ok((question, kicker)) = received.recv() {
                let answer = answer(&witness, fence.as_mut(), question)
                    .and_then(|answer| trial.check(&witness, question, answer));
                let confirmed = confirmed(question, &answer);
                if answers_sent.send((question, answer)).is_err() {
                    return;
                }
                kicker.kick();
                // Nobody waits for this thread now.
                if let Some(Term(term)) = confirmed {
                    witness.prepare(Term(term.saturating_add(1)));
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

/// Whether the witness would take a claim. It is tried now and then: a host that can't take over must be known before it
/// has to.
#[derive(Default)]
struct Trial {
    passed_at: Option<Instant>,
}

impl Trial {
    /// Returns `answer`, or why a claim would have none, if a term was confirmed. After a failure, every confirmation
    /// tries again.
    fn check(
        &mut self,
        witness: &Witness,
        question: Question,
        answer: Answer,
    ) -> Result<Answer, String> {
        let is_due = self.passed_at.is_none_or(|at| at.elapsed() >= TRIAL_INTERVAL);
        if question.is_confirmation()
            && is_due
            && let Answer::Won { .. } = answer
        {
            self.passed_at = None;
            witness.try_claims().map_err(|error| error.to_string())?;
            self.passed_at = Some(Instant::now());
        }
        Ok(answer)
    }
}

/// Returns the term that was confirmed, if the question was for that and the answer is yes.
fn confirmed(question: Question, answer: &Result<Answer, String>) -> Option<Term> {
    match answer {
        Ok(Answer::Won { term }) if question.is_confirmation() => Some(*term),
        Ok(Answer::Won { .. } | Answer::Lost { .. } | Answer::Unreachable) | Err(_) => None,
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
    use logchan::ids::{Claimant, VmId, WitnessId};
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
            Question::Boot { again: false },
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

    #[test]
    fn term_is_not_confirmed_while_the_folder_takes_no_claim() {
        let folder = tempfile::tempdir().unwrap();
        let witness = witness_in(folder.path());
        let question = Question::Confirm { term: Term(1), owner: Claimant(0xa) };
        let won = Answer::Won { term: Term(1) };
        let mut trial = Trial::default();
        // A folder in the place of the file that the trial makes. Root may write to a read-only folder.
        let obstacle = folder.path().join(".000000000000000a.probe");
        std::fs::create_dir(&obstacle).unwrap();
        let error = trial.check(&witness, question, won).unwrap_err();
        assert!(error.contains("a claim"), "{error}");
        // A claim is not delayed by a trial, and a lost term needs none.
        assert_eq!(trial.check(&witness, Question::Boot { again: false }, won), Ok(won));
        let lost = Answer::Lost { newest: Term(2) };
        assert_eq!(trial.check(&witness, question, lost), Ok(lost));
        std::fs::remove_dir(&obstacle).unwrap();
        assert_eq!(trial.check(&witness, question, won), Ok(won));
        // It has just passed.
        std::fs::create_dir(&obstacle).unwrap();
        assert_eq!(trial.check(&witness, question, won), Ok(won));
    }

    #[test]
    fn only_a_confirmation_that_is_won_confirms_a_term() {
        let confirm = Question::Confirm { term: Term(1), owner: Claimant(1) };
        let won = Answer::Won { term: Term(1) };
        assert_eq!(confirmed(confirm, &Ok(won)), Some(Term(1)));
        for (question, answer) in [
            (confirm, Ok(Answer::Lost { newest: Term(2) })),
            (confirm, Err(String::new())),
            (Question::Boot { again: false }, Ok(won)),
            (Question::Release { term: Term(0) }, Ok(won)),
        ] {
            assert_eq!(confirmed(question, &answer), None, "{question:?}");
        }
    }
}
