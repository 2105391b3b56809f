//! Processes that die.

use vmm::replica::RoleName;

use super::check::{Gone, is_primary};
use super::count::Count;
use super::pair::Pair;
use super::process::Place;
use crate::sim::rng::Chance;

/// At what point a process dies that is to die at a certain point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// It has just logged an output.
    Output,
    /// One has just left.
    Release,
    /// It is about to send a checkpoint, or is sending one.
    Checkpoint,
}

/// What has just left, and is not in the log that the backup has, is worth most.
const TRIGGERS: [Trigger; 4] =
    [Trigger::Output, Trigger::Release, Trigger::Release, Trigger::Checkpoint];

/// The last copy of a VM is seldom destroyed: there is nothing to learn from what follows.
pub(crate) const SPARES_LAST: Chance = Chance::percent(93);

impl Pair<'_> {
    pub(crate) fn role(&self, host: usize) -> Option<RoleName> {
        self.hosts[host].process.as_ref().map(|process| process.replica.role())
    }

    /// Whether the process of `host` has the only copy of the VM.
    pub(crate) fn is_last(&self, host: usize) -> bool {
        let has_it = self.hosts[host].process.as_ref().is_some_and(|p| self.has_the_vm(p));
        has_it && self.holders() == 1
    }

    /// A process dies, now or soon.
    pub(crate) fn crash(&mut self, host: usize) {
        // The primary of a protected VM, if there is one: of that there is most to learn.
        let protected = (0..2).find(|&host| self.role(host) == Some(RoleName::Protected));
        let host = protected.filter(|_| self.rng.chance(Chance::percent(60))).unwrap_or(host);
        if self.hosts[host].process.is_none() || self.is_last(host) && self.rng.chance(SPARES_LAST)
        {
            return;
        }
        let trigger = self.rng.pick(&TRIGGERS);
        if protected == Some(host) && self.rng.chance(Chance::percent(60)) {
            self.hosts[host].trigger = Some(trigger);
        } else {
            self.die(host);
        }
    }

    fn die(&mut self, host: usize) {
        let primary = self.role(host).is_some_and(is_primary);
        self.counts.count(Count::Crashes);
        self.counts.add(Count::CrashesOfPrimary, primary.into());
        self.bury(host, Gone::Crashed);
    }

    /// The process of `host` is at a point at which it may have to die: what it has sent is on its way.
    pub(crate) fn pull_trigger(&mut self, host: usize, at: Trigger) {
        if self.hosts[host].trigger == Some(at) {
            self.hosts[host].trigger = None;
            self.hosts[host].dies = self.is_faulty() && !self.is_last(host);
        }
    }

    /// The turn is over in which the process of `host` had to die.
    pub(crate) fn end_turn(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].dies) {
            self.die(host);
        }
    }

    /// Some processes die when they are at a certain point.
    pub(crate) fn look_at_place(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        if let Place::Capture(_) = process.place {
            self.pull_trigger(host, Trigger::Checkpoint);
        }
    }
}
