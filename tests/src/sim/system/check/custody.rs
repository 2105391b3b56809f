//! Who has the VM, and whether it may be lost.

use vmm::replica::RoleName;

use super::output::is_whole;
use super::speaker::is_primary;
use crate::sim::system::count::Count;
use crate::sim::system::pair::Pair;
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::{Checked, require};

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It died.
    Crashed,
    /// Somebody stopped it.
    Stopped,
    /// It came to its end by itself.
    Ended,
}

/// Who has the VM.
#[derive(Debug, Default)]
pub(crate) struct Custody {
    /// Who had it when it was looked at last.
    holders: Vec<ProcessId>,
    /// Processes that are no more.
    pub(crate) gone: Vec<(ProcessId, Gone)>,
    /// Somebody stopped the VM in good order.
    pub(crate) stopped: bool,
    /// Nobody has it any more.
    pub(crate) lost: bool,
}

impl Custody {
    fn is_gone(&self, process: ProcessId) -> bool {
        self.gone.iter().any(|&(id, gone)| id == process && gone != Gone::Ended)
    }
}

impl Pair<'_> {
    /// Looks who has the VM now. It may be lost only with its last holder, or with the one that the
    /// witness gave it to.
    pub(crate) fn check_custody(&mut self) -> Checked {
        if self.custody.lost {
            return Ok(());
        }
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let holders: Vec<_> = processes.filter(|p| self.has_the_vm(p)).map(|p| p.id).collect();
        let had_it = std::mem::replace(&mut self.custody.holders, holders);
        if !self.custody.holders.is_empty() || had_it.is_empty() {
            return Ok(());
        }
        self.custody.lost = true;
        if self.custody.stopped {
            self.counts.count(Count::StoppedVms);
            return Ok(());
        }
        let died = had_it.iter().any(|&holder| self.custody.is_gone(holder));
        let given_to = self.witness.newest().map(|(_, owner)| owner);
        let given_away = given_to.is_some_and(|owner| self.custody.is_gone(owner));
        require!(
            died || given_away,
            "nobody has the VM any more: {had_it:?} had it, the witness gave it to {given_to:?}, {:?}",
            self.custody.gone
        );
        self.counts.count(Count::LostVms);
        self.trace.line(self.queue.now(), None, "lost", format_args!("{had_it:?}"));
        Ok(())
    }

    /// Whether a process has the VM: it runs it, or could take over. One that asks whether it may boot it
    /// does if it may.
    pub(crate) fn has_the_vm(&self, process: &Process) -> bool {
        let role = process.replica.role();
        let may_boot = self.witness.newest().is_none_or(|(_, owner)| owner == process.id);
        (is_primary(role) && (role != RoleName::Starting || may_boot)) || is_whole(role)
    }

    /// How many processes have the VM.
    pub(crate) fn holders(&self) -> usize {
        self.custody.holders.len()
    }
}
