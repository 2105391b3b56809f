//! The loss of a host with all its VMs.

use super::hosts::{Hosts, Takeover};
use super::member::Member;
use super::network::Host;
use crate::TestbedError;
use crate::clock::boottime_ns;
use nix::sys::signal::Signal;

/// A process that was lost with its host.
#[derive(Debug)]
pub struct Lost {
    member: Member,
    /// Time just before the first process of the host was killed, by CLOCK_BOOTTIME in nanoseconds.
    pub killed_ns: u64,
    /// What the process was to its VM.
    pub part: LostPart,
}

/// What a process was to its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostPart {
    /// It ran the VM.
    Primary,
    /// It protected the VM.
    Backup,
}

/// How a VM has survived the loss of a host.
#[derive(Clone, Copy, Debug)]
pub enum Survival {
    /// The other host has taken it over.
    TakenOver(Takeover),
    /// It ran on the other host, which has noticed the loss of its backup.
    Continued {
        /// When the other host had the right to continue alone, by CLOCK_BOOTTIME in nanoseconds.
        alone_ns: u64,
    },
    /// The other host had taken it over before the first process was killed.
    Left,
}

/// Loses `host` with its processes of all `vms`, as a loss of power does: nobody is left to tell of it. Returns what each
/// VM has lost, in their order.
///
/// # Errors
///
/// A VM has no process on the host.
///
/// # Panics
///
/// If a VM is not known to have a process that holds its term.
pub fn lose_host(vms: &mut [Hosts], host: Host) -> Result<Vec<Lost>, TestbedError> {
    // First, because a supervisor outlives its process and tells.
    for vm in &*vms {
        vm.on(host)?.kill_supervisor();
    }
    let killed_ns = boottime_ns();
    for vm in &*vms {
        vm.on(host)?.signal(Signal::SIGKILL);
    }
    Ok(vms.iter_mut().map(|vm| vm.take_lost(host, killed_ns)).collect())
}

impl Hosts {
    fn take_lost(&mut self, host: Host, killed_ns: u64) -> Lost {
        let leader = self.leader().expect("a protected VM has a leader").host;
        let part = if leader == host { LostPart::Primary } else { LostPart::Backup };
        let member = self.members[host.index()].take().expect("it was there a moment ago");
        Lost { member, killed_ns, part }
    }

    /// Waits until the VM runs on the host that is left, and the descriptors of the killed process are closed.
    ///
    /// # Errors
    ///
    /// If it does not in time, or a process or a client fails.
    pub fn survive(&mut self, lost: Lost) -> Result<Survival, TestbedError> {
        let Lost { mut member, killed_ns, part } = lost;
        let dead = member.host;
        let other = dead.other().index();
        let survival = match part {
            LostPart::Primary => {
                let ((lost_ns, noticed_by), live_ns) =
                    self.wait("the other host to go live", |hosts| {
                        let state = &hosts.members[other].as_ref()?.state;
                        state.lost.zip(state.live_ns)
                    })?;
                self.leadership.end(dead, killed_ns.min(live_ns));
                if live_ns <= killed_ns {
                    self.counts.unplanned += 1;
                    Survival::Left
                } else {
                    Survival::TakenOver(Takeover { dead, killed_ns, lost_ns, noticed_by, live_ns })
                }
            }
            LostPart::Backup => {
                let alone_ns = self.wait("the primary to continue alone", |hosts| {
                    let state = &hosts.members[other].as_ref()?.state;
                    state.term_won_ns.filter(|won_ns| *won_ns > killed_ns)
                })?;
                Survival::Continued { alone_ns }
            }
        };
        member.reap(self.patience())?;
        Ok(survival)
    }
}
