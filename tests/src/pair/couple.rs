//! [`Couple`].

use super::process::Process;
use super::rig::Rig;
use crate::patience::Waiting;
use crate::wait_for;
use nix::sys::signal::Signal;
use testbed::pair::{Host, PairEvent, Part, Why};

/// Sums over all processes of a couple.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Takeovers without a kill of the primary.
    pub unplanned: usize,
    /// Backups declared dead without a kill.
    pub losses: usize,
    /// Detected divergences.
    pub divergences: usize,
}

impl PairCounts {
    fn add(&mut self, process: &mut Process) {
        self.losses += process.count(|event| {
            matches!(event, PairEvent::BackupSilent { .. } | PairEvent::BackupGone { .. })
        });
        self.divergences += process.count(|event| matches!(event, PairEvent::Diverged { .. }));
    }
}

/// A process on either host. Each process that ends is replaced by a new backup.
pub struct Couple<'r> {
    rig: &'r Rig,
    processes: [Option<Process>; 2],
    backups_killed: usize,
    /// Counts of the processes that have ended.
    counts: PairCounts,
}

impl<'r> Couple<'r> {
    /// Boots the VM on host A and starts a backup on host B.
    pub fn start(rig: &'r Rig) -> Couple<'r> {
        let mut primary = rig.start(Part::Primary, Host::A, &[]);
        wait_for!(primary, PairEvent::TermWon);
        let processes = [Some(primary), None];
        let mut couple =
            Couple { rig, processes, backups_killed: 0, counts: PairCounts::default() };
        couple.protect();
        couple
    }

    /// Waits until the VM is protected, starting new backups as needed. Returns the primary's host.
    ///
    /// # Panics
    ///
    /// If a process ended for another reason than a takeover by the other host.
    pub fn protect(&mut self) -> Host {
        let waiting = Waiting::default();
        loop {
            for host in Host::ALL {
                self.replace(host);
            }
            if let Some(speaker) = self.speaker()
                && speaker.state().protected.is_some()
            {
                return speaker.host();
            }
            waiting.pause(|| format!("a protected VM:\n{}", self.transcript()));
        }
    }

    /// Starts a backup on `host` if no process runs there.
    fn replace(&mut self, host: Host) {
        let place = &mut self.processes[host.index()];
        if let Some(process) = place
            && process.has_ended()
        {
            let ended = process.end();
            let is_replaced = process.state().halted == Some(Why::Replaced);
            assert!(ended.code == Some(14) && is_replaced, "{ended:?}: {}", process.transcript());
            self.counts.unplanned += 1;
            self.counts.add(process);
            *place = None;
        }
        place.get_or_insert_with(|| self.rig.start(Part::Backup, host, &[]));
    }

    /// Returns the process that may transmit for the VM, as far as is known.
    pub fn speaker(&mut self) -> Option<&mut Process> {
        let speakers = self.processes.iter_mut().flatten().filter_map(|process| {
            let state = process.state();
            state.holds_term.then_some(state.term).map(|term| (term, process))
        });
        // A process that was replaced and does not know it yet has the older term.
        speakers.max_by_key(|&(term, _)| term).map(|(_, process)| process)
    }

    /// Returns the process on `host`, if there is one.
    pub fn on(&mut self, host: Host) -> Option<&mut Process> {
        self.processes[host.index()].as_mut()
    }

    /// Kills the process on `host` with SIGKILL and waits until the other one has taken over or given
    /// up its backup.
    pub fn kill(&mut self, host: Host) {
        let mut killed = self.processes[host.index()].take().expect("there is a process");
        let survivor = self.processes[host.other().index()].as_mut().expect("there are two");
        killed.signal(Signal::SIGKILL);
        assert_eq!(killed.end().code, None, "a signal ends it");
        if killed.state().holds_term {
            wait_for!(survivor, PairEvent::WentLive);
        } else {
            self.backups_killed += 1;
            wait_for!(survivor, PairEvent::BackupSilent { .. } | PairEvent::BackupGone { .. });
            wait_for!(survivor, PairEvent::TermWon);
        }
        self.counts.add(&mut killed);
    }

    /// Stops the VM on both hosts.
    pub fn stop(mut self) -> PairCounts {
        let host = self.protect();
        self.on(host).expect("it is protected").order("stop");
        for process in self.processes.iter_mut().flatten() {
            let ended = process.end();
            assert_eq!(ended.code, Some(0), "{}", process.transcript());
            self.counts.add(process);
        }
        self.counts.losses -= self.backups_killed;
        self.counts
    }

    fn transcript(&mut self) -> String {
        let stories: Vec<_> =
            self.processes.iter_mut().flatten().map(Process::transcript).collect();
        stories.join("\n")
    }
}
