//! The processes of a pair over time: starts, follows, kills and replaces them.

use super::event::{PairEvent, PairRecord, Spread, Why};
use super::leadership::LeadershipIntervals;
use super::member::{Member, MemberOutput, Message, NoticedBy, Part};
use super::network::{Host, Network};
use super::scene::Setup;
use crate::TestbedError;
use crate::clock::boottime_ns;
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use nix::sys::signal::Signal;
use std::ops::Range;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Interval at which conditions and the interrupt flag are checked.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long the backup may take to end after the primary: this time and some silence timeouts. After that it
/// gets SIGTERM.
const LEAVE_MAX: Duration = Duration::from_secs(1);
const LEAVE_SILENCES: u32 = 2;

/// Counts of events in the processes' event logs.
#[derive(Debug, Default)]
pub struct Counts {
    /// Divergences.
    pub divergences: u64,
    /// Takeovers without a kill.
    pub unplanned: u64,
    /// Takeovers, with and without a kill.
    pub went_live: u64,
    /// Backups that a primary lost without a kill.
    pub backups_lost: u64,
    /// How long the guest was paused at the end of each sync, in nanoseconds.
    pub pauses_ns: Vec<u64>,
    /// From the pause of each completed sync until the VM was protected, by CLOCK_BOOTTIME in nanoseconds: its
    /// outputs waited.
    pub syncs_ns: Vec<Range<u64>>,
    /// Backups that left because of a disk.
    pub disk_faults: u64,
    /// Why the first of them left.
    pub first_disk_fault: Option<String>,
    /// When the pause of the current sync began.
    sync_paused_ns: Option<u64>,
}

/// What dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Death {
    /// The process of a VM, killed with SIGKILL. Its supervisor lives.
    #[default]
    OfProcess,
    /// The host, as in a loss of power: the supervisor is killed first, then the process.
    OfHost,
}

/// A takeover. Times are of CLOCK_BOOTTIME, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    /// The host that was killed, or that handed the VM over.
    pub dead: Host,
    /// Time just before the signal or the order was sent.
    pub killed_ns: u64,
    /// When the other host noticed the death, or this host began to hand the VM over.
    pub lost_ns: u64,
    /// How the other host noticed it.
    pub noticed_by: NoticedBy,
    /// When the other host went live.
    pub live_ns: u64,
}

/// The processes of a pair; killed on drop.
pub struct Hosts {
    // Dropped first: the processes must end before the scene in which they run.
    pub(super) members: [Option<Member>; 2],
    /// How the last process that was allowed to end on each host has ended.
    pub(super) ended: [Option<ExitStatus>; 2],
    pub(super) setup: Setup,
    /// Time limit for everything that must happen.
    patience: Duration,
    interrupted: Arc<AtomicBool>,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    instances: u64,
    /// Which host was live when.
    pub leadership: LeadershipIntervals,
    /// Counts of events.
    pub counts: Counts,
}

impl Hosts {
    /// Creates a pair without processes. Everything that must happen must happen within `patience`.
    /// `interrupted` ends every wait.
    pub fn new(setup: Setup, patience: Duration, interrupted: &Arc<AtomicBool>) -> Hosts {
        let (sender, messages) = channel::unbounded();
        Hosts {
            members: [None, None],
            ended: [None, None],
            setup,
            patience,
            interrupted: Arc::clone(interrupted),
            sender,
            messages,
            instances: 0,
            leadership: LeadershipIntervals::default(),
            counts: Counts::default(),
        }
    }

    /// Returns the time limit for everything that must happen.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Returns the channel on which a client reports that it can't continue.
    pub fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// Starts a process on a host without one. Returns its process id.
    ///
    /// # Errors
    ///
    /// If the process can't be started.
    pub fn start(&mut self, part: Part, host: Host) -> Result<u32, TestbedError> {
        self.instances += 1;
        let member = Member::spawn(&self.setup, part, (host, self.instances), &self.sender)?;
        let pid = member.pid();
        self.members[host.index()] = Some(member);
        Ok(pid)
    }

    /// Returns the LAN.
    pub fn network(&self) -> &Network {
        &self.setup.scene.network
    }

    /// Returns the running processes, that on host A first.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    /// Returns whether `host` has no process.
    pub fn is_missing(&self, host: Host) -> bool {
        self.members[host.index()].is_none()
    }

    /// Returns whether any host has no process.
    pub fn lacks_member(&self) -> bool {
        self.members.iter().any(Option::is_none)
    }

    /// Returns the process that holds the latest known term of the VM.
    pub fn leader(&self) -> Option<&Member> {
        // A process that was replaced and does not know it yet has an older term.
        let candidates = self.members().filter(|member| member.state.holds_term);
        candidates.max_by_key(|member| member.state.term)
    }

    /// Starts a backup on each host without a process and waits until the VM is protected. Returns the host
    /// of the primary.
    ///
    /// # Errors
    ///
    /// If a process or a client fails, or the VM is not protected in time.
    pub fn protect(&mut self, mut started: impl FnMut(Host, u32)) -> Result<Host, TestbedError> {
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
                (hosts.lacks_member() || protected.is_some()).then_some(protected)
            })?;
            if let Some(host) = protected {
                return Ok(host);
            }
        }
    }

    /// Returns the host of the primary and the time since which the VM is protected, if it is.
    pub fn protected(&self) -> Option<(Host, u64)> {
        self.leader().and_then(|member| Some((member.host, member.state.protected?)))
    }

    /// Lets the primary die, waits until the backup is live, and calls `live` immediately. When this returns,
    /// the descriptors of the killed process are closed. Returns `None` if the backup was live before the
    /// kill, which happens after this machine has stood still.
    ///
    /// # Errors
    ///
    /// If the other host does not go live in time, or a process or a client fails.
    ///
    /// # Panics
    ///
    /// If no process is known to hold the VM's term.
    pub fn kill(
        &mut self,
        death: Death,
        live: impl FnOnce(),
    ) -> Result<Option<Takeover>, TestbedError> {
        let leader = self.leader().expect("a protected VM has a leader");
        let dead = leader.host;
        match death {
            Death::OfProcess => {}
            Death::OfHost => leader.kill_supervisor(),
        }
        let killed_ns = boottime_ns();
        leader.signal(Signal::SIGKILL);
        let killed = self.members[dead.index()].take();
        let mut killed = killed.expect("the leader is one of them");
        let survivor = dead.other().index();
        let result = self.wait("the other host to go live", |hosts| {
            let state = &hosts.members[survivor].as_ref()?.state;
            state.lost.zip(state.live_ns)
        });
        let ((lost_ns, noticed_by), live_ns) = result?;
        live();
        killed.reap(self.patience)?;
        self.leadership.end(dead, killed_ns.min(live_ns));
        if live_ns <= killed_ns {
            self.counts.unplanned += 1;
            return Ok(None);
        }
        Ok(Some(Takeover { dead, killed_ns, lost_ns, noticed_by, live_ns }))
    }

    /// Orders the primary to hand the VM over, waits until the backup is live, and calls `live` immediately. The
    /// old primary becomes the backup.
    ///
    /// # Errors
    ///
    /// If the other host does not go live in time, or a process or a client fails.
    ///
    /// # Panics
    ///
    /// If no process is known to hold the VM's term.
    pub fn hand_over(&mut self, live: impl FnOnce()) -> Result<Takeover, TestbedError> {
        let leader = self.leader().expect("a protected VM has a leader");
        let from = leader.host;
        let ordered_ns = boottime_ns();
        leader.order("handover")?;
        let since = |ns: Option<u64>| ns.filter(|&ns| ns > ordered_ns);
        let (lost_ns, live_ns) = self.wait("the other host to go live", |hosts| {
            let [old, new] = [from, from.other()].map(|host| hosts.members[host.index()].as_ref());
            since(old?.state.handing_over_ns).zip(since(new?.state.live_ns))
        })?;
        live();
        let noticed_by = NoticedBy::HandOver;
        Ok(Takeover { dead: from, killed_ns: ordered_ns, lost_ns, noticed_by, live_ns })
    }

    /// Stops the VM cleanly, the primary first. Returns how long the primary held its outputs.
    ///
    /// # Errors
    ///
    /// If a process does not end in time or fails.
    ///
    /// # Panics
    ///
    /// If no process is known to hold the VM's term.
    pub fn stop(&mut self) -> Result<Spread, TestbedError> {
        let leader = self.leader().expect("a protected VM has a leader");
        let last = leader.host.index();
        leader.order("stop")?;
        let hold =
            self.wait("the primary to end", |hosts| hosts.members[last].as_ref()?.state.hold)?;
        // The backup ends with the primary, unless it has just lost it and waits for a new one.
        let silences = Duration::from_millis(self.setup.silence_ms) * LEAVE_SILENCES;
        let leaves = Instant::now() + LEAVE_MAX + silences;
        self.wait("the backup to end", |hosts| {
            let are_over =
                hosts.members.iter().flatten().all(|member| member.state.halted.is_some());
            (are_over || Instant::now() > leaves).then_some(())
        })?;
        for member in self.members.iter_mut().filter_map(Option::as_mut) {
            if member.state.halted.is_none() {
                member.signal(Signal::SIGTERM);
            }
            let status = member.reap(self.patience)?;
            if !status.success() {
                return Err(TestbedError::Wrong(format!("{member} ended with {status}")));
            }
        }
        Ok(hold)
    }

    /// Waits for `time` while handling the processes' output.
    ///
    /// # Errors
    ///
    /// If a process or a client fails.
    pub fn pause(&mut self, time: Duration) -> Result<(), TestbedError> {
        let end = Instant::now() + time;
        self.wait_for("nothing", time + self.patience, |_| (Instant::now() >= end).then_some(()))
    }

    /// Handles the output that the processes have written so far.
    ///
    /// # Errors
    ///
    /// If a process or a client has failed.
    pub fn poll(&mut self) -> Result<(), TestbedError> {
        while let Ok(message) = self.messages.try_recv() {
            self.handle_message(message)?;
        }
        Ok(())
    }

    /// Handles the processes' output until `done` returns a value.
    ///
    /// # Errors
    ///
    /// If a process or a client fails, or the time limit is reached.
    pub fn wait<T>(
        &mut self,
        what: &str,
        done: impl FnMut(&Hosts) -> Option<T>,
    ) -> Result<T, TestbedError> {
        self.wait_for(what, self.patience, done)
    }

    /// Like [`wait`](Self::wait), with a time limit of `limit`.
    ///
    /// # Errors
    ///
    /// See [`wait`](Self::wait).
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Hosts) -> Option<T>,
    ) -> Result<T, TestbedError> {
        let end = Instant::now() + limit;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(TestbedError::Interrupted);
            }
            if let Some(answer) = done(self) {
                return Ok(answer);
            }
            if Instant::now() > end {
                let seconds = limit.as_secs_f64();
                let text = format!(
                    "timed out after {seconds:.0} s waiting for {what}: {}",
                    self.describe_members()
                );
                return Err(TestbedError::Wrong(text + &self.false_alarms()));
            }
            match self.messages.recv_timeout(POLL_INTERVAL) {
                Ok(message) => self.handle_message(message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we have a sender ourselves"),
            }
        }
    }

    /// Returns a clause with advice if a living host was declared dead; otherwise an empty string.
    fn false_alarms(&self) -> String {
        match self.counts.unplanned + self.counts.backups_lost {
            0 => String::new(),
            alarms => format!(
                "; a living host was declared dead {alarms} times: use a --silence of more than {}",
                self.setup.silence_ms
            ),
        }
    }

    /// Describes the processes and their last messages.
    pub fn describe_members(&self) -> String {
        let members: Vec<_> = self.members().map(Member::to_string).collect();
        if members.is_empty() { "no process runs".into() } else { members.join("; ") }
    }

    fn handle_message(&mut self, message: Message) -> Result<(), TestbedError> {
        let (host, instance, output) = match message {
            Message::Client(error) => return Err(error),
            Message::Process { host, instance, output } => (host, instance, output),
        };
        // Output of a process that was killed or replaced since is ignored.
        let is_current = |member: &&mut Member| member.instance == instance;
        let member = self.members[host.index()].as_mut();
        let Some(member) = member.filter(is_current) else { return Ok(()) };
        match output {
            MemberOutput::Record { record, line } => {
                tracing::info!("{host}: {line}");
                member.handle_record(&record, line);
                self.count_record(host, &record);
            }
            MemberOutput::End if member.may_end => {
                self.ended[host.index()] = Some(member.reap(self.patience)?);
                self.members[host.index()] = None;
                // Unless it has said since when it has sent nothing.
                self.leadership.end(host, boottime_ns());
            }
            MemberOutput::End => match member.state.halted {
                Some(Why::Replaced) => {
                    member.reap(self.patience)?;
                    self.members[host.index()] = None;
                    self.counts.unplanned += 1;
                }
                Some(Why::Stopped | Why::PrimaryStopped | Why::HandedOver) => {}
                Some(Why::AlreadyStarted | Why::Diverged) | None => {
                    let status = member.reap(self.patience)?;
                    let text = format!("a process ended unexpectedly with {status}: {member}");
                    return Err(TestbedError::Wrong(text));
                }
            },
        }
        Ok(())
    }

    /// Updates counts and leadership intervals from a record.
    fn count_record(&mut self, host: Host, record: &PairRecord) {
        let PairRecord { t_ns, term, ref event } = *record;
        match *event {
            PairEvent::TermWon => self.leadership.begin(host, term, t_ns),
            PairEvent::WentLive => {
                self.leadership.begin(host, term, t_ns);
                self.counts.went_live += 1;
            }
            // From here on it sends nothing.
            PairEvent::HandingOver { spoke_ns } => {
                self.leadership.end(host, spoke_ns.unwrap_or(t_ns));
            }
            PairEvent::HandoverFailed => self.leadership.begin(host, term, t_ns),
            // A host that stood still notices late that its lease expired long before; `spoke_ns` has the
            // time.
            PairEvent::Halted { spoke_ns, .. } => {
                self.leadership.end(host, spoke_ns.unwrap_or(t_ns));
            }
            PairEvent::BackupSilent { spoke_ns }
            | PairEvent::BackupStalled { spoke_ns }
            | PairEvent::BackupGone { spoke_ns } => {
                self.leadership.end(host, spoke_ns.unwrap_or(t_ns));
                self.counts.backups_lost += 1;
            }
            PairEvent::SyncClosed { pause_ns } => {
                self.counts.pauses_ns.push(pause_ns);
                self.counts.sync_paused_ns = Some(t_ns - pause_ns);
            }
            PairEvent::Protected => {
                let paused_ns = self.counts.sync_paused_ns.take();
                self.counts.syncs_ns.extend(paused_ns.map(|paused_ns| paused_ns..t_ns));
            }
            PairEvent::Diverged { .. } => self.counts.divergences += 1,
            PairEvent::DiskFault { ref why } => {
                self.counts.disk_faults += 1;
                self.counts.first_disk_fault.get_or_insert_with(|| why.clone());
            }
            PairEvent::Started
            | PairEvent::PeerMet
            | PairEvent::NobodyMet
            | PairEvent::PeerRefused { .. }
            | PairEvent::WitnessUnreachable
            | PairEvent::LanLost
            | PairEvent::LanBack
            | PairEvent::BackupHealth { .. }
            | PairEvent::WitnessLost
            | PairEvent::WitnessBack
            | PairEvent::ReleaseFailed
            | PairEvent::SyncBegun
            | PairEvent::SyncDelayed
            | PairEvent::SyncStalled
            | PairEvent::GuestSlowed
            | PairEvent::GuestSlowedForDisks
            | PairEvent::GuestNotSlowed
            | PairEvent::DisksCopied { .. }
            | PairEvent::SyncGivenUp { .. }
            | PairEvent::BackupLeft
            | PairEvent::Following
            | PairEvent::PrimarySilent { .. }
            | PairEvent::PrimaryGone { .. }
            | PairEvent::SupervisorLost { .. }
            | PairEvent::WitnessFailed
            | PairEvent::HandoverRefused
            | PairEvent::StopRefused
            | PairEvent::GoesSilent
            | PairEvent::LogFinished
            | PairEvent::Ended { .. } => {}
        }
    }
}
