//! The processes of the pair over the whole demonstration: started, listened to, killed, replaced.

use super::member::{Member, Message, Part, Said, Setup};
use super::network::Host;
use super::reigns::Reigns;
use crate::demo::DemoError;
use crate::kvm::clock::boottime_ns;
use crate::pair::event::{PairEvent, PairRecord, Spread, Why};
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use nix::sys::signal::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A signal is seen this late at most.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// From the primary's end to its backup's, beyond some silences: later it is told to stop by us.
const LEAVE_MAX: Duration = Duration::from_secs(1);
const LEAVE_SILENCES: u32 = 2;

/// What the processes counted, as far as they said so.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Divergences that they found.
    pub(super) divergences: u64,
    /// Times a host went live without anybody's having been killed.
    pub(super) unplanned: u64,
    /// Times a backup went live, for whatever reason.
    pub(super) went_live: u64,
    /// Times a primary lost a backup that nobody had killed.
    pub(super) backups_lost: u64,
    /// How long the guest stood still at each sync's end, nanoseconds.
    pub(super) pauses_ns: Vec<u64>,
}

/// The primary died and the backup went live: when, by CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takeover {
    /// Who died.
    pub(super) dead: Host,
    /// Just before the signal was sent.
    pub(super) killed_ns: u64,
    /// The other one noticed.
    pub(super) silent_ns: u64,
    /// The other one was live.
    pub(super) live_ns: u64,
}

/// The pair.
pub(super) struct Hosts<'a> {
    setup: &'a Setup<'a>,
    /// How long everything that must happen is waited for.
    patience: Duration,
    interrupted: &'a Arc<AtomicBool>,
    members: [Option<Member>; 2],
    sender: Sender<Message>,
    messages: Receiver<Message>,
    lives: u64,
    pub(super) reigns: Reigns,
    pub(super) counts: Counts,
}

impl<'a> Hosts<'a> {
    /// No process yet.
    pub(super) fn new(
        setup: &'a Setup<'a>,
        patience: Duration,
        interrupted: &'a Arc<AtomicBool>,
    ) -> Hosts<'a> {
        let (sender, messages) = channel::unbounded();
        let (reigns, counts) = (Reigns::default(), Counts::default());
        Hosts {
            setup,
            patience,
            interrupted,
            members: [None, None],
            sender,
            messages,
            lives: 0,
            reigns,
            counts,
        }
    }

    /// Where clients say that they cannot go on.
    pub(super) fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// Starts a process where there is none; its process id.
    pub(super) fn start(&mut self, part: Part, host: Host) -> Result<u32, DemoError> {
        self.lives += 1;
        let member = Member::spawn(self.setup, part, host, self.lives, &self.sender, &[])?;
        let pid = member.pid();
        self.members[host.index()] = Some(member);
        Ok(pid)
    }

    /// Whether there is no process on `host`.
    pub(super) fn is_missing(&self, host: Host) -> bool {
        self.members[host.index()].is_none()
    }

    /// Whether a host has no process.
    pub(super) fn is_alone(&self) -> bool {
        self.members.iter().any(Option::is_none)
    }

    /// The host that may speak for the VM, as far as is known.
    pub(super) fn speaker(&self) -> Option<&Member> {
        // One that was replaced, and does not know it yet, has the older term.
        let speakers = self.members.iter().flatten().filter(|member| member.state.speaks);
        speakers.max_by_key(|member| member.state.term)
    }

    /// Waits until the VM is protected, with a new backup where there is none; which host it lives on.
    pub(super) fn protect(
        &mut self,
        mut started: impl FnMut(Host, u32),
    ) -> Result<Host, DemoError> {
        let end = Instant::now() + self.patience;
        loop {
            for host in Host::ALL {
                if self.is_missing(host) {
                    let pid = self.start(Part::Backup, host)?;
                    started(host, pid);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let protected = self.wait_for("a protected VM", left, |hosts| {
                let protected = hosts.protected().map(|(host, _)| host);
                (hosts.is_alone() || protected.is_some()).then_some(protected)
            })?;
            if let Some(host) = protected {
                return Ok(host);
            }
        }
    }

    /// Where the VM is protected, and since when.
    pub(super) fn protected(&self) -> Option<(Host, u64)> {
        self.speaker().and_then(|member| Some((member.host, member.state.protected?)))
    }

    /// Kills the process that the VM lives in, and waits until the other one is live; calls `live` at
    /// once then. The dead one's descriptors are closed when this returns. `None`: the other one was
    /// live already, because the machine had stood still.
    pub(super) fn kill(&mut self, live: impl FnOnce()) -> Result<Option<Takeover>, DemoError> {
        let speaker = self.speaker().expect("a protected VM has a speaker");
        let dead = speaker.host;
        let killed_ns = boottime_ns();
        speaker.signal(Signal::SIGKILL);
        let killed = self.members[dead.index()].take();
        let mut killed = killed.expect("the speaker is one of them");
        let end_ns = boottime_ns();
        let survivor = dead.other().index();
        let result = self.wait("the other host to go live", |hosts| {
            let state = &hosts.members[survivor].as_ref()?.state;
            state.silent_ns.zip(state.live_ns)
        });
        let (silent_ns, live_ns) = result?;
        live();
        killed.reap(self.patience)?;
        if live_ns <= killed_ns {
            self.reigns.end(dead, live_ns);
            self.counts.unplanned += 1;
            return Ok(None);
        }
        self.reigns.end(dead, end_ns);
        Ok(Some(Takeover { dead, killed_ns, silent_ns, live_ns }))
    }

    /// Ends the VM in good order, the primary first; how long that one held its outputs.
    pub(super) fn stop(&mut self) -> Result<Spread, DemoError> {
        let speaker = self.speaker().expect("a protected VM has a speaker");
        let last = speaker.host.index();
        speaker.signal(Signal::SIGTERM);
        let hold =
            self.wait("the primary to end", |hosts| hosts.members[last].as_ref()?.state.hold)?;
        // The backup ends with the primary, unless it has just lost it and waits for another one.
        let silences = Duration::from_millis(self.setup.silence_ms) * LEAVE_SILENCES;
        let leaves = Instant::now() + LEAVE_MAX + silences;
        self.wait("the backup to end", |hosts| {
            let are_over = hosts.members.iter().flatten().all(|member| member.state.over.is_some());
            (are_over || Instant::now() > leaves).then_some(())
        })?;
        for member in self.members.iter_mut().filter_map(Option::as_mut) {
            if member.state.over.is_none() {
                member.signal(Signal::SIGTERM);
            }
            let status = member.reap(self.patience)?;
            if !status.success() {
                return Err(DemoError::Wrong(format!("{member} ended with {status}")));
            }
        }
        Ok(hold)
    }

    /// Lets time pass.
    pub(super) fn pause(&mut self, time: Duration) -> Result<(), DemoError> {
        let end = Instant::now() + time;
        self.wait_for("nothing", time + self.patience, |_| (Instant::now() >= end).then_some(()))
    }

    /// Listens until `done` has an answer, which comes if nothing is wrong.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        done: impl FnMut(&Hosts<'_>) -> Option<T>,
    ) -> Result<T, DemoError> {
        self.wait_for(what, self.patience, done)
    }

    /// The same for `limit` at most.
    pub(super) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Hosts<'_>) -> Option<T>,
    ) -> Result<T, DemoError> {
        let end = Instant::now() + limit;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(DemoError::Interrupted);
            }
            if let Some(answer) = done(self) {
                return Ok(answer);
            }
            if Instant::now() > end {
                let seconds = limit.as_secs_f64();
                let text =
                    format!("waited in vain for {what}, {seconds:.0} s long: {}", self.who());
                return Err(DemoError::Wrong(text + &self.false_alarms()));
            }
            match self.messages.recv_timeout(LOOK_EVERY) {
                Ok(Message::Client(error)) => return Err(error),
                Ok(Message::Process { host, life, said }) => self.hear(host, life, said)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we have a sender ourselves"),
            }
        }
    }

    /// What a user can do against hosts that take each other for dead, if they do; as a clause.
    fn false_alarms(&self) -> String {
        match self.counts.unplanned + self.counts.backups_lost {
            0 => String::new(),
            alarms => format!(
                "; a living host was taken for dead {alarms} times: give a larger --silence than {}",
                self.setup.silence_ms
            ),
        }
    }

    /// The processes and their last words.
    fn who(&self) -> String {
        let members: Vec<_> = self.members.iter().flatten().map(Member::to_string).collect();
        if members.is_empty() { "no process is there".into() } else { members.join("; ") }
    }

    fn hear(&mut self, host: Host, life: u64, said: Said) -> Result<(), DemoError> {
        // What a killed one still had to say was true when it said it, but is of no use any more.
        let is_current = |member: &&mut Member| member.life == life;
        let member = self.members[host.index()].as_mut();
        let Some(member) = member.filter(is_current) else { return Ok(()) };
        match said {
            Said::Record(record) => {
                tracing::info!("{host}: {record:?}");
                member.hear(record.clone());
                self.note(host, &record);
            }
            Said::End => match member.state.over {
                Some(Why::Replaced) => {
                    member.reap(self.patience)?;
                    self.members[host.index()] = None;
                    self.counts.unplanned += 1;
                }
                Some(Why::Stopped | Why::PrimaryStopped) => {}
                Some(Why::AlreadyStarted | Why::Diverged) | None => {
                    let status = member.reap(self.patience)?;
                    let text = format!("a process ended by itself, with {status}: {member}");
                    return Err(DemoError::Wrong(text));
                }
            },
        }
        Ok(())
    }

    /// Counts what a record says.
    fn note(&mut self, host: Host, record: &PairRecord) {
        let PairRecord { t_ns, term, ref event } = *record;
        match *event {
            PairEvent::TermWon => self.reigns.begin(host, term, t_ns),
            PairEvent::WentLive { .. } => {
                self.reigns.begin(host, term, t_ns);
                self.counts.went_live += 1;
            }
            // A host that stood still learns late that its lease was over long before.
            PairEvent::Halted { spoke_ns, .. } => self.reigns.end(host, spoke_ns.unwrap_or(t_ns)),
            PairEvent::BackupSilent { spoke_ns, .. } => {
                self.reigns.end(host, spoke_ns.unwrap_or(t_ns));
                self.counts.backups_lost += 1;
            }
            PairEvent::SyncClosed { pause_ns, .. } => self.counts.pauses_ns.push(pause_ns),
            PairEvent::Diverged => self.counts.divergences += 1,
            PairEvent::Started { .. }
            | PairEvent::PeerMet { .. }
            | PairEvent::NobodyMet { .. }
            | PairEvent::PeerRefused { .. }
            | PairEvent::WitnessUnreachable
            | PairEvent::SyncBegun
            | PairEvent::Protected { .. }
            | PairEvent::BackupLeft
            | PairEvent::Following
            | PairEvent::PrimarySilent { .. }
            | PairEvent::LogFinished
            | PairEvent::Ended { .. } => {}
        }
    }
}
