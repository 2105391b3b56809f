//! The live boundary: host clocks, the VM's network port, the console, the disks, entropy.

use super::console::Console;
use super::deadline::Deadline;
use super::error::{HostError, SourceError};
use super::guest_clock::GuestClock;
use super::orders::Orders;
use super::rate_limit::{OverLimit, RateLimits, Rates};
use super::timer_pace::TimerPace;
use super::turn_clock::TurnClock;
use crate::disk::{self, Changes, CopyFault, CopyProgress, Disks};
use crate::health::WatchedTap;
use crate::kvm::clock::{boottime_ns, monotonic_ns, realtime_ns};
use crate::kvm::kick::{Held, KICK_SIGNAL};
use crate::limits::STALE_FRAMES_MAX;
use crate::telemetry::Stages;
use crossbeam::channel::Receiver;
use logchan::disk_copy::{DiskCopy, Generation};
use logchan::entry::REGISTERS;
use logchan::ids::Claimant;
use logchan::time::Duration as Span;
use netpath::port::{FRAME_MAX, FramePort};
use netpath::wait::{WaitPolicy, spin};
use netpath::wait_any::wait_any;
use replication::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, DiskCompletion, DiskRequest, DiskStatus, EndState,
    Input, Memory, Position, Region, StopAction, VcpuDigest, Waited,
};
use replication::checkpoint::{CheckpointImage, Image};
use replication::driver::{LiveWorld, Order};
use replication::replica::{
    self, CopyEnd, CopyState, DisksCopied, FailedRequests, SharedUse, UnexpectedMessage,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait of a halted guest between two checks for orders. A kick that comes between a check
/// and the wait is noticed this much later, but never lost.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Most frames beyond their limit that are dropped at once.
const LIMITED_FRAMES_MAX: usize = 256;

/// The parts of a live boundary.
pub struct WorldConfig<P> {
    /// The network port behind the VM's NIC.
    pub port: P,
    /// Receives the serial console's output.
    pub console: Console,
    /// Bytes typed at the console, if there is console input. Kick the vCPU after sending.
    pub console_input: Option<Receiver<Vec<u8>>>,
    /// Orders of the operator. A machine without a pair stops at any.
    pub orders: Arc<Orders>,
    /// Watches the tap of a machine of a pair.
    pub lan: Option<WatchedTap>,
    /// How long a guest that makes no exit may delay an input.
    pub deadline: Duration,
    /// The disks.
    pub disks: Disks,
    /// The guest's clock.
    pub clock: GuestClock,
    /// Latency measurements of frames.
    pub stages: Stages,
    /// How fast the guest may take entropy, receive frames and write to its console.
    pub rates: Rates,
}

/// The live boundary. Create it on the thread that runs the vCPU: its timer kicks the calling thread.
pub struct World<P> {
    port: P,
    console: Console,
    console_input: Option<Receiver<Vec<u8>>>,
    /// Bytes that were typed and that the UART has not accepted yet.
    console_pending: Vec<u8>,
    orders: Arc<Orders>,
    lan: Option<WatchedTap>,
    deadline: Deadline,
    disks: Disks,
    /// Why the last copy of the disks failed.
    copy_fault: Option<CopyFault>,
    clock: GuestClock,
    turn: TurnClock,
    pace: TimerPace,
    /// Positions reached.
    positions: u64,
    /// The port holds frames that wait for `flush`.
    unflushed: bool,
    stages: Stages,
    limits: RateLimits,
    /// The frame in the port has passed its limit.
    frame_allowed: bool,
    frame: Box<[u8; FRAME_MAX]>,
}

impl<P: FramePort> World<P> {
    /// Creates the live boundary.
    ///
    /// # Errors
    ///
    /// The timer of the deadline cannot be created.
    pub fn new(config: WorldConfig<P>) -> Result<World<P>, SourceError> {
        config.disks.kick().attend();
        Ok(World {
            port: config.port,
            console: config.console,
            console_input: config.console_input,
            console_pending: Vec::new(),
            orders: config.orders,
            lan: config.lan,
            deadline: Deadline::new(config.deadline).map_err(HostError::from)?,
            disks: config.disks,
            copy_fault: None,
            clock: config.clock,
            turn: TurnClock::default(),
            pace: TimerPace::default(),
            positions: 0,
            unflushed: false,
            stages: config.stages,
            limits: RateLimits::new(config.rates, monotonic_ns()),
            frame_allowed: false,
            frame: Box::new([0; FRAME_MAX]),
        })
    }

    /// Returns the VM's network port, for its statistics.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// Returns the disks, for their statistics.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Returns why the last copy of the disks failed; `None` once both hosts have the same contents.
    pub fn copy_fault(&self) -> Option<CopyFault> {
        self.copy_fault
    }

    /// Ends the I/O of the disks, and returns what the guest has written to each ([`Disks::freeze`]).
    pub fn freeze_disks(&mut self) -> Vec<Changes> {
        self.disks.freeze()
    }

    /// Returns the VM's network port.
    pub(crate) fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// Returns the latency measurements of frames.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Returns the latency measurements of frames, to record stages that happen elsewhere.
    pub(crate) fn stages_mut(&mut self) -> &mut Stages {
        &mut self.stages
    }

    /// Returns what was beyond the limits of rates.
    pub fn over_limit(&self) -> OverLimit {
        self.limits.over()
    }

    /// Returns whether the port has a frame for the guest, and drops those that are beyond the limit: some of them, so that
    /// a flood does not keep the guest from running.
    fn poll_frame(&mut self) -> Result<bool, HostError> {
        for _ in 0..=LIMITED_FRAMES_MAX {
            if !self.port.has_frame() {
                return Ok(false);
            }
            self.frame_allowed = self.frame_allowed || self.limits.allows_frame(|| self.turn.now());
            if self.frame_allowed {
                return Ok(true);
            }
            self.port.receive(&mut self.frame[..])?;
        }
        Ok(false)
    }

    fn draw_entropy(&mut self, bytes: &mut [u8]) -> Result<usize, HostError> {
        let allowed = self.limits.entropy(bytes.len(), monotonic_ns);
        crate::kvm::entropy::fill(&mut bytes[..allowed]).map_err(HostError::Entropy)?;
        Ok(allowed)
    }

    /// Starts the deadline: a guest that makes no exit from here on is kicked. Call it before a region is
    /// entered.
    fn entering(&mut self) -> Result<(), HostError> {
        self.deadline.entering(self.positions, || self.turn.now())?;
        self.turn.forget();
        Ok(())
    }

    /// Stops the deadline until the next region and shows an unfinished console line. Call it when the
    /// guest waits.
    fn idle(&mut self) -> Result<(), HostError> {
        self.turn.forget();
        self.deadline.idle()?;
        self.console.show_unfinished();
        Ok(())
    }

    /// Returns how long a wait of the halted guest may take, so that the guest's next timer and an order are noticed in
    /// time.
    fn longest_wait(&mut self, capacity: &DeviceCapacity) -> Duration {
        self.pace.idle();
        let until_timer = capacity
            .timer_ns
            .map_or(WAIT_MAX, |due| self.clock.host_wait_until(due, self.turn.now()));
        // What follows is the wait.
        self.turn.forget();
        until_timer.min(WAIT_MAX)
    }

    /// Waits for a completion of a disk, as well as for a frame. No kick of a disk is lost: after the last check it waits
    /// for the system call that lets it in.
    fn wait_for_disk(
        &mut self,
        capacity: &DeviceCapacity,
        timeout: Duration,
    ) -> Result<(), HostError> {
        let policy = WaitPolicy { wake_signal: Some(KICK_SIGNAL as i32), ..WaitPolicy::BLOCK };
        let Self { port, disks, .. } = self;
        let mut now = Instant::now();
        let is_frame = |port: &P| capacity.frame && port.has_frame();
        let deadline = now.checked_add(timeout);
        if spin(&WaitPolicy::default(), &mut now, deadline, || {
            disks.has_completion() || is_frame(port)
        }) {
            return Ok(());
        }
        let _held = Held::on_this_thread()?;
        let _waiting = disks.kick().waiting();
        if disks.has_completion() || self.orders.any() {
            return Ok(());
        }
        if capacity.frame {
            wait_any(&mut [port as &mut dyn FramePort], &policy, Some(timeout))?;
        } else {
            wait_any(&mut [], &policy, Some(timeout))?;
        }
        Ok(())
    }

    fn now(&mut self) -> u64 {
        self.clock.read(self.turn.now())
    }

    fn stopping(&self) -> bool {
        self.orders.any()
    }

    fn poll_console(&mut self) -> bool {
        if self.console_pending.is_empty()
            && let Some(input) = &self.console_input
            && let Ok(bytes) = input.try_recv()
        {
            self.console_pending = bytes;
        }
        !self.console_pending.is_empty()
    }

    /// Whether there is a frame, typed text or a completion of a disk that the devices can accept.
    fn data_pending(&mut self, capacity: &DeviceCapacity) -> Result<bool, HostError> {
        Ok(self.disk_pending(capacity)
            || capacity.frame && self.poll_frame()?
            || capacity.console_bytes > 0 && self.poll_console())
    }

    fn disk_pending(&mut self, capacity: &DeviceCapacity) -> bool {
        capacity.disk_requests > 0 && self.disks.has_completion()
    }

    fn timer_pending(&mut self, capacity: &DeviceCapacity) -> bool {
        capacity.timer_ns.is_some_and(|due| self.now() >= due) && self.pace.allows(self.turn.now())
    }

    fn flush(&mut self) -> Result<(), HostError> {
        if std::mem::take(&mut self.unflushed) {
            self.port.flush()?;
            self.stages.left(true, boottime_ns);
        }
        Ok(())
    }

    /// Returns the next input that the devices have capacity for, if there is one.
    fn take_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, HostError> {
        self.pace.observe(capacity.timers, || self.turn.now());
        if let Some(due) = capacity.timer_ns {
            let host_ns = self.turn.now();
            let now_ns = self.clock.read(host_ns);
            if now_ns >= due && self.pace.allows(host_ns) {
                self.pace.fires(host_ns);
                return Ok(Some(Input::Clock { now_ns }));
            }
        }
        if self.disk_pending(capacity) {
            return Ok(self.disks.next_completion().map(Input::Disk));
        }
        if capacity.frame
            && self.poll_frame()?
            && let Some(length) = self.port.receive(&mut self.frame[..])?
        {
            self.frame_allowed = false;
            self.stages.taken(boottime_ns);
            return Ok(Some(Input::Frame(&self.frame[..length])));
        }
        if capacity.console_bytes > 0 && self.poll_console() {
            let count = self.console_pending.len().min(capacity.console_bytes);
            let taken = self.console_pending.drain(..count).collect::<Vec<_>>();
            self.frame[..count].copy_from_slice(&taken);
            return Ok(Some(Input::Console(&self.frame[..count])));
        }
        Ok(None)
    }

    /// Decides whether a guest that was kicked in mid-region must stop there for an input.
    fn stop_action(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, HostError> {
        if self.stopping() {
            return Ok(StopAction::Checkpoint);
        }
        // The guest ran.
        self.turn.forget();
        let passed = self.deadline.passed(self.positions)?;
        // With a window armed, an interrupt already waits until the guest allows it, and a checkpoint
        // would not deliver another one. But a checkpoint would deliver a frame to a guest that polls.
        let pending = passed
            && !capacity.interrupts_blocked
            && (capacity.interrupt
                || self.data_pending(capacity)?
                || !window && self.timer_pending(capacity));
        if !pending {
            return Ok(StopAction::Resume);
        }
        self.deadline.stopping();
        Ok(StopAction::Checkpoint)
    }
}

impl<P: FramePort> DeviceBoundary for World<P> {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        Ok(self.now())
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        Ok(realtime_ns())
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        Ok(self.draw_entropy(bytes)?)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.stages.made(boottime_ns);
        self.port.send(frame).map_err(HostError::from)?;
        self.unflushed = true;
        Ok(())
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        let disk = request.disk;
        if usize::from(disk) >= self.disks.info().len() {
            return Err(SourceError::NoDisk { disk });
        }
        self.disks.submit(request);
        Ok(())
    }

    fn interrupt_served(&mut self) {
        self.stages.served(boottime_ns);
    }

    fn console_output(&mut self, byte: u8) {
        if self.limits.allows_console(monotonic_ns) {
            self.console.put(byte);
        }
    }
}

impl<P: FramePort> Boundary for World<P> {
    /// Does nothing: no other host needs the memory.
    fn poll_memory(
        &mut self,
        _memory: &mut dyn Memory<Error = SourceError>,
    ) -> Result<(), SourceError> {
        Ok(())
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        if self.stopping() {
            return Ok(Region::End);
        }
        self.entering()?;
        Ok(Region::Run)
    }

    fn reached(
        &mut self,
        _position: Position,
        _vcpu: &VcpuDigest,
        _exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.positions += 1;
        self.turn.forget();
        Ok(())
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        Ok(self.flush()?)
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        Ok(self.take_input(capacity)?)
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        if self.stopping() {
            return Ok(Waited::End);
        }
        self.idle()?;
        if self.clock.is_slowed()
            && capacity.disk_requests == 0
            && !self.data_pending(capacity)?
            && self.clock.skip_idle_to(capacity.timer_ns)
        {
            return Ok(Waited::Poll);
        }
        let timeout = self.longest_wait(capacity);
        if capacity.disk_requests > 0 {
            self.wait_for_disk(capacity, timeout)?;
        } else if capacity.frame {
            self.port.wait(Some(timeout)).map_err(HostError::from)?;
        } else {
            // The guest gave the NIC no buffer: frames stay in the port, so only time can end this wait.
            crate::kvm::clock::sleep(timeout);
        }
        Ok(Waited::Poll)
    }

    fn interrupt(&mut self, _vector: u8) -> Result<(), SourceError> {
        self.stages.injected(boottime_ns);
        Ok(())
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        Ok(self.stop_action(capacity, window)?)
    }

    fn window_at_cpl0(&mut self) -> Result<StopAction, SourceError> {
        Ok(StopAction::Checkpoint)
    }

    fn fatal(
        &mut self,
        _registers: &[u64; REGISTERS],
        _exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        Ok(())
    }

    fn keeps_checkpoints(&self) -> bool {
        false
    }

    fn checkpoint(&mut self, _image: &dyn CheckpointImage) -> Result<(), SourceError> {
        Ok(())
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        unreachable!("a live boundary announces no checkpoint")
    }

    /// Does nothing: there is no peer.
    fn keepalive(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Does nothing: no checkpoint is applied.
    fn applied(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn end(&mut self, _end: &EndState) -> Result<(), SourceError> {
        Ok(self.flush()?)
    }
}

impl<P: FramePort> replica::LocalDisks for World<P> {
    fn begin_request(&mut self, request: &DiskRequest<'_>) {
        self.disks.submit(request);
    }

    fn done(&mut self, disk: u8, number: u64) -> Option<DiskStatus> {
        self.disks.done(disk, number)
    }

    fn take_done(&mut self, disk: u8, number: u64) -> Option<DiskCompletion<'_>> {
        self.disks.take_done(disk, number)
    }

    fn has_done(&mut self) -> bool {
        self.disks.has_completion()
    }

    fn set_failed(&mut self, failed: FailedRequests) -> bool {
        self.disks.set_failed(failed)
    }

    fn fail_disk(&mut self, disk: u8) {
        self.disks.fail(disk);
    }

    fn set_shared(&mut self, shared: SharedUse) {
        self.disks.set_shared(shared);
    }

    fn forget_requests(&mut self) {
        self.disks.forget();
    }
}

impl<P: FramePort> replica::DiskCopier for World<P> {
    fn begin_copy(&mut self, end: CopyEnd) {
        match end {
            CopyEnd::Send => self.disks.begin_copy(),
            CopyEnd::Receive => self.disks.begin_receive(),
        }
    }

    fn end_copy(&mut self) {
        self.disks.end_copy();
    }

    fn copy_out(&mut self) -> Option<DiskCopy<'_>> {
        self.disks.copy_out()
    }

    fn copy_takes(&mut self) -> bool {
        self.disks.is_drained() && self.disks.copy_takes()
    }

    fn copy_in(&mut self, message: &DiskCopy<'_>) -> Result<(), UnexpectedMessage> {
        let taken = self.disks.copy_in(message);
        taken.map_err(|fault| {
            self.copy_fault = Some(fault);
            UnexpectedMessage
        })
    }

    fn copy_state(&mut self) -> CopyState {
        match self.disks.copy_state() {
            disk::CopyState::None => CopyState::Running { bytes_left: u64::MAX },
            disk::CopyState::Running => {
                let progress = self.disks.copy_progress().unwrap_or_default();
                CopyState::Running { bytes_left: progress.bytes_left() }
            }
            disk::CopyState::Whole => CopyState::Whole,
            disk::CopyState::Failed(fault) => {
                self.copy_fault = Some(fault);
                CopyState::Failed { disk: fault.disk() }
            }
        }
    }

    fn distrust(&mut self) {
        self.disks.distrust();
    }

    fn copy_closed(&mut self) {
        self.disks.copy_closed();
    }

    fn in_sync(
        &mut self,
        end: CopyEnd,
        generation: Generation,
        host: Claimant,
    ) -> Option<DisksCopied> {
        self.copy_fault = None;
        match end {
            CopyEnd::Send => {
                let copied = self.disks.copy_progress().map(CopyProgress::result);
                self.disks.peer_in_sync(generation);
                copied
            }
            CopyEnd::Receive => {
                self.disks.seal(host, generation);
                None
            }
        }
    }
}

impl<P: FramePort> replica::LiveInputs for World<P> {
    type Error = HostError;

    fn clock_ns(&mut self) -> Result<u64, HostError> {
        Ok(self.now())
    }

    fn wall_clock_ns(&mut self) -> Result<u64, HostError> {
        Ok(realtime_ns())
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, HostError> {
        self.draw_entropy(bytes)
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, HostError> {
        self.take_input(capacity)
    }

    fn go_live(&mut self, clock_ns: u64) {
        self.clock = GuestClock::starting_at(clock_ns);
        // Discard the frames that the LAN sent to this host while the VM ran on the other one. The VM may
        // have received them there.
        let mut discarded = 0;
        while discarded < STALE_FRAMES_MAX
            && matches!(self.port.receive(&mut self.frame[..]), Ok(Some(_)))
        {
            discarded += 1;
        }
    }
}

impl<P: FramePort> LiveWorld for World<P> {
    fn has_order(&self) -> bool {
        self.orders.any()
    }

    fn lan_is_up(&self) -> bool {
        self.lan.as_ref().is_none_or(|tap| tap.watch.health().passes_frames())
    }

    fn take_order(&mut self) -> Option<Order> {
        self.orders.take()
    }

    fn order_failed(&mut self) {
        self.orders.failed();
    }

    fn entering(&mut self) -> Result<(), HostError> {
        World::entering(self)
    }

    fn idle(&mut self) -> Result<(), HostError> {
        World::idle(self)
    }

    fn reached(&mut self) {
        self.positions += 1;
        self.turn.forget();
    }

    fn next_frame(&mut self) -> Result<Option<&[u8]>, HostError> {
        if !self.port.has_frame() {
            return Ok(None);
        }
        let length = self.port.receive(&mut self.frame[..])?;
        Ok(length.map(|length| &self.frame[..length]))
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, HostError> {
        self.stop_action(capacity, window)
    }

    fn wait_max(&mut self, capacity: &DeviceCapacity) -> Span {
        Span::from_nanos(self.longest_wait(capacity).as_nanos() as u64)
    }

    fn console_output(&mut self, byte: u8) {
        DeviceBoundary::console_output(self, byte);
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), HostError> {
        Ok(self.port.send(frame)?)
    }

    fn flush(&mut self) -> Result<(), HostError> {
        Ok(self.port.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskAccess, DiskOptions, KeepState, Kick, Writes};
    use crate::kvm::kick;
    use crate::replay::console::ConsoleStyle;
    use logchan::ids::{Term, VmId};
    use netpath::null_port::NullPort;
    use replication::boundary::{DiskOperation, TimerInterrupts};
    use replication::replica::{DiskCopier as _, LocalDisks as _};
    use replication::witness::{Ending, LastClaim};
    use std::path::Path;

    fn world() -> World<NullPort> {
        with_disks(Disks::none())
    }

    fn with_disks(disks: Disks) -> World<NullPort> {
        // The disks kick this thread.
        kick::install().unwrap();
        let config = WorldConfig {
            port: NullPort::new(),
            console: Console::new(Box::new(std::io::sink()), ConsoleStyle::Text),
            console_input: None,
            orders: Arc::default(),
            lan: None,
            deadline: Duration::from_millis(1),
            disks,
            clock: GuestClock::starting_at(0),
            stages: Stages::new(false, None),
            rates: Rates::default(),
        };
        World::new(config).unwrap()
    }

    #[test]
    fn slow_interrupt_of_a_timer_delays_the_next_one_unless_the_guest_waits() {
        let mut world = world();
        let due = |in_service: u8| DeviceCapacity {
            timer_ns: Some(0),
            timers: TimerInterrupts { in_service, masked: 0 },
            ..DeviceCapacity::default()
        };
        let fires = |world: &mut World<NullPort>, in_service| {
            world.take_input(&due(in_service)).unwrap().is_some()
        };
        assert!(fires(&mut world, 0));
        world.entering().unwrap();
        assert!(!fires(&mut world, 1), "the guest serves the interrupt");
        world.entering().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(!fires(&mut world, 0), "the guest has had no time for other work");
        assert!(!world.timer_pending(&due(0)), "nor is it stopped for the timer");
        world.longest_wait(&due(0));
        assert!(world.timer_pending(&due(0)) && world.take_input(&due(0)).unwrap().is_some());
    }

    const IMAGE_BYTES: usize = (3 << 16) + 512;
    const GENERATION: Generation = Generation { term: Term(3), owner: Claimant(1) };

    fn host(image: &Path) -> World<NullPort> {
        let options = [DiskOptions::new(image)];
        with_disks(Disks::open(&options, Writes::Mirrored(VmId(1)), Kick::default()).unwrap())
    }

    /// Passes messages between the two ends of a copy until it is whole, or has failed.
    fn copy([source, target]: [&mut World<NullPort>; 2]) -> CopyState {
        let start = Instant::now();
        loop {
            let (from, to) = (&mut *source, &mut *target);
            while to.copy_takes()
                && let Some(message) = from.copy_out()
            {
                to.copy_in(&message).unwrap();
            }
            while let Some(message) = to.copy_out() {
                from.copy_in(&message).unwrap();
            }
            let states = [target.copy_state(), source.copy_state()];
            for state in states {
                match state {
                    CopyState::Failed { .. } => return state,
                    CopyState::Running { .. } | CopyState::Whole => {}
                }
            }
            if states[1] == CopyState::Whole {
                return CopyState::Whole;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the copy does not end");
            std::thread::yield_now();
        }
    }

    /// Waits until what is known about the disks is stored.
    fn store(world: &World<NullPort>) {
        let start = Instant::now();
        while world.disks.keep_state() != KeepState::Done {
            assert!(start.elapsed() < Duration::from_secs(60), "it is not stored");
            std::thread::yield_now();
        }
    }

    #[test]
    fn disks_are_copied_to_a_host_that_was_the_primary_and_boot_only_where_they_are_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for (number, path) in paths.iter().enumerate() {
            std::fs::write(path, vec![number as u8; IMAGE_BYTES]).unwrap();
        }
        let [mut primary, mut backup] = paths.each_ref().map(|path| host(path));
        // Requests of a machine that is gone: no block may be written before they are done.
        for number in 1..=20 {
            let (operation, data) = (DiskOperation::Write, &[9; 4096][..]);
            let bytes = data.len() as u32;
            backup.begin_request(&DiskRequest {
                disk: 0,
                number,
                operation,
                sector: 0,
                bytes,
                data,
            });
        }
        backup.forget_requests();
        backup.begin_copy(CopyEnd::Receive);
        primary.begin_copy(CopyEnd::Send);
        assert_eq!(copy([&mut primary, &mut backup]), CopyState::Whole);
        primary.copy_closed();
        primary.in_sync(CopyEnd::Send, GENERATION, Claimant(1));
        backup.in_sync(CopyEnd::Receive, GENERATION, Claimant(2));
        store(&primary);
        store(&backup);
        drop((primary, backup));
        let [a, b] = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        assert!(a == vec![0; IMAGE_BYTES] && a == b);
        let again = host(&paths[1]);
        let ending = Ending::None;
        let newest = Some(LastClaim { generation: GENERATION, ending });
        again.disks.may_boot(newest).unwrap();
        // The primary has gone on without it.
        let generation = Generation { term: Term(4), ..GENERATION };
        let later = Some(LastClaim { generation, ending });
        assert!(again.disks.may_boot(later).unwrap_err().to_string().contains("is outdated"));
    }

    #[test]
    fn difference_that_nobody_knows_of_is_copied_to_a_distrusted_disk_only() {
        for is_distrusted in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let paths = ["a", "b"].map(|name| folder.path().join(name));
            for path in &paths {
                std::fs::write(path, vec![1; IMAGE_BYTES]).unwrap();
            }
            let [mut primary, mut backup] = paths.each_ref().map(|path| host(path));
            for sync in 0..2 {
                primary.begin_copy(CopyEnd::Send);
                if sync == 1 && is_distrusted {
                    backup.distrust();
                }
                backup.begin_copy(CopyEnd::Receive);
                assert_eq!(copy([&mut primary, &mut backup]), CopyState::Whole);
                primary.copy_closed();
                primary.in_sync(CopyEnd::Send, GENERATION, Claimant(1));
                backup.in_sync(CopyEnd::Receive, GENERATION, Claimant(2));
                store(&backup);
                if sync == 0 {
                    // What a bad medium does.
                    std::fs::write(&paths[1], vec![2; IMAGE_BYTES]).unwrap();
                }
            }
            drop((primary, backup));
            let [a, b] = paths.map(|path| std::fs::read(path).unwrap());
            assert_eq!(a == b, is_distrusted);
        }
    }

    #[test]
    fn copy_to_a_read_only_disk_that_differs_fails_and_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let mut hosts = ["a", "b"].map(|name| {
            let path = folder.path().join(name);
            let mut contents = vec![1; IMAGE_BYTES];
            contents[3 << 16] = name.as_bytes()[0];
            std::fs::write(&path, contents).unwrap();
            let options = [DiskOptions { access: DiskAccess::ReadOnly, ..DiskOptions::new(path) }];
            with_disks(Disks::open(&options, Writes::Mirrored(VmId(1)), Kick::default()).unwrap())
        });
        let [primary, backup] = &mut hosts;
        primary.begin_copy(CopyEnd::Send);
        backup.begin_copy(CopyEnd::Receive);
        assert_eq!(copy([primary, backup]), CopyState::Failed { disk: 0 });
        let [_, backup] = &hosts;
        let why = backup.copy_fault().unwrap().to_string();
        assert!(why.contains("differs from the primary's at byte 196608"), "{why}");
    }
}
