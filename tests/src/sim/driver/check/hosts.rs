//! Checks what a host does with its own failures, and that the VM is lost only with both its copies.

use logchan::time::Time;

use crate::sim::driver::check::Phase;
use crate::sim::driver::count::Count;
use crate::sim::driver::state::{Event, State};
use crate::sim::driver::thread::WakeBy;
use crate::sim::system::check::EndCause;
use crate::sim::system::process::ProcessId;
use crate::sim::{Checked, MS, require};

/// Longest time for which the vCPU's thread may wait for the terminal.
const BLOCKED_NS_MAX: u64 = 5 * MS;

/// The processes that have a copy of the VM.
#[derive(Debug, Default)]
pub(in crate::sim::driver) struct Copies {
    /// The processes that had a copy at the last check.
    holders: Vec<ProcessId>,
    /// Processes that have ended.
    pub(in crate::sim::driver) gone: Vec<(ProcessId, EndCause)>,
    /// Whether no process has a copy any more.
    pub(in crate::sim::driver) lost: bool,
}

impl Copies {
    fn is_gone(&self, process: ProcessId) -> bool {
        self.gone.iter().any(|&(id, gone)| id == process && gone != EndCause::Exited)
    }
}

impl State {
    /// The thread of `host` is about to wait for `by`. An old primary must not leave frames for the VM in its tap.
    pub(in crate::sim::driver) fn check_tap_is_heard(&self, host: usize, by: WakeBy) -> Checked {
        let own = &self.hosts[host];
        let passes_frames = own.process.as_ref().is_some_and(|process| process.passes_frames);
        require!(
            by.tap || !passes_frames || own.tap_queue.is_empty(),
            "host {host} has handed the VM over, and waits while {} frames are in its tap",
            own.tap_queue.len()
        );
        Ok(())
    }

    /// Updates the holders of a copy. The VM may be lost only if its last holder, or the process to which the
    /// witness granted the newest term, crashed, was stopped, or has lost its tap.
    pub(in crate::sim::driver) fn check_copies(&mut self) -> Checked {
        let holds = |host: &usize| self.has_vm_copy(*host);
        let holders = [0, 1].into_iter().filter(holds);
        let ids = holders.filter_map(|host| self.hosts[host].process.as_ref().map(|p| p.id));
        let holders: Vec<_> = ids.collect();
        if holders == self.copies.holders {
            return Ok(());
        }
        let had_it = std::mem::replace(&mut self.copies.holders, holders);
        if !self.copies.holders.is_empty() {
            return Ok(());
        }
        self.copies.lost = true;
        let given_to = self.witness.newest().map(|(_, owner)| owner);
        let died = had_it.iter().any(|&holder| self.copies.is_gone(holder));
        let given_away = given_to.is_some_and(|owner| self.copies.is_gone(owner));
        require!(
            died || given_away || self.witness.is_released(),
            "the VM is lost: {had_it:?} had it, {given_to:?} owns the newest term, ended processes: {:?}",
            self.copies.gone
        );
        let is_stopped = matches!(self.phase, Phase::Stop { .. });
        self.counts.add(Count::LostVms, u64::from(!is_stopped));
        self.note(None, "lost", format_args!("{had_it:?}"));
        Ok(())
    }

    /// A process whose tap had failed must be gone by now.
    pub(in crate::sim::driver) fn check_tap_deadline(
        &mut self,
        host: usize,
        id: ProcessId,
    ) -> Checked {
        let now = self.queue.now();
        let Some(process) = self.hosts[host].process.as_ref().filter(|p| p.id == id) else {
            return Ok(());
        };
        let since = process.tap_failed_at.unwrap_or(now);
        if self.hosts[host].frozen.is_some() {
            let by = now + self.tap_deadline_ns();
            self.queue.push(by, Event::TapDeadline { host, process: id });
            return Ok(());
        }
        require!(
            false,
            "the tap of host {host} has failed {} ms ago, and {id:?} goes on as {}",
            (now - since) / MS,
            process.role
        );
        Ok(())
    }

    /// The machine of `host` continues at `now`, by its clock, and the engine has this timeout. It must not be long
    /// overdue.
    pub(in crate::sim::driver) fn check_timeout(
        &self,
        host: usize,
        now: Time,
        timeout: Option<Time>,
    ) -> Checked {
        let Some(timeout) = timeout.filter(|_| !self.was_frozen(host)) else { return Ok(()) };
        let late_ns = now.since(timeout).as_nanos();
        let most_ns = self.late_ns_max(host);
        require!(
            late_ns <= most_ns,
            "a timeout of host {host} is {late_ns} ns overdue; at most {most_ns} are allowed"
        );
        Ok(())
    }

    /// Longest time for which the driver of `host` may do nothing for the link, because the guest runs or the machine
    /// works.
    pub(in crate::sim::driver) fn late_ns_max(&self, host: usize) -> u64 {
        let own = &self.hosts[host].options;
        let copy_ns = (own.capture_page_ns + own.copy_page_ns) * self.options.pair.memory_pages;
        3 * own.deadline_ns + own.exit_ns_max + own.tap_ns_max + copy_ns + 3 * MS
    }

    /// Whether `host` has just resumed, and its driver may not have had the opportunity to act.
    pub(in crate::sim::driver) fn was_frozen(&self, host: usize) -> bool {
        let own = &self.hosts[host];
        own.thaws > 0 && self.queue.now() <= own.thawed_at + self.late_ns_max(host)
    }

    /// The vCPU's thread of `host` has waited for `what` since `began`.
    pub(in crate::sim::driver) fn check_blocked(
        &self,
        host: usize,
        began: u64,
        what: &str,
    ) -> Checked {
        let waited_ns = self.queue.now() - began;
        require!(
            waited_ns <= BLOCKED_NS_MAX,
            "the vCPU of host {host} has waited {} ms for {what}",
            waited_ns / MS
        );
        Ok(())
    }
}
