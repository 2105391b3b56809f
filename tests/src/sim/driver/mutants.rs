//! Searches for planted bugs, and reports how many seeds each takes to find.

use std::fmt;

use replication::DriverMutant;

use super::DriverScenario;
use crate::sim::runner::{self, Failure, Stop};

/// The bug with this name.
pub fn by_name(name: &str) -> Option<DriverMutant> {
    DriverMutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name)
}

/// The result of searching for a planted bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bug.
    pub planted: DriverMutant,
    /// Number of seeds run until the bug was found; all seeds if it was not.
    pub seeds: u64,
    /// The first failure, if the bug was found.
    pub failure: Option<Failure>,
}

/// Runs up to `seeds` seeds from `first` on with a planted bug, until one fails.
pub fn hunt(planted: DriverMutant, first: u64, seeds: u64) -> Hunt {
    let scenario = DriverScenario { planted: Some(planted) };
    let report = runner::run(&scenario, first, seeds, Stop::AtFirstFailure);
    let failure = report.failures.into_iter().next();
    let took = failure.as_ref().map_or(seeds, |failure| failure.seed.wrapping_sub(first) + 1);
    Hunt { planted, seeds: took, failure }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { planted, seeds, failure } = self;
        let planted = format!("{planted:?}");
        match failure {
            Some(failure) => write!(f, "{planted:<22} {seeds:>6}  {}", failure.what),
            None => write!(f, "{planted:<22} {seeds:>6}  NOT FOUND"),
        }
    }
}
