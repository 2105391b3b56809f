//! [`PairSource`]: the nondeterminism boundary of a machine that is one of a pair.
//!
//! Everything runs on the vCPU thread. The thread asks the engine at every step. While the answer is
//! `Pending`, it drives the wire: it receives, sends and releases frames until the engine has an answer. The
//! wire is also driven when a frame has arrived at a position, and at every kick of the vCPU; there is at
//! least one kick per deadline.

use super::checkpoint_times::CheckpointTimes;
use super::event::Notice;
use super::peer_absence::PeerAbsenceAlarm;
use super::status::{Publisher, StatusBoard};
use crate::link::diagnosis::why_nobody;
use crate::link::{Wire, now};
use crate::replay::error::{HostError, SourceError};
use crate::replay::world::World;
use crate::telemetry::Stages;
use crate::witness::WitnessClient;
use hdrhistogram::Histogram;
use logchan::entry::REGISTERS;
use logchan::ids::{Lane, Term};
use logchan::limits::PAGE_BYTES;
use logchan::time::{Duration as Span, Time};
use netpath::wait::spin;
use netpath::{FramePort, MacAddr, WaitPolicy, wait_any};
use replication::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, EndState, Input, Memory, Position, Region,
    StopAction, VcpuDigest, Waited,
};
use replication::checkpoint::{CheckpointImage, Image};
use replication::replica::{
    Command, CopyRequest, Halt, Halted, NextRegion, Replica, ReplicaEvent, RoleName, Step,
    StopAdvice,
};
use std::time::{Duration, Instant};

/// Longest wait on the wire. A kick that arrives just before the wait begins is lost, so the stop flag may be
/// seen this late.
const WAIT_MAX: Span = Span::from_millis(50);

/// Longest wait on the wire while a claim is outstanding. The kick that announces the witness's answer can
/// be lost in the same way, and the whole VM waits for that answer.
const WITNESS_WAIT_MAX: Span = Span::from_micros(500);

/// Receive calls per drive of the wire, each of which takes a bounded number of frames.
const RECEIVES_PER_DRIVE: usize = 4;

/// Longest time for which memory is copied in one go; the guest is paused meanwhile.
const COPY_MAX: Span = Span::from_micros(300);

/// Bytes of log that may wait for the next output or for the guest to become idle: about one frame. More
/// than this is sent at the next position.
const UNSENT_BYTES_MAX: u64 = 1200;

/// Receives the notices about a replica.
pub type Observer = Box<dyn FnMut(&Replica, Notice) + Send>;

/// Components of a [`PairSource`].
pub struct PairParts<P> {
    /// The engine.
    pub replica: Replica,
    /// The log link.
    pub wire: Wire,
    /// The tap, the clocks, the console.
    pub world: World<P>,
    /// The client of the witness.
    pub witness: WitnessClient,
    /// How to wait for frames, on the wire and on the tap.
    pub wait: WaitPolicy,
    /// How long to spin for the acknowledgement of an output before the guest continues.
    pub ack_wait: Span,
    /// Receives the notices.
    pub observer: Observer,
    /// Where the status is published.
    pub board: StatusBoard,
}

/// The nondeterminism boundary of a primary and of a backup. Must be created on the vCPU thread.
pub struct PairSource<P> {
    parts: PairParts<P>,
    /// The exit that is being handled has made an output.
    made_output: bool,
    /// A frame has entered the guest, and its log entry was not sent.
    frame_entered: bool,
    /// Log position up to which the log was sent.
    sent: u64,
    /// Time from an output's creation until it was given to the tap, nanoseconds.
    hold_ns: Histogram<u64>,
    /// When this host last sent a frame to the LAN.
    spoke_at: Option<Time>,
    is_stopping: bool,
    /// When the guest was paused for the current checkpoint.
    paused_since: Option<Time>,
    /// The VM's last pause for the closing checkpoint of a sync.
    last_sync_pause: Option<Span>,
    checkpoint_times: CheckpointTimes,
    publisher: Option<Publisher>,
    absence_alarm: PeerAbsenceAlarm,
    /// The term whose unanswered claim was reported last.
    unanswered_claim: Option<Term>,
}

impl<P: FramePort> PairSource<P> {
    /// Creates the boundary of a machine of a pair.
    pub fn new(parts: PairParts<P>) -> PairSource<P> {
        let hold_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("sound bounds");
        let publisher = Some(Publisher::new(parts.board.clone()));
        PairSource {
            parts,
            made_output: false,
            frame_entered: false,
            sent: 0,
            hold_ns,
            spoke_at: None,
            is_stopping: false,
            paused_since: None,
            last_sync_pause: None,
            checkpoint_times: CheckpointTimes::new(),
            publisher,
            absence_alarm: PeerAbsenceAlarm::default(),
            unanswered_claim: None,
        }
    }

    /// Returns the engine, for queries.
    pub fn replica(&self) -> &Replica {
        &self.parts.replica
    }

    /// Returns the engine, to report what only the owner of the machine knows.
    pub fn replica_mut(&mut self) -> &mut Replica {
        &mut self.parts.replica
    }

    /// Returns the wire, for queries.
    pub fn wire_mut(&mut self) -> &mut Wire {
        &mut self.parts.wire
    }

    /// Returns the times from an output's creation until it was given to the tap, nanoseconds.
    pub fn hold_ns(&self) -> &Histogram<u64> {
        &self.hold_ns
    }

    /// Returns the stage latencies of sampled frames.
    pub fn stages(&self) -> &Stages {
        self.parts.world.stages()
    }

    /// Returns the VM's last pause for the closing checkpoint of a sync.
    pub fn last_sync_pause(&self) -> Option<Span> {
        self.last_sync_pause
    }

    /// Returns how long checkpoints took.
    pub(super) fn checkpoint_times(&self) -> &CheckpointTimes {
        &self.checkpoint_times
    }

    pub(super) fn peer_mac(&self) -> MacAddr {
        self.parts.wire.peer()
    }

    pub(super) fn take_publisher(&mut self, now: Time) -> Option<Publisher> {
        self.publisher.take_if(|publisher| publisher.is_due(now))
    }

    pub(super) fn put_publisher(&mut self, publisher: Publisher) {
        self.publisher = Some(publisher);
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
    pub fn shut_down(&mut self) -> Result<Option<Halt>, SourceError> {
        let silence = self.parts.replica.endpoint().map(|end| end.settings().timing.silence);
        let limit = now() + silence.unwrap_or_default() * 2;
        self.parts.replica.stop(now());
        while self.parts.replica.halted().is_none() && now() < limit {
            self.drive()?;
            self.wait_on_wire()?;
        }
        self.drive()?;
        Ok(self.parts.replica.halted())
    }

    /// Handles everything that has arrived, sends the log, and releases the outputs that may leave.
    fn drive(&mut self) -> Result<(), SourceError> {
        self.receive()?;
        self.transmit()?;
        self.release()?;
        let now = now();
        self.publish(now);
        self.check_absence(now);
        Ok(())
    }

    /// Reports that no peer is met, once per absence.
    fn check_absence(&mut self, now: Time) {
        let PairParts { replica, wire, observer, .. } = &mut self.parts;
        let state = match replica.role() {
            RoleName::Seeking => Some("waiting for the primary"),
            RoleName::Alone => Some("unprotected"),
            RoleName::Standalone
            | RoleName::Starting
            | RoleName::Copying
            | RoleName::Closing
            | RoleName::Protected
            | RoleName::Losing
            | RoleName::Syncing
            | RoleName::Following
            | RoleName::Finishing
            | RoleName::Claiming
            | RoleName::Leaving
            | RoleName::Halted => None,
        };
        if self.absence_alarm.is_due(now, state.is_some())
            && let (Some(state), Some(endpoint)) = (state, replica.endpoint())
        {
            let report = wire.report(endpoint.link_stats());
            let why = why_nobody(&report, wire.port(), wire.peer());
            observer(replica, Notice::NobodyMet { why: format!("{state}: {why}") });
        }
    }

    /// Handles received frames, a stop request and the witness's answer, and reports the events that follow.
    fn receive(&mut self) -> Result<(), SourceError> {
        let PairParts { replica, wire, world, witness, observer, .. } = &mut self.parts;
        // The rest is handled by the next drive: a flood of frames must not keep the guest from running.
        for _ in 0..RECEIVES_PER_DRIVE {
            if !wire.receive(replica).map_err(HostError::from)? {
                break;
            }
        }
        if world.is_stopping() && !self.is_stopping {
            self.is_stopping = true;
            replica.stop(now());
        }
        if let Some((term, answer)) = witness.poll() {
            replica.handle_witness(now(), term, answer);
        }
        forward_claim(replica, witness);
        while let Some(event) = replica.poll_event() {
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
                ReplicaEvent::TermWon { .. }
                | ReplicaEvent::SyncBegun
                | ReplicaEvent::Protected
                | ReplicaEvent::BackupSilent { .. }
                | ReplicaEvent::BackupLeft
                | ReplicaEvent::Following
                | ReplicaEvent::PrimarySilent { .. }
                | ReplicaEvent::LogFinished
                | ReplicaEvent::WentLive { .. }
                | ReplicaEvent::Diverged
                | ReplicaEvent::Halted(_) => true,
            };
            if is_news {
                let notice = match (event, replica.divergence()) {
                    (ReplicaEvent::Diverged, Some(divergence)) => {
                        Notice::Diverged(Box::new(divergence.clone()))
                    }
                    (event, _) => Notice::Replica { event, spoke_at: self.spoke_at },
                };
                observer(replica, notice);
            }
        }
        Ok(())
    }

    /// Sends all of the log.
    fn transmit(&mut self) -> Result<(), SourceError> {
        let PairParts { replica, wire, .. } = &mut self.parts;
        wire.transmit(replica).map_err(HostError::from)?;
        self.sent = self.appended();
        self.stamp_log_sent();
        Ok(())
    }

    /// Records the time: all of the log that an output may wait for was sent.
    fn stamp_log_sent(&mut self) {
        if self.parts.replica.role() == RoleName::Protected {
            self.parts.world.stages_mut().sent(|| now().as_nanos());
        }
    }

    /// Returns the log position behind the newest entry.
    fn appended(&self) -> u64 {
        self.parts.replica.channel().map_or(0, |channel| channel.appended(Lane::Latency).0)
    }

    /// Sends the outputs and announcements that may leave now to the tap.
    fn release(&mut self) -> Result<(), SourceError> {
        let PairParts { replica, world, .. } = &mut self.parts;
        let mut any = false;
        loop {
            // The clock is read for each frame: the lease is checked against it.
            let now = now();
            let Some(frame) = replica.poll_tap(now) else { break };
            world.port_mut().send(frame.bytes).map_err(HostError::from)?;
            if let Some(made_at) = frame.made_at {
                self.hold_ns.saturating_record(now.since(made_at).as_nanos());
                world.stages_mut().acked(made_at.as_nanos(), now.as_nanos());
            }
            replica.pop_tap();
            self.spoke_at = Some(now);
            any = true;
        }
        if any {
            world.port_mut().flush().map_err(HostError::from)?;
            replica.tap_flushed();
            let is_protected = replica.role() == RoleName::Protected;
            world.stages_mut().left(!is_protected, || self::now().as_nanos());
        }
        Ok(())
    }

    /// Waits for the wire only, not for the tap.
    fn wait_on_wire(&mut self) -> Result<(), SourceError> {
        // The machine's last question may have made the engine begin a claim.
        forward_claim(&mut self.parts.replica, &mut self.parts.witness);
        let wait_max = self.wait_max();
        let PairParts { replica, wire, .. } = &mut self.parts;
        wire.wait(replica, Some(now() + wait_max)).map_err(HostError::from)?;
        Ok(())
    }

    fn wait_max(&self) -> Span {
        if self.parts.witness.is_asked() { WITNESS_WAIT_MAX } else { WAIT_MAX }
    }

    /// Repeats a question until the engine has an answer, and drives the wire meanwhile.
    fn ask_until_ready<T>(
        &mut self,
        mut ask: impl FnMut(&mut PairParts<P>, Time) -> Result<Step<T>, SourceError>,
    ) -> Result<T, SourceError> {
        loop {
            match ask(&mut self.parts, now())? {
                Step::Ready(value) => return Ok(value),
                Step::Invalidated => return Err(SourceError::Invalidated),
                Step::Pending => {}
            }
            self.drive()?;
            match ask(&mut self.parts, now())? {
                Step::Ready(value) => return Ok(value),
                Step::Invalidated => return Err(SourceError::Invalidated),
                Step::Pending => self.wait_on_wire()?,
            }
            self.drive()?;
        }
    }

    /// Spins for the acknowledgement of an output whose log was sent, for at most `ack_wait`. While the
    /// guest runs, this thread cannot see the acknowledgement.
    fn spin_for_ack(&mut self) -> Result<(), SourceError> {
        if self.parts.replica.hold().is_empty() {
            return Ok(());
        }
        // It does not yield: the acknowledgement arrives sooner than another thread would give the CPU
        // back. It reads the clock rarely, because each reading can be a system call on a vCPU thread.
        let span = Duration::from_nanos(self.parts.ack_wait.as_nanos());
        let policy = WaitPolicy { spin: span, yield_after: span, wake_signal: None };
        let mut now = Instant::now();
        let until = now + span;
        while !self.parts.replica.hold().is_empty()
            && spin(&policy, &mut now, Some(until), || self.parts.wire.port().has_frame())
        {
            self.receive()?;
            self.release()?;
        }
        Ok(())
    }
}

/// Passes the engine's claim to the witness, if one is due.
fn forward_claim(replica: &mut Replica, witness: &mut WitnessClient) {
    if let Some(Command::Claim { term, previous }) = replica.poll_command() {
        witness.ask(term, previous);
    }
}

impl<P: FramePort> DeviceBoundary for PairSource<P> {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.ask_until_ready(|parts, now| parts.replica.clock_ns(now, &mut parts.world))
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.ask_until_ready(|parts, now| parts.replica.wall_clock_ns(now, &mut parts.world))
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.ask_until_ready(|parts, now| parts.replica.entropy(now, &mut parts.world, bytes))
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.made_output = true;
        self.ask_until_ready(|parts, now| {
            let step = parts.replica.output(now, frame);
            if let Step::Ready(()) = step {
                parts.world.stages_mut().made(|| now.as_nanos());
            }
            Ok(step)
        })
    }

    fn interrupt_served(&mut self) {
        self.parts.world.stages_mut().served(|| now().as_nanos());
    }

    /// Prints the byte, except on a backup: the primary has printed it already.
    fn console_output(&mut self, byte: u8) {
        if !self.is_backup() {
            self.parts.world.console_output(byte);
        }
    }
}

impl<P: FramePort> Boundary for PairSource<P> {
    fn poll_memory(
        &mut self,
        memory: &mut dyn Memory<Error = SourceError>,
    ) -> Result<(), SourceError> {
        if self.parts.replica.poll_copy().is_none() {
            return Ok(());
        }
        let until = now() + COPY_MAX;
        let mut page = [0; PAGE_BYTES];
        while let Some(request) = self.parts.replica.poll_copy() {
            match request {
                CopyRequest::Begin => {
                    memory.start_dirty_tracking()?;
                    self.parts.replica.copy_begun();
                }
                CopyRequest::Page(number) => {
                    memory.read_page(number, &mut page);
                    self.parts.replica.copied(now(), &page);
                }
            }
            if now() >= until {
                break;
            }
        }
        self.drive()
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        let unsent = self.appended().saturating_sub(self.sent);
        // The guest's answer to a frame needs the frame's log entry. Sent now, it can be acknowledged while
        // the guest computes the answer.
        if unsent > UNSENT_BYTES_MAX || self.frame_entered && unsent > 0 {
            self.transmit()?;
        }
        self.frame_entered = false;
        if self.parts.wire.port().has_frame() || self.parts.world.is_stopping() {
            self.drive()?;
        }
        loop {
            match self.parts.replica.next_region(now()) {
                Step::Ready(NextRegion::Run) => {
                    self.parts.world.entering()?;
                    return Ok(Region::Run);
                }
                Step::Ready(NextRegion::RunToExit) => {
                    self.parts.world.entering()?;
                    return Ok(Region::RunToExit);
                }
                Step::Ready(NextRegion::Apply) => {
                    self.parts.world.idle()?;
                    return Ok(Region::Apply);
                }
                Step::Ready(NextRegion::Capture) => {
                    // Stopping the vCPU may consume the timer's only kick.
                    self.parts.world.idle()?;
                    self.paused_since = Some(now());
                    return Ok(Region::Capture);
                }
                Step::Ready(NextRegion::End) => return Ok(Region::End),
                Step::Invalidated => return Err(SourceError::Invalidated),
                Step::Pending => {}
            }
            if self.parts.replica.poll_copy().is_some() {
                return Ok(Region::Pending);
            }
            self.parts.world.idle()?;
            self.drive()?;
            if let Step::Pending = self.parts.replica.next_region(now()) {
                self.wait_on_wire()?;
                self.drive()?;
            }
        }
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.parts.world.reached(position, vcpu, exit)?;
        self.ask_until_ready(|parts, now| Ok(parts.replica.reached(now, position, vcpu, exit)))
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        if std::mem::take(&mut self.made_output) {
            if self.parts.replica.is_releasable_by(self.sent) {
                self.stamp_log_sent();
            } else {
                self.transmit()?;
            }
            if self.parts.wire.port().has_frame() {
                self.receive()?;
            }
            self.release()?;
            self.spin_for_ack()?;
        }
        Ok(())
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        // Both questions use one clock reading: where RDTSC faults on this thread, each is a system call.
        let asked =
            self.ask_until_ready(|parts, now| Ok(parts.replica.input_ready(now).map(|()| now)))?;
        let PairParts { replica, world, .. } = &mut self.parts;
        match replica.next_input(asked, world, capacity)? {
            Step::Ready(input) => {
                self.frame_entered |= matches!(input, Some(Input::Frame(_)));
                Ok(input)
            }
            Step::Invalidated => Err(SourceError::Invalidated),
            Step::Pending => unreachable!("input_ready returned Ready"),
        }
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        self.parts.world.idle()?;
        self.drive()?;
        if self.is_stopping {
            return Ok(Waited::End);
        }
        let waits = self.ask_until_ready(|parts, now| Ok(parts.replica.halted_guest(now)));
        match waits {
            Ok(Halted::Look) => return Ok(Waited::Poll),
            Ok(Halted::World) => {}
            // The guest leaves its halt without an interrupt, here and on the backup: the backup starts
            // from the state after the halt.
            Ok(Halted::Capture) => return Ok(Waited::End),
            Err(SourceError::Invalidated) if self.is_stopping => return Ok(Waited::End),
            Err(error) => return Err(error),
        }
        if self.parts.replica.poll_copy().is_some() {
            return Ok(Waited::Poll);
        }
        let wait_max = Duration::from_nanos(self.wait_max().as_nanos());
        let PairParts { replica, wire, world, wait, .. } = &mut self.parts;
        let due = wire.due(replica, now());
        let mut timeout = world.wait_max(capacity).min(wait_max);
        if let Some(due) = due {
            timeout = timeout.min(Duration::from_nanos(due.since(now()).as_nanos()));
        }
        if capacity.frame {
            wait_any(&mut [world.port_mut(), wire.port_mut()], wait, Some(timeout))
                .map_err(HostError::from)?;
        } else {
            // The NIC's receive queue has no buffer: frames stay in the port.
            wire.port_mut().wait(Some(timeout)).map_err(HostError::from)?;
        }
        if wire.port().has_frame() || due.is_some_and(|due| due <= now()) {
            self.drive()?;
        }
        Ok(Waited::Poll)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.ask_until_ready(|parts, now| Ok(parts.replica.interrupt(now, vector)))?;
        self.parts.world.stages_mut().injected(|| now().as_nanos());
        Ok(())
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        self.drive()?;
        // This must be called whatever the engine's advice is: it re-arms the timer if the timer kicked.
        let as_needed = self.parts.world.interrupted(capacity, window)?;
        let action =
            match self.ask_until_ready(|parts, now| Ok(parts.replica.mid_region_stop(now)))? {
                StopAdvice::Resume => StopAction::Resume,
                StopAdvice::Checkpoint => StopAction::Checkpoint,
                StopAdvice::AsNeeded => as_needed,
            };
        if action == StopAction::Checkpoint {
            self.paused_since = Some(now());
        }
        Ok(action)
    }

    fn window_at_cpl0(&mut self) -> Result<StopAction, SourceError> {
        match self.parts.replica.mid_region_stop(now()) {
            Step::Ready(StopAdvice::Checkpoint | StopAdvice::AsNeeded) => {
                self.paused_since = Some(now());
                Ok(StopAction::Checkpoint)
            }
            Step::Ready(StopAdvice::Resume) | Step::Pending => Ok(StopAction::Resume),
            Step::Invalidated => Err(SourceError::Invalidated),
        }
    }

    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.ask_until_ready(|parts, now| Ok(parts.replica.fatal(now, registers, exit)))
    }

    fn keeps_checkpoints(&self) -> bool {
        self.parts.replica.keeps_checkpoints()
    }

    fn checkpoint(&mut self, image: &dyn CheckpointImage) -> Result<(), SourceError> {
        let since = self.paused_since.take();
        let captured_at = now();
        let was_copying = self.parts.replica.role() == RoleName::Copying;
        let pages = image.pages().len() as u64;
        self.ask_until_ready(|parts, now| parts.replica.checkpoint(now, &mut parts.world, image))?;
        // As after stopping the vCPU: a kick that arrived meanwhile may be lost.
        self.parts.world.idle()?;
        let PairParts { replica, observer, .. } = &mut self.parts;
        if let Some(since) = since
            && matches!(replica.role(), RoleName::Closing | RoleName::Protected)
        {
            let pause = now().since(since);
            if was_copying {
                self.last_sync_pause = Some(pause);
                observer(replica, Notice::SyncClosed { pause, pages });
            } else {
                self.checkpoint_times.sent(captured_at.since(since), pause, pages);
            }
        }
        Ok(())
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        let image = self.parts.replica.take_checkpoint();
        if !image.full {
            self.checkpoint_times.fetched(now());
        }
        Ok(image)
    }

    fn applied(&mut self) -> Result<(), SourceError> {
        self.checkpoint_times.applied(now());
        Ok(())
    }

    /// Drives the wire during a long operation: the other host waits for acknowledgements, and takes this
    /// host for dead after its silence timeout.
    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.drive()
    }

    fn end(&mut self, _end: &EndState) -> Result<(), SourceError> {
        Ok(())
    }
}
