//! Searches for planted bugs, and reports how many seeds each takes to find.

use std::fmt;

use logchan::channel::{Mutant as ChannelMutant, Mutants as ChannelMutants};
use replication::{Mutant, Mutants, WitnessMutant};

use super::System;
use super::pair::Bugs;
use crate::sim::runner::{self, Failure, Stop};

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// In the engine.
    Engine(Mutant),
    /// In its channel.
    Channel(ChannelMutant),
    /// In the rules of the witness.
    Witness(WitnessMutant),
    /// In the machine: an interrupted run counts as a natural exit.
    CountInterrupted,
    /// In the supervisor: a frozen process counts as dead, although it may go on at any time.
    NoticeWhileAlive,
    /// In the host's way to the witness: another storage in its place is not noticed.
    IgnoreIdentity,
    /// In the host's disk: requests that overlap take effect in any order.
    OverlapUnordered,
    /// In the host's way to the witness: a lost primary is not fenced, and the host goes live all the same.
    TakeoverWithoutFence,
}

/// Bugs of the channel that this simulator must find, too. Of the others, some cost only time, some need an
/// attacker who replays recorded frames, and some have no effect here: a replaced primary never accepts a
/// backup, so there is no old term to follow, and the engine does not use a channel after a Bye. The
/// simulator of the channel finds those.
const CHANNEL: [ChannelMutant; 12] = [
    ChannelMutant::AckGap,
    ChannelMutant::NoLeaseMargin,
    ChannelMutant::LeaseFromArrival,
    ChannelMutant::DeliverTwice,
    ChannelMutant::ForgetLastFrame,
    ChannelMutant::AckAfterSilence,
    ChannelMutant::CommitWithoutBulk,
    ChannelMutant::ForgetHeartbeat,
    ChannelMutant::BusyTimer,
    ChannelMutant::AskOnce,
    ChannelMutant::AnswerStrangers,
    ChannelMutant::TakeOldNotice,
];

impl Planted {
    /// All bugs that must be found.
    pub fn all() -> Vec<Self> {
        let engine = Mutant::ALL.iter().copied().map(Self::Engine);
        let channel = CHANNEL.into_iter().map(Self::Channel);
        let witness = WitnessMutant::ALL.iter().copied().map(Self::Witness);
        let others = [
            Self::CountInterrupted,
            Self::NoticeWhileAlive,
            Self::IgnoreIdentity,
            Self::OverlapUnordered,
            Self::TakeoverWithoutFence,
        ];
        engine.chain(channel).chain(witness).chain(others).collect()
    }

    /// The bug with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|planted| planted.to_string() == name)
    }

    pub(crate) fn bugs(self) -> Bugs {
        let none = Bugs::default();
        match self {
            Self::Engine(mutant) => Bugs { replica: Mutants::plant(mutant), ..none },
            Self::Channel(mutant) => {
                Bugs { replica: Mutants::of_channel(ChannelMutants::plant(mutant)), ..none }
            }
            Self::Witness(mutant) => Bugs { replica: Mutants::of_witness(mutant), ..none },
            Self::CountInterrupted => Bugs { count_interrupted: true, ..none },
            Self::NoticeWhileAlive => Bugs { notice_while_alive: true, ..none },
            Self::IgnoreIdentity => Bugs { ignores_identity: true, ..none },
            Self::OverlapUnordered => Bugs { ignores_order: true, ..none },
            Self::TakeoverWithoutFence => Bugs { skips_fence: true, ..none },
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Engine(mutant) => format!("{mutant:?}"),
            Self::Channel(mutant) => format!("{mutant:?}"),
            Self::Witness(mutant) => format!("{mutant:?}"),
            Self::CountInterrupted
            | Self::NoticeWhileAlive
            | Self::IgnoreIdentity
            | Self::OverlapUnordered
            | Self::TakeoverWithoutFence => format!("{self:?}"),
        };
        f.pad(&name)
    }
}

/// The result of searching for a planted bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bug.
    pub planted: Planted,
    /// Number of seeds run until the bug was found; all seeds if it was not.
    pub seeds: u64,
    /// The first failure, if the bug was found.
    pub failure: Option<Failure>,
}

/// Runs up to `seeds` seeds from `first` on with a planted bug, until one fails.
pub fn hunt(planted: Planted, first: u64, seeds: u64) -> Hunt {
    let scenario = System { planted: Some(planted) };
    let report = runner::run(&scenario, first, seeds, Stop::AtFirstFailure);
    let failure = report.failures.into_iter().next();
    let took = failure.as_ref().map_or(seeds, |failure| failure.seed.wrapping_sub(first) + 1);
    Hunt { planted, seeds: took, failure }
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { planted, seeds, failure } = self;
        match failure {
            Some(failure) => write!(f, "{planted:<22} {seeds:>6}  {}", failure.what),
            None => write!(f, "{planted:<22} {seeds:>6}  NOT FOUND"),
        }
    }
}
