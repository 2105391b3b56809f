//! [`Asking`]: asks the witness, with all that belongs to a question: the fence, the trial, and the next claim.

use super::any::Witness;
use super::fence::Fence;
use logchan::ids::Term;
use replication::witness::{Answer, Question};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a witness that took a claim on trial counts as one that takes claims.
const TRIAL_INTERVAL: Duration = Duration::from_secs(10);

/// Asks a witness, on one thread.
pub(super) struct Asking {
    witness: Arc<Witness>,
    fence: Option<Fence>,
    trial: Trial,
}

impl Asking {
    /// An answer that lets this host take the VM over is returned when `fence` has succeeded.
    pub(super) fn new(witness: Arc<Witness>, fence: Option<Fence>) -> Asking {
        Asking { witness, fence, trial: Trial::default() }
    }

    /// Returns the answer to `question`, or why there is none.
    pub(super) fn answer(&mut self, question: Question) -> Result<Answer, String> {
        answer(&self.witness, self.fence.as_mut(), question)
            .and_then(|answer| self.trial.check(&self.witness, question, answer))
    }

    /// Prepares the next claim, if `answer` to `question` has confirmed a term. May take a while.
    pub(super) fn prepare_next(&self, question: Question, answer: &Result<Answer, String>) {
        if let Some(Term(term)) = confirmed(question, answer) {
            self.witness.prepare(Term(term.saturating_add(1)));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{FileWitness, WitnessConfig};
    use logchan::ids::{Claimant, VmId, WitnessId};
    use std::path::Path;

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
        assert_eq!(
            trial.check(&witness, Question::Boot { again: false, after: None }, won),
            Ok(won)
        );
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
            (Question::Boot { again: false, after: None }, Ok(won)),
            (Question::Release { term: Term(0) }, Ok(won)),
        ] {
            assert_eq!(confirmed(question, &answer), None, "{question:?}");
        }
    }
}
