//! [`WitnessTimes`]: how long the witness takes to answer.

use crate::telemetry::{SharedTimes, TimeBuckets};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the answers of the witness took. Its threads fill this, and the vCPU thread has nothing to do with it.
#[derive(Debug, Default)]
pub struct WitnessTimes {
    /// Claims, with the command of the fence.
    pub claims: AnswerTimes,
    /// Confirmations, and the trials whether a claim would be taken.
    pub confirmations: AnswerTimes,
}

/// How long the answers to one kind of question took.
#[derive(Debug, Default)]
pub struct AnswerTimes {
    answered: SharedTimes,
    failed: AtomicU64,
}

impl AnswerTimes {
    /// Adds a question that had an answer, or none, after `time`.
    pub(super) fn record<A, E>(&self, time: Duration, answer: &Result<A, E>) {
        match answer {
            Ok(_) => self.answered.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            Err(_) => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Returns the times until there was an answer.
    pub fn answered(&self) -> TimeBuckets {
        self.answered.load()
    }

    /// Returns how many questions had no answer.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
