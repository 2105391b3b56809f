//! [`Driver`]: its state, and one round of its work.

use super::Notice;
use super::host::{
    Clock, DriverView, Host, LinkPort, LiveWorld, Moment, Observer, Order, SupervisorPort,
};
use super::peer_absence::PeerAbsenceAlarm;
use super::throttle::Throttle;
use super::wire::Wire;
use super::witness::{ANSWER_MAX, WitnessClient};
use crate::error::BoundaryError;
use crate::limits::{FRAMES_PER_RECEIVE, RECEIVES_PER_DRIVE};
use crate::mutant::{DriverMutant, Mutants};
use crate::replica::{AfterHandover, Command, Halt, Replica, ReplicaEvent, RoleName, Step};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use logchan::ids::{Lane, Term};
use logchan::seal::DeathNotice;
use logchan::time::{Duration, Time};

/// Longest wait on the wire. A kick that arrives just before the wait begins is lost, so the stop flag may be
/// seen this late.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Longest wait on the wire while a claim or a request to a disk is outstanding. The kick that announces the witness's
/// answer, or the completion, can be lost in the same way, and the whole VM may wait for it.
const ANSWER_WAIT_MAX: Duration = Duration::from_micros(500);

/// Components of a [`Driver`].
pub struct DriverParts<H: Host> {
    /// The engine.
    pub replica: Replica,
    /// The clock of the channel.
    pub clock: H::Clock,
    /// The log link.
    pub wire: Wire<H::Link>,
    /// The tap, the clocks, the console.
    pub world: H::World,
    /// The client of the witness.
    pub witness: WitnessClient<H::Witness>,
    /// Tells the peer when this process is gone.
    pub supervisor: H::Supervisor,
    /// Receives notices and measurements.
    pub observer: H::Observer,
    /// How long to spin for the acknowledgement of an output before the guest continues.
    pub ack_wait: Duration,
    /// Planted bugs for tests; none in a release build.
    pub mutants: Mutants,
}

/// The nondeterminism boundary of a primary and of a backup. One thread owns it, the one that runs the vCPU.
pub struct Driver<H: Host> {
    pub(super) parts: DriverParts<H>,
    /// The exit that is being handled has made an output.
    pub(super) made_output: bool,
    /// The exit that is being handled has made a request to a shared disk.
    pub(super) asked_shared_disk: bool,
    /// A frame has entered the guest, and its log entry was not sent.
    pub(super) frame_entered: bool,
    /// The planted bug [`DriverMutant::RebuildForgetsSession`] has struck.
    pub(super) has_forgotten_session: bool,
    /// When this round of work began; for the planted bug [`DriverMutant::ReleaseByStaleClock`] only.
    round_began: Time,
    /// When this host last sent a frame to the LAN.
    spoke_at: Option<Time>,
    pub(super) is_stopping: bool,
    /// Console output that waits until this host may speak.
    pub(super) console_waiting: Vec<u8>,
    /// When the guest was paused for the current checkpoint.
    pub(super) paused_since: Option<Time>,
    /// What the engine knows of the LAN.
    lan_is_up: bool,
    /// Pauses the guest while its memory is copied.
    pub(super) throttle: Throttle,
    absence_alarm: PeerAbsenceAlarm,
    /// The term whose unanswered claim was reported last.
    unanswered_claim: Option<Term>,
    /// A death notice that the supervisor has not taken yet.
    notice: Option<DeathNotice>,
    /// The supervisor has taken a notice; for the planted bug [`DriverMutant::HoldFirstNotice`] only.
    has_notice: bool,
}

impl<H: Host> Driver<H> {
    /// Creates the driver of a host.
    pub fn new(parts: DriverParts<H>) -> Driver<H> {
        Driver {
            parts,
            made_output: false,
            asked_shared_disk: false,
            frame_entered: false,
            has_forgotten_session: false,
            round_began: Time::default(),
            spoke_at: None,
            is_stopping: false,
            console_waiting: Vec::new(),
            paused_since: None,
            lan_is_up: true,
            throttle: Throttle::default(),
            absence_alarm: PeerAbsenceAlarm::default(),
            unanswered_claim: None,
            notice: None,
            has_notice: false,
        }
    }

    /// Returns the components.
    pub fn parts(&self) -> &DriverParts<H> {
        &self.parts
    }

    /// Returns the components, for their counters.
    pub fn parts_mut(&mut self) -> &mut DriverParts<H> {
        &mut self.parts
    }

    pub(super) fn now(&self) -> Time {
        self.parts.clock.now()
    }

    pub(super) fn has(&self, mutant: DriverMutant) -> bool {
        self.parts.mutants.has_driver(mutant)
    }

    /// Returns whether this host is a backup, which needs an empty machine.
    pub fn is_backup(&self) -> bool {
        match self.parts.replica.role() {
            RoleName::Seeking
            | RoleName::Syncing
            | RoleName::Following
            | RoleName::Finishing
            | RoleName::Claiming
            | RoleName::Leaving => true,
            RoleName::Standalone
            | RoleName::Starting
            | RoleName::Alone
            | RoleName::Copying
            | RoleName::Closing
            | RoleName::Protected
            | RoleName::HandingOver
            | RoleName::Losing
            | RoleName::Halted => false,
        }
    }

    /// Sends Bye and drives the wire until the peer has confirmed it, for at most two silence timeouts.
    /// Returns why this host's part is over; `None` if the peer did not confirm in time.
    ///
    /// # Errors
    ///
    /// Errors of the wire and of the tap.
    pub fn shut_down(&mut self) -> Result<Option<Halt>, H::Error> {
        let silence = self.parts.replica.endpoint().map(|end| end.settings().timing.silence);
        let now = self.now();
        let limit = now + (silence.unwrap_or_default() * 2).max(ANSWER_MAX + WAIT_MAX);
        if !self.parts.replica.stop(now) {
            // Without a Bye: the other host takes this one for dead, and the witness decides.
            return Ok(None);
        }
        while self.parts.replica.halted().is_none() && self.now() < limit {
            self.drive()?;
            self.wait_on_wire()?;
        }
        self.drive()?;
        let halted = self.parts.replica.halted();
        if halted.is_some() {
            self.parts.supervisor.stand_down();
        }
        Ok(halted)
    }

    /// Handles everything that has arrived, sends the log, and releases the outputs that may leave.
    pub(super) fn drive(&mut self) -> Result<(), H::Error> {
        self.begin_round();
        self.receive()?;
        self.pass_frames()?;
        // One clock reading serves the rest of the round: where RDTSC faults on this thread, each is a system call.
        let now = self.transmit()?;
        let replica = &mut self.parts.replica;
        if !replica.hold().is_empty() || replica.poll_tap(now).is_some() {
            self.release()?;
        }
        self.show_console();
        self.check_supervisor();
        self.check_absence(now);
        let DriverParts { replica, wire, world, observer, .. } = &mut self.parts;
        observer.driven(now, DriverView { replica, link: wire.port_mut(), world });
        Ok(())
    }

    /// A round of work begins. Only a planted bug needs the time.
    pub(super) fn begin_round(&mut self) {
        if self.has(DriverMutant::ReleaseByStaleClock) {
            self.round_began = self.now();
        }
    }

    /// Passes the death notice of a new session to the supervisor.
    fn brief_supervisor(&mut self) {
        let is_first_only = self.has(DriverMutant::HoldFirstNotice);
        let DriverParts { replica, supervisor, .. } = &mut self.parts;
        self.notice = replica.poll_death_notice().or(self.notice);
        if let Some(notice) = self.notice
            && (is_first_only && self.has_notice || supervisor.try_hold(&notice))
        {
            self.notice = None;
            self.has_notice = true;
        }
    }

    /// Reports that the supervisor is gone, once.
    fn check_supervisor(&mut self) {
        let DriverParts { replica, supervisor, observer, .. } = &mut self.parts;
        if let Some(why) = supervisor.poll_lost() {
            observer.notice(replica, Notice::SupervisorLost { why });
        }
    }

    /// Reports that no peer is met, once per absence.
    fn check_absence(&mut self, now: Time) {
        let DriverParts { replica, wire, observer, .. } = &mut self.parts;
        let state = match replica.role() {
            RoleName::Seeking => Some("waiting for the primary"),
            RoleName::Alone => Some("unprotected"),
            RoleName::Standalone
            | RoleName::Starting
            | RoleName::Copying
            | RoleName::Closing
            | RoleName::Protected
            | RoleName::HandingOver
            | RoleName::Losing
            | RoleName::Syncing
            | RoleName::Following
            | RoleName::Finishing
            | RoleName::Claiming
            | RoleName::Leaving
            | RoleName::Halted => None,
        };
        if self.absence_alarm.is_due(now, state.is_some())
            && let Some(state) = state
            && replica.endpoint().is_some()
        {
            let why = observer.why_nobody(wire.port_mut(), replica);
            observer.notice(replica, Notice::NobodyMet { why: format!("{state}: {why}") });
        }
    }

    /// Handles received frames, a stop request and the witness's answer, and reports the events that follow.
    pub(super) fn receive(&mut self) -> Result<(), H::Error> {
        let DriverParts { replica, wire, clock, .. } = &mut self.parts;
        // Before the timeouts: a host that is cut off has an earlier one, which may be over already, and a backup
        // that handles the silence timeout puts its claim off only if the engine knows that this host is cut off.
        replica.set_cut_off(wire.port().is_cut_off());
        // The rest is handled by the next drive: a flood of frames must not keep the guest from running.
        for _ in 0..RECEIVES_PER_DRIVE {
            if !wire.receive(clock, replica)? {
                break;
            }
        }
        if let Some(order) = self.parts.world.take_order() {
            self.carry_out(order);
        }
        // Before anybody relies on a new session.
        self.brief_supervisor();
        self.check_lan();
        let DriverParts { replica, witness, observer, clock, .. } = &mut self.parts;
        if witness.is_asked() {
            let now = clock.now();
            if let Some(answered) = witness.poll(now) {
                if let Some(error) = answered.error {
                    observer.notice(replica, Notice::WitnessFailed { error });
                }
                replica.handle_witness(now, answered.question, answered.answer);
            }
        }
        if !self.parts.mutants.has_driver(DriverMutant::WakeAtFirstInput) {
            self.parts.replica.wake(&mut self.parts.world);
        }
        self.forward_claim();
        let DriverParts { replica, world, clock, .. } = &mut self.parts;
        if replica.disks() > 0 {
            let now = clock.now();
            replica.keep_failed_requests(now, world);
            replica.copy_disks(now, world);
            // The lease is checked against a reading of its own, as for outputs.
            replica.begin_shared(clock.now(), world);
        }
        while let Some(event) = self.parts.replica.poll_event() {
            self.report(event);
        }
        Ok(())
    }

    /// Gives the frames that wait in the tap to the engine, if it passes them on to a new primary. The rest is for the
    /// next drive.
    fn pass_frames(&mut self) -> Result<(), H::Error> {
        if self.has(DriverMutant::LeaveFramesInTap) {
            return Ok(());
        }
        let DriverParts { replica, world, clock, .. } = &mut self.parts;
        for _ in 0..FRAMES_PER_RECEIVE {
            if !replica.passes_frames() {
                break;
            }
            let Some(frame) = world.next_frame()? else { break };
            replica.pass_frame(clock.now(), frame);
        }
        Ok(())
    }

    /// Passes a change of the LAN on to the engine.
    fn check_lan(&mut self) {
        let is_up = self.parts.world.lan_is_up();
        if is_up != self.lan_is_up {
            self.lan_is_up = is_up;
            let now = self.now();
            self.parts.replica.set_lan(now, is_up);
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = self.now();
        let DriverParts { replica, world, observer, .. } = &mut self.parts;
        match order {
            Order::HandOver => {
                if !replica.hand_over(now, AfterHandover::Follow) {
                    world.order_failed();
                    observer.notice(replica, Notice::HandoverRefused);
                }
            }
            Order::Leave if replica.hand_over(now, AfterHandover::Leave) => {}
            Order::Leave | Order::Stop => {
                self.is_stopping = replica.stop(now);
                if !self.is_stopping {
                    world.order_failed();
                    observer.notice(replica, Notice::StopRefused);
                }
            }
        }
    }

    /// Passes the engine's claim to the witness, if one is due.
    fn forward_claim(&mut self) {
        let DriverParts { replica, witness, clock, .. } = &mut self.parts;
        if let Some(Command::Ask(question)) = replica.poll_command() {
            witness.ask(clock.now(), question);
        }
    }

    fn report(&mut self, event: ReplicaEvent) {
        let is_news = match event {
            ReplicaEvent::PeerRefused { mismatch, proven: _ } => {
                self.absence_alarm.refused(mismatch)
            }
            ReplicaEvent::PeerMet { .. } => {
                self.absence_alarm.met();
                true
            }
            // The claim is repeated until it is answered; report the first attempt only.
            ReplicaEvent::WitnessUnreachable { term } => {
                self.unanswered_claim.replace(term) != Some(term)
            }
            ReplicaEvent::HandoverFailed => {
                self.parts.world.order_failed();
                true
            }
            ReplicaEvent::TermWon { .. }
            | ReplicaEvent::HandingOver
            | ReplicaEvent::LanLost
            | ReplicaEvent::LanBack
            | ReplicaEvent::BackupHealth { .. }
            | ReplicaEvent::WitnessLost
            | ReplicaEvent::WitnessBack
            | ReplicaEvent::ReleaseFailed
            | ReplicaEvent::SyncBegun
            | ReplicaEvent::SyncDelayed(_)
            | ReplicaEvent::SyncStalled { .. }
            | ReplicaEvent::GuestSlowed { .. }
            | ReplicaEvent::GuestSlowedForDisks { .. }
            | ReplicaEvent::GuestNotSlowed
            | ReplicaEvent::SyncGivenUp(_)
            | ReplicaEvent::DisksCopied(_)
            | ReplicaEvent::Protected
            | ReplicaEvent::BackupSilent { .. }
            | ReplicaEvent::BackupStalled { .. }
            | ReplicaEvent::BackupGone
            | ReplicaEvent::BackupLeft
            | ReplicaEvent::Following
            | ReplicaEvent::PrimarySilent { .. }
            | ReplicaEvent::PrimaryGone { .. }
            | ReplicaEvent::LogFinished
            | ReplicaEvent::WentLive { .. }
            | ReplicaEvent::Diverged
            | ReplicaEvent::DiskFault(_)
            | ReplicaEvent::Halted(_) => true,
        };
        if !is_news {
            return;
        }
        let DriverParts { replica, observer, .. } = &mut self.parts;
        let notice = match (event, replica.divergence()) {
            (ReplicaEvent::Diverged, Some(divergence)) => {
                Notice::Diverged(Box::new(divergence.clone()))
            }
            (event, _) => Notice::Replica { event, spoke_at: self.spoke_at },
        };
        observer.notice(replica, notice);
    }

    /// Sends all of the log that the peer's window has room for. Returns the clock reading of that.
    pub(super) fn transmit(&mut self) -> Result<Time, H::Error> {
        let DriverParts { replica, wire, clock, .. } = &mut self.parts;
        let now = wire.transmit(clock, replica)?;
        self.log_sent();
        Ok(now)
    }

    /// Records the time: all of the log that an output may wait for was sent.
    pub(super) fn log_sent(&mut self) {
        if self.parts.replica.role() == RoleName::Protected {
            self.frame_passes(Moment::LogSent);
        }
    }

    pub(super) fn frame_passes(&mut self, moment: Moment) {
        let DriverParts { observer, world, clock, .. } = &mut self.parts;
        observer.frame(world, moment, || clock.now());
    }

    /// Returns the log position behind the newest entry.
    pub(super) fn appended(&self) -> u64 {
        self.parts.replica.channel().map_or(0, |channel| channel.appended(Lane::Latency).0)
    }

    /// Returns the log position up to which the log was sent. It is behind [`appended`](Self::appended) after a
    /// transmit, too, if the peer's window was closed.
    pub(super) fn sent(&self) -> u64 {
        if self.has_forgotten_session {
            return u64::MAX / 2;
        }
        self.parts.replica.channel().map_or(0, |channel| channel.sent(Lane::Latency).0)
    }

    /// Sends the outputs and announcements that may leave now to the tap.
    pub(super) fn release(&mut self) -> Result<(), H::Error> {
        let round_began = self.round_began;
        let is_stale = self.has(DriverMutant::ReleaseByStaleClock);
        let DriverParts { replica, world, clock, observer, mutants, .. } = &mut self.parts;
        let mut any = false;
        loop {
            // The clock is read for each frame: the lease is checked against it.
            let now = if is_stale { round_began } else { clock.now() };
            let Some(frame) = replica.poll_tap(now) else { break };
            let sent = world.send(frame.bytes);
            if !mutants.has_driver(DriverMutant::SwallowTapError) {
                sent?;
            }
            if let Some(made_at) = frame.made_at {
                observer.held(now.since(made_at));
                observer.frame(world, Moment::MayLeave { made_at }, || now);
            }
            replica.pop_tap();
            self.spoke_at = Some(now);
            any = true;
        }
        if any {
            let flushed = world.flush();
            if !mutants.has_driver(DriverMutant::SwallowTapError) {
                flushed?;
            }
            replica.tap_flushed();
            let all = replica.role() != RoleName::Protected;
            observer.frame(world, Moment::Left { all }, || clock.now());
        }
        Ok(())
    }

    /// Waits for the wire, and for the tap only if its frames are passed on.
    pub(super) fn wait_on_wire(&mut self) -> Result<(), H::Error> {
        self.wait_on_wire_for(WAIT_MAX)
    }

    /// Does the same as [`wait_on_wire`](Self::wait_on_wire), for at most `wait_max`.
    pub(super) fn wait_on_wire_for(&mut self, wait_max: Duration) -> Result<(), H::Error> {
        // The machine's last question may have made the engine begin a claim.
        self.forward_claim();
        let wait_max = wait_max.min(self.wait_max());
        let passes_frames =
            self.parts.replica.passes_frames() && !self.has(DriverMutant::LeaveFramesInTap);
        let DriverParts { replica, wire, world, clock, .. } = &mut self.parts;
        let now = clock.now();
        if passes_frames {
            let due = wire.due(replica, now).map(|due| due.since(now));
            let timeout = due.map_or(wait_max, |due| due.min(wait_max));
            return H::wait_any(world, wire.port_mut(), timeout);
        }
        Ok(wire.wait(clock, replica, Some(now + wait_max))?)
    }

    pub(super) fn wait_max(&self) -> Duration {
        let is_awaited = self.parts.witness.is_awaited() || self.parts.replica.awaits_disk();
        if is_awaited { ANSWER_WAIT_MAX } else { WAIT_MAX }
    }

    /// Repeats a question until the engine has an answer, and drives the wire meanwhile.
    pub(super) fn ask_until_ready<T>(
        &mut self,
        mut ask: impl FnMut(&mut DriverParts<H>, Time) -> Result<Step<T>, H::Error>,
    ) -> Result<T, BoundaryError<H::Error>> {
        loop {
            let now = self.now();
            match ask(&mut self.parts, now)? {
                Step::Ready(value) => return Ok(value),
                Step::Invalidated => return Err(BoundaryError::Invalidated),
                Step::Pending => {}
            }
            self.drive()?;
            let now = self.now();
            match ask(&mut self.parts, now)? {
                Step::Ready(value) => return Ok(value),
                Step::Invalidated => return Err(BoundaryError::Invalidated),
                Step::Pending => self.wait_on_wire()?,
            }
            self.drive()?;
        }
    }

    /// Spins for the acknowledgement of an output whose log was sent, for at most `ack_wait`. While the
    /// guest runs, this thread cannot see the acknowledgement.
    pub(super) fn spin_for_ack(&mut self) -> Result<(), H::Error> {
        if self.parts.replica.hold().is_empty() {
            return Ok(());
        }
        let mut spin = self.parts.wire.port().begin_spin(self.parts.ack_wait);
        while !self.parts.replica.hold().is_empty() && self.parts.wire.port_mut().spin(&mut spin) {
            self.receive()?;
            self.release()?;
        }
        Ok(())
    }
}
