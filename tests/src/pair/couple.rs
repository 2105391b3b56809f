//! [`Couple`].

use super::process::Process;
use super::rig::Rig;
use crate::patience::Waiting;
use crate::wait_for;
use nix::sys::signal::Signal;
use vmm::demo::pair::member::Part;
use vmm::demo::pair::network::Host;
use vmm::pair::event::{PairEvent, Why};

/// What the processes of a couple told, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Times the VM moved and nobody had killed its host.
    pub unplanned: usize,
    /// Times a backup was taken for dead and nobody had killed it.
    pub losses: usize,
    /// Differences that they found.
    pub divergences: usize,
}

impl Account {
    fn add(&mut self, process: &mut Process) {
        self.losses += process.count(|event| matches!(event, PairEvent::BackupSilent { .. }));
        self.divergences += process.count(|event| matches!(event, PairEvent::Diverged));
    }
}

/// A process on either host, and a new backup wherever one has ended.
pub struct Couple<'r> {
    rig: &'r Rig,
    processes: [Option<Process>; 2],
    backups_killed: usize,
    /// Of those that are gone.
    account: Account,
}

impl<'r> Couple<'r> {
    /// Boots the VM on host A, and protects it by host B.
    pub fn start(rig: &'r Rig) -> Couple<'r> {
        let mut primary = rig.start(Part::Primary, Host::A, &[]);
        wait_for!(primary, PairEvent::TermWon);
        let processes = [Some(primary), None];
        let mut couple = Couple { rig, processes, backups_killed: 0, account: Account::default() };
        couple.protect();
        couple
    }

    /// Waits until the VM is protected, with new backups; where it lives.
    ///
    /// # Panics
    ///
    /// When a process ended in another way than because the other one had taken over.
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
            waiting.goes_on(|| format!("a protected VM:\n{}", self.story()));
        }
    }

    /// Starts a backup on `host` if there is no process, or none any more.
    fn replace(&mut self, host: Host) {
        let place = &mut self.processes[host.index()];
        if let Some(process) = place
            && process.has_ended()
        {
            let ended = process.end();
            let is_replaced = process.state().halted == Some(Why::Replaced);
            assert!(ended.code == Some(14) && is_replaced, "{ended:?}: {}", process.story());
            self.account.unplanned += 1;
            self.account.add(process);
            *place = None;
        }
        place.get_or_insert_with(|| self.rig.start(Part::Backup, host, &[]));
    }

    /// The one that may speak for the VM, as far as is known.
    pub fn speaker(&mut self) -> Option<&mut Process> {
        let speakers = self.processes.iter_mut().flatten().filter_map(|process| {
            let state = process.state();
            state.holds_term.then_some(state.term).map(|term| (term, process))
        });
        // One that was replaced, and does not know it yet, has the older term.
        speakers.max_by_key(|&(term, _)| term).map(|(_, process)| process)
    }

    /// The process on `host`, if there is one.
    pub fn on(&mut self, host: Host) -> Option<&mut Process> {
        self.processes[host.index()].as_mut()
    }

    /// Ends the process on `host` with SIGKILL, and waits until the other one is alone in charge.
    pub fn kill(&mut self, host: Host) {
        let mut killed = self.processes[host.index()].take().expect("there is a process");
        let survivor = self.processes[host.other().index()].as_mut().expect("there are two");
        killed.signal(Signal::SIGKILL);
        assert_eq!(killed.end().code, None, "a signal ends it");
        if killed.state().holds_term {
            wait_for!(survivor, PairEvent::WentLive { .. });
        } else {
            self.backups_killed += 1;
            wait_for!(survivor, PairEvent::BackupSilent { .. });
            wait_for!(survivor, PairEvent::TermWon);
        }
        self.account.add(&mut killed);
    }

    /// Stops the VM in good order: the primary first, which takes its backup with it.
    pub fn stop(mut self) -> Account {
        let host = self.protect();
        self.on(host).expect("it is protected").signal(Signal::SIGTERM);
        for process in self.processes.iter_mut().flatten() {
            let ended = process.end();
            assert_eq!(ended.code, Some(0), "{}", process.story());
            self.account.add(process);
        }
        self.account.losses -= self.backups_killed;
        self.account
    }

    fn story(&mut self) -> String {
        let stories: Vec<_> = self.processes.iter_mut().flatten().map(Process::story).collect();
        stories.join("\n")
    }
}
