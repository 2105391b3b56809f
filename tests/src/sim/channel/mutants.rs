//! Searches for the bugs that can be planted in the code under test. A planted bug that the simulator does
//! not find shows a rule that no checker covers.

use std::fmt;

use logchan::channel::Mutant;

use super::ChannelScenario;
use crate::sim::runner::{self, Failure, Stop};

/// The bug with this name.
pub fn by_name(name: &str) -> Option<Mutant> {
    Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
}

/// The result of searching for a planted bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bug.
    pub mutant: Mutant,
    /// Number of seeds run until the bug was found, the last one included; all seeds if it was not.
    pub seeds: u64,
    /// The first failure, if the bug was found.
    pub failure: Option<Failure>,
}

/// Runs up to `seeds` seeds from `first` on with `mutant` planted, until one fails.
pub fn hunt(mutant: Mutant, first: u64, seeds: u64) -> Hunt {
    let scenario = ChannelScenario { mutant: Some(mutant) };
    let report = runner::run(&scenario, first, seeds, Stop::AtFirstFailure);
    let failure = report.failures.into_iter().next();
    let needed = failure.as_ref().map_or(seeds, |failure| failure.seed.wrapping_sub(first) + 1);
    Hunt { mutant, seeds: needed, failure }
}

/// Formats a line of the table of all bugs.
impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", self.mutant);
        match &self.failure {
            Some(Failure { what, .. }) => {
                let what: String = what.chars().take(100).collect();
                write!(f, "  {name:<20} {:>5} seeds  {what}", self.seeds)
            }
            None => write!(f, "  {name:<20} NOT FOUND in {} seeds", self.seeds),
        }
    }
}
