//! Tracks which processes have a copy of the VM, and checks that it is lost only with all its copies.

use replication::replica::RoleName;

use super::output::is_synced_backup;
use super::speaker::is_primary;
use crate::sim::system::count::Count;
use crate::sim::system::pair::Pair;
use crate::sim::system::process::{Process, ProcessId};
use crate::sim::{Checked, require};

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndCause {
    /// It crashed.
    Crashed,
    /// It was stopped on request.
    Stopped,
    /// It exited by itself.
    Exited,
}

/// The processes that have a copy of the VM.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The processes that had a copy at the last check.
    holders: Vec<ProcessId>,
    /// Processes that have ended.
    pub(crate) gone: Vec<(ProcessId, EndCause)>,
    /// Whether the VM was stopped in an orderly way.
    pub(crate) stopped: bool,
    /// Whether no process has a copy any more.
    pub(crate) lost: bool,
}

impl Copies {
    fn is_gone(&self, process: ProcessId) -> bool {
        self.gone.iter().any(|&(id, gone)| id == process && gone != EndCause::Exited)
    }
}

impl Pair<'_> {
    /// Updates the holders of a copy. The VM may be lost only if its last holder, or the process to which the
    /// witness granted the newest term, crashed or was stopped.
    pub(crate) fn check_copies(&mut self) -> Checked {
        if self.copies.lost {
            return Ok(());
        }
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let holders: Vec<_> = processes.filter(|p| self.has_vm_copy(p)).map(|p| p.id).collect();
        let had_it = std::mem::replace(&mut self.copies.holders, holders);
        if !self.copies.holders.is_empty() || had_it.is_empty() {
            return Ok(());
        }
        self.copies.lost = true;
        if self.copies.stopped {
            self.counts.count(Count::StoppedVms);
            return Ok(());
        }
        let died = had_it.iter().any(|&holder| self.copies.is_gone(holder));
        let given_to = self.witness.newest().map(|(_, owner)| owner);
        let given_away = given_to.is_some_and(|owner| self.copies.is_gone(owner));
        require!(
            died || given_away || self.witness.is_released(),
            "the VM is lost: {had_it:?} had it, {given_to:?} owns the newest term, ended processes: {:?}",
            self.copies.gone
        );
        self.counts.count(Count::LostVms);
        self.trace.line(self.queue.now(), None, "lost", format_args!("{had_it:?}"));
        Ok(())
    }

    /// Whether a process has a copy of the VM: it runs the VM or could take over. A process that still asks
    /// for the right to boot the VM counts if the witness would grant it.
    pub(crate) fn has_vm_copy(&self, process: &Process) -> bool {
        let role = process.replica.role();
        let may_boot = self.witness.newest().is_none_or(|(_, owner)| owner == process.id);
        (is_primary(role) && (role != RoleName::Starting || may_boot)) || is_synced_backup(role)
    }

    /// Number of processes that have a copy of the VM.
    pub(crate) fn holders(&self) -> usize {
        self.copies.holders.len()
    }
}
