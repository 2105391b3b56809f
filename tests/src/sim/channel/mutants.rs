//! Whether the simulator finds the bugs that are planted into the code under test. One that it does
//! not find is a rule that nobody watches.

use std::fmt;

use logchan::channel::Mutant;

use super::ChannelScenario;
use crate::sim::runner::{self, Failure, Stop};

/// The bug with this name.
pub fn by_name(name: &str) -> Option<Mutant> {
    Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
}

/// How a planted bug was found.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bug.
    pub mutant: Mutant,
    /// Seeds that ran until it was found, this one included; or all of them.
    pub seeds: u64,
    /// The first failure.
    pub failure: Option<Failure>,
}

/// Looks for `mutant` in `seeds` seeds from `first` on.
pub fn hunt(mutant: Mutant, first: u64, seeds: u64) -> Hunt {
    let scenario = ChannelScenario { mutant: Some(mutant) };
    let report = runner::run(&scenario, first, seeds, Stop::AtFirstFailure);
    let failure = report.failures.into_iter().next();
    let needed = failure.as_ref().map_or(seeds, |failure| failure.seed.wrapping_sub(first) + 1);
    Hunt { mutant, seeds: needed, failure }
}

/// A line of the table of all bugs.
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
