//! [`PairSource`]: the door of a machine that has a counterpart on another host.
//!
//! Everything happens on the vCPU's thread: the engine is asked at every step, and where it says
//! "not yet" the thread drives the wire until it says something else. In between, a turn of the
//! wire is taken at every position and at every kick, of which there is one a deadline at least.

use super::checkpoint_times::CheckpointTimes;
use super::event::Notice;
use super::image::InRam;
use super::peer_absence::PeerAbsenceAlarm;
use super::status::{Publisher, StatusBoard};
use crate::checkpoint::{Image, ImageView};
use crate::link::diagnosis::why_nobody;
use crate::link::{Wire, now};
use crate::replay::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, EndState, Input, Memory, Position, Region,
    StopAction, VcpuDigest, Waited,
};
use crate::replay::error::SourceError;
use crate::replay::world::World;
use crate::replica::{
    Command, CopyRequest, Halt, Halted, NextRegion, Replica, ReplicaEvent, RoleName, Step,
    StopAdvice,
};
use crate::telemetry::Stages;
use crate::witness::WitnessClient;
use hdrhistogram::Histogram;
use logchan::entry::REGISTERS;
use logchan::ids::{Lane, Term};
use logchan::limits::PAGE_BYTES;
use logchan::time::{Duration as Span, Time};
use netpath::wait::spin;
use netpath::{FramePort, MacAddr, WaitPolicy, wait_any};
use std::time::{Duration, Instant};

/// Longest wait on the wire: the stop flag is seen this late when a kick gets lost in a gap.
const WAIT_MAX: Span = Span::from_millis(50);

/// Longest wait while the witness is asked: the kick that comes with its answer may get lost in the
/// gap, too, and for this answer everybody waits.
const WITNESS_WAIT_MAX: Span = Span::from_micros(500);

/// How often a turn takes in as many frames as a wire gives at a time.
const RECEIVES_PER_TURN: usize = 4;

/// How long memory is copied at a time; the guest stands still for it.
const COPY_MAX: Span = Span::from_micros(300);

/// Log that may wait for the next output or for the guest to be idle. More than this is sent at the
/// next position: about a frame's worth.
const UNSENT_BYTES_MAX: u64 = 1200;

/// Is told what happens to a replica.
pub type Observer = Box<dyn FnMut(&Replica, Notice) + Send>;

/// What a source is made of.
pub struct PairParts<P> {
    /// The engine.
    pub replica: Replica,
    /// The log link.
    pub wire: Wire,
    /// The tap, the clocks, the console.
    pub world: World<P>,
    /// Who decides who may speak.
    pub witness: WitnessClient,
    /// How to wait, for the wire and for the tap.
    pub wait: WaitPolicy,
    /// How long to look for an acknowledgement before the guest that made an output runs on.
    pub ack_wait: Span,
    /// Is told what happens.
    pub observer: Observer,
    /// Shows how this host is.
    pub board: StatusBoard,
}

/// The event source of a primary and of a backup. Made on the thread that runs the vCPU.
pub struct PairSource<P> {
    parts: PairParts<P>,
    /// Outputs made while the current exit is handled.
    made_output: bool,
    /// A frame has entered the guest, and the log of it was not sent.
    took_frame: bool,
    /// How much of the log was sent.
    sent: u64,
    /// From output made to output on the tap, nanoseconds.
    hold_ns: Histogram<u64>,
    /// When the LAN was last given a frame.
    spoke_at: Option<Time>,
    is_stopping: bool,
    /// Since when the guest stands still for a checkpoint.
    still_since: Option<Time>,
    /// The machine is void, and was not told.
    invalidated: bool,
    /// The VM's last pause for the closing checkpoint of a sync.
    last_sync_pause: Option<Span>,
    checkpoint_times: CheckpointTimes,
    publisher: Option<Publisher>,
    absence_alarm: PeerAbsenceAlarm,
    /// The term whose claim got no answer; that was told.
    unanswered: Option<Term>,
}

impl<P: FramePort> PairSource<P> {
    /// The door of a machine of a pair.
    pub fn new(parts: PairParts<P>) -> PairSource<P> {
        let hold_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("sound bounds");
        let publisher = Some(Publisher::new(parts.board.clone()));
        PairSource {
            parts,
            made_output: false,
            took_frame: false,
            sent: 0,
            hold_ns,
            spoke_at: None,
            is_stopping: false,
            still_since: None,
            invalidated: false,
            last_sync_pause: None,
            checkpoint_times: CheckpointTimes::new(),
            publisher,
            absence_alarm: PeerAbsenceAlarm::default(),
            unanswered: None,
        }
    }

    /// The engine, to ask it.
    pub fn replica(&self) -> &Replica {
        &self.parts.replica
    }

    /// The engine, which must be told of what only the machine's owner knows.
    pub fn replica_mut(&mut self) -> &mut Replica {
        &mut self.parts.replica
    }

    /// The wire, to ask it.
    pub fn wire_mut(&mut self) -> &mut Wire {
        &mut self.parts.wire
    }

    /// From output made to output on the tap, nanoseconds.
    pub fn hold_ns(&self) -> &Histogram<u64> {
        &self.hold_ns
    }

    /// What was measured of frames.
    pub fn stages(&self) -> &Stages {
        self.parts.world.stages()
    }

    /// The VM's last pause for the closing checkpoint of a sync.
    pub fn last_sync_pause(&self) -> Option<Span> {
        self.last_sync_pause
    }

    /// How long checkpoints took.
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

    /// Whether an empty machine is what is wanted.
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

    /// Says goodbye, and stays for as long as that takes.
    pub fn farewell(&mut self) -> Result<Option<Halt>, SourceError> {
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

    /// Takes in what arrived, and sends and releases what may leave.
    fn drive(&mut self) -> Result<(), SourceError> {
        self.take_in()?;
        self.transmit()?;
        self.release()?;
        let now = now();
        self.publish(now);
        self.check_absence(now);
        Ok(())
    }

    /// Tells, once, that nobody is met.
    fn check_absence(&mut self, now: Time) {
        let PairParts { replica, wire, observer, .. } = &mut self.parts;
        let looks_for = match replica.role() {
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
        if self.absence_alarm.is_due(now, looks_for.is_some())
            && let (Some(looks_for), Some(endpoint)) = (looks_for, replica.endpoint())
        {
            let report = wire.report(endpoint.link_stats());
            let why = why_nobody(&report, wire.port(), wire.peer());
            observer(replica, Notice::NobodyMet { why: format!("{looks_for}: {why}") });
        }
    }

    fn take_in(&mut self) -> Result<(), SourceError> {
        let PairParts { replica, wire, world, witness, observer, .. } = &mut self.parts;
        // What is still there after this much comes in the next turn: a flood must not keep the guest
        // from running.
        for _ in 0..RECEIVES_PER_TURN {
            if !wire.receive(replica)? {
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
        pass_on(replica, witness);
        while let Some(event) = replica.poll_event() {
            let is_news = match event {
                ReplicaEvent::PeerRefused { mismatch, proven: _ } => {
                    self.absence_alarm.refused(mismatch)
                }
                ReplicaEvent::PeerMet { .. } => {
                    self.absence_alarm.met();
                    true
                }
                // It is asked again and again.
                ReplicaEvent::WitnessUnreachable { term } => {
                    self.unanswered.replace(term) != Some(term)
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
                observer(replica, Notice::Replica { event, spoke_at: self.spoke_at });
            }
        }
        Ok(())
    }

    fn transmit(&mut self) -> Result<(), SourceError> {
        let PairParts { replica, wire, .. } = &mut self.parts;
        wire.transmit(replica)?;
        self.sent = self.appended();
        self.note_sent();
        Ok(())
    }

    /// All of the log that an output may wait for is on its way.
    fn note_sent(&mut self) {
        if self.parts.replica.role() == RoleName::Protected {
            self.parts.world.stages_mut().sent(|| now().as_nanos());
        }
    }

    fn appended(&self) -> u64 {
        self.parts.replica.channel().map_or(0, |channel| channel.appended(Lane::Latency).0)
    }

    /// Gives the tap what may leave now.
    fn release(&mut self) -> Result<(), SourceError> {
        let PairParts { replica, world, .. } = &mut self.parts;
        let mut any = false;
        loop {
            // Read anew for each frame: the lease is checked against it.
            let now = now();
            let Some(frame) = replica.poll_tap(now) else { break };
            world.port_mut().send(frame.bytes)?;
            if let Some(made_at) = frame.made_at {
                self.hold_ns.saturating_record(now.since(made_at).as_nanos());
                world.stages_mut().acked(made_at.as_nanos(), now.as_nanos());
            }
            replica.pop_tap();
            self.spoke_at = Some(now);
            any = true;
        }
        if any {
            world.port_mut().flush()?;
            replica.tap_flushed();
            let is_protected = replica.role() == RoleName::Protected;
            world.stages_mut().left(!is_protected, || self::now().as_nanos());
        }
        Ok(())
    }

    /// Waits for the wire alone.
    fn wait_on_wire(&mut self) -> Result<(), SourceError> {
        // The machine's last question may have been answered by one to the witness.
        pass_on(&mut self.parts.replica, &mut self.parts.witness);
        let wait_max = self.wait_max();
        let PairParts { replica, wire, .. } = &mut self.parts;
        wire.wait(replica, Some(now() + wait_max))?;
        Ok(())
    }

    fn wait_max(&self) -> Span {
        if self.parts.witness.is_asked() { WITNESS_WAIT_MAX } else { WAIT_MAX }
    }

    fn check_invalidated(&mut self) -> Result<(), SourceError> {
        match std::mem::take(&mut self.invalidated) {
            true => Err(SourceError::Invalidated),
            false => Ok(()),
        }
    }

    /// Asks until the engine has an answer, driving the wire meanwhile.
    fn until<T>(
        &mut self,
        mut ask: impl FnMut(&mut PairParts<P>, Time) -> Result<Step<T>, SourceError>,
    ) -> Result<T, SourceError> {
        self.check_invalidated()?;
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

    /// An output was made and its log sent: looks for the acknowledgement for a moment, because a
    /// guest that runs on would keep us from seeing it.
    fn look_for_ack(&mut self) -> Result<(), SourceError> {
        if self.parts.replica.hold().is_empty() {
            return Ok(());
        }
        // Without yielding: the answer is nearer than any other thread's turn. And with few readings of
        // the clock, each of which is a system call on a vCPU's thread here.
        let span = Duration::from_nanos(self.parts.ack_wait.as_nanos());
        let look = WaitPolicy { spin: span, yield_after: span, wake_signal: None };
        let mut now = Instant::now();
        let until = now + span;
        while !self.parts.replica.hold().is_empty()
            && spin(&look, &mut now, Some(until), || self.parts.wire.port().has_frame())
        {
            self.take_in()?;
            self.release()?;
        }
        Ok(())
    }
}

/// Asks whomever the engine wants to be asked.
fn pass_on(replica: &mut Replica, witness: &mut WitnessClient) {
    if let Some(Command::Claim { term, previous }) = replica.poll_command() {
        witness.ask(term, previous);
    }
}

impl<P: FramePort> DeviceBoundary for PairSource<P> {
    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.until(|parts, now| parts.replica.clock_ns(now, &mut parts.world))
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.until(|parts, now| parts.replica.wall_clock_ns(now, &mut parts.world))
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.until(|parts, now| parts.replica.entropy(now, &mut parts.world, bytes))
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.made_output = true;
        self.until(|parts, now| {
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

    /// A backup's console was read when the primary wrote it.
    fn console_output(&mut self, byte: u8) {
        if !self.is_backup() {
            self.parts.world.console_output(byte);
        }
    }
}

impl<P: FramePort> Boundary for PairSource<P> {
    fn poll_memory(&mut self, memory: &mut dyn Memory) -> Result<(), SourceError> {
        if self.parts.replica.poll_copy().is_none() {
            return Ok(());
        }
        let until = now() + COPY_MAX;
        let mut page = [0; PAGE_BYTES];
        while let Some(request) = self.parts.replica.poll_copy() {
            match request {
                CopyRequest::Begin => {
                    memory.begin_noting()?;
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
        self.check_invalidated()?;
        let unsent = self.appended().saturating_sub(self.sent);
        // The answer to a frame needs the log of it, which the backup may acknowledge while the guest is
        // at work on the answer.
        if unsent > UNSENT_BYTES_MAX || self.took_frame && unsent > 0 {
            self.transmit()?;
        }
        self.took_frame = false;
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
                    // Stopping the vCPU may swallow the timer's only kick.
                    self.parts.world.idle()?;
                    self.still_since = Some(now());
                    return Ok(Region::Capture);
                }
                Step::Ready(NextRegion::End) => return Ok(Region::End),
                Step::Invalidated => return Err(SourceError::Invalidated),
                Step::Pending => {}
            }
            if self.parts.replica.poll_copy().is_some() {
                return Ok(Region::Stay);
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
        self.until(|parts, now| Ok(parts.replica.reached(now, position, vcpu.digest)))
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        if std::mem::take(&mut self.made_output) {
            if self.parts.replica.is_releasable_by(self.sent) {
                self.note_sent();
            } else {
                self.transmit()?;
            }
            if self.parts.wire.port().has_frame() {
                self.take_in()?;
            }
            self.release()?;
            self.look_for_ack()?;
        }
        Ok(())
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        // One reading for both: on this thread each is a system call where RDTSC is a fault.
        let asked = self.until(|parts, now| Ok(parts.replica.input_ready(now).map(|()| now)))?;
        let PairParts { replica, world, .. } = &mut self.parts;
        match replica.next_input(asked, world, capacity)? {
            Step::Ready(input) => {
                self.took_frame |= matches!(input, Some(Input::Frame(_)));
                Ok(input)
            }
            Step::Invalidated => Err(SourceError::Invalidated),
            Step::Pending => unreachable!("the engine said that it has an answer"),
        }
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        self.parts.world.idle()?;
        self.drive()?;
        if self.is_stopping {
            return Ok(Waited::End);
        }
        let waits = self.until(|parts, now| Ok(parts.replica.halted_guest(now)));
        match waits {
            Ok(Halted::Look) => return Ok(Waited::Look),
            Ok(Halted::World) => {}
            // The guest leaves its halt without an interrupt, here and on the backup, which begins
            // with the state behind it.
            Ok(Halted::Capture) => return Ok(Waited::End),
            Err(SourceError::Invalidated) if self.is_stopping => return Ok(Waited::End),
            Err(error) => return Err(error),
        }
        if self.parts.replica.poll_copy().is_some() {
            return Ok(Waited::Look);
        }
        let wait_max = Duration::from_nanos(self.wait_max().as_nanos());
        let PairParts { replica, wire, world, wait, .. } = &mut self.parts;
        let due = wire.due(replica, now());
        let mut timeout = world.wait_max(capacity).min(wait_max);
        if let Some(due) = due {
            timeout = timeout.min(Duration::from_nanos(due.since(now()).as_nanos()));
        }
        if capacity.frame {
            wait_any(&mut [world.port_mut(), wire.port_mut()], wait, Some(timeout))?;
        } else {
            // The guest gave the NIC no buffer: frames stay in the port.
            wire.port_mut().wait(Some(timeout))?;
        }
        if wire.port().has_frame() || due.is_some_and(|due| due <= now()) {
            self.drive()?;
        }
        Ok(Waited::Look)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.until(|parts, now| Ok(parts.replica.interrupt(now, vector)))?;
        self.parts.world.stages_mut().injected(|| now().as_nanos());
        Ok(())
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        self.drive()?;
        // Whatever comes of it, the timer is armed again if it was it that kicked.
        let as_needed = self.parts.world.interrupted(capacity, window)?;
        let action = match self.until(|parts, now| Ok(parts.replica.mid_region_stop(now)))? {
            StopAdvice::Resume => StopAction::Resume,
            StopAdvice::Checkpoint => StopAction::Checkpoint,
            StopAdvice::AsNeeded => as_needed,
        };
        if action == StopAction::Checkpoint {
            self.still_since = Some(now());
        }
        Ok(action)
    }

    fn window_at_cpl0(&mut self) -> StopAction {
        match self.parts.replica.mid_region_stop(now()) {
            Step::Ready(StopAdvice::Checkpoint | StopAdvice::AsNeeded) => {
                self.still_since = Some(now());
                StopAction::Checkpoint
            }
            Step::Ready(StopAdvice::Resume) | Step::Pending => StopAction::Resume,
            Step::Invalidated => {
                // There is no way to say it here; the next question's answer is this.
                self.invalidated = true;
                StopAction::Resume
            }
        }
    }

    fn fatal(
        &mut self,
        _registers: &[u64; REGISTERS],
        _exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.until(|parts, now| Ok(parts.replica.fatal(now)))
    }

    fn keeps_checkpoints(&self) -> bool {
        self.parts.replica.keeps_checkpoints()
    }

    fn checkpoint(&mut self, image: &ImageView<'_>) -> Result<(), SourceError> {
        let since = self.still_since.take();
        let captured_at = now();
        let was_copying = self.parts.replica.role() == RoleName::Copying;
        let pages = image.pages.len() as u64;
        let image = InRam(image);
        self.until(|parts, now| parts.replica.checkpoint(now, &mut parts.world, &image))?;
        // As when a vCPU is stopped: a kick that came meanwhile may be lost.
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

    /// The other host waits for an acknowledgement, or for output, and not for longer than its silence
    /// timeout.
    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.drive()
    }

    fn end(&mut self, _end: &EndState) -> Result<(), SourceError> {
        Ok(())
    }
}
