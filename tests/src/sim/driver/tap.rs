//! [`SimTap`]: the live side of a machine: its tap, its clock, its console, and the deadline timer.

use std::rc::Rc;

use logchan::disk_copy::DiskCopy;
use logchan::time::{Duration, Time};
use replication::boundary::{
    DeviceCapacity, DiskCompletion, DiskRequest, DiskStatus, Input, StopAction,
};
use replication::driver::{LiveWorld, Order};
use replication::replica::{
    CopyEnd, CopyState, DiskCopier, LiveInputs, LocalDisks, UnexpectedMessage,
};

use super::faults::CrashPoint;
use super::host::TapFault;
use super::sim_host::TapFailed;
use super::state::Event;
use super::thread::Thread;
use crate::sim::rng::Rng;
use crate::sim::system::check::is_primary;
use crate::sim::system::packet;
use crate::sim::system::sim_disk::{DiskOptions, SimDisk};
use crate::sim::system::tap_world::TapWorld;
use crate::sim::{Checked, MS, require};
use replication::DriverMutant;

/// Longest wait of a halted guest.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// See the [module](self).
pub(super) struct SimTap<'t> {
    thread: Thread<'t>,
    /// Clock, entropy, and the frames to receive.
    inputs: TapWorld,
    /// Frames that were queued and not flushed.
    unflushed: Vec<Rc<[u8]>>,
    /// When the deadline was armed, and the number of positions reached before.
    deadline: Option<(Time, u64)>,
    positions: u64,
    /// The machine was booted here, or has gone live at least once.
    was_live: bool,
}

impl<'t> SimTap<'t> {
    /// Creates the live side of a machine that is not live.
    pub(super) fn new(thread: Thread<'t>) -> Self {
        let now = thread.now();
        let (console_input, rng) = thread.with(|state| {
            let own = &mut state.hosts[thread.host];
            (own.options.console_input, own.rng.fork())
        });
        let disk = SimDisk::new(DiskOptions::none(), false, Rng::new(0));
        let inputs = TapWorld::new(now, console_input, (disk, rng));
        Self {
            thread,
            inputs,
            unflushed: Vec::new(),
            deadline: None,
            positions: 0,
            was_live: false,
        }
    }

    /// Starts guest time, because the guest boots.
    pub(super) fn boot(&mut self) {
        self.inputs.boot();
        self.was_live = true;
    }

    /// Whether a frame has arrived.
    pub(super) fn has_frame(&mut self) -> bool {
        self.update();
        !self.inputs.frames.is_empty()
    }

    /// Fails if the tap was deleted.
    pub(super) fn check_tap(&self) -> Result<(), TapFailed> {
        match self.fault() {
            Some(TapFault::Deleted) => self.fail(),
            Some(TapFault::Down) | None => Ok(()),
        }
    }

    fn fault(&self) -> Option<TapFault> {
        self.thread.with(|state| state.hosts[self.thread.host].tap_fault)
    }

    /// Reports the tap's failure to the driver. From here on, the process must end soon.
    fn fail(&self) -> Result<(), TapFailed> {
        self.thread.with(|state| state.see_tap_failure(self.thread.host));
        Err(TapFailed)
    }

    /// Takes the time, and what has arrived.
    fn update(&mut self) {
        self.inputs.now = self.thread.now();
        let (now, inputs) = (self.inputs.now, &mut self.inputs);
        self.thread.with(|state| {
            let arrived = state.hosts[self.thread.host].tap_queue.drain(..);
            inputs.frames.extend(arrived.map(|frame| (now, frame)));
        });
    }

    /// Checks that a guest which computes has its time again after a takeover: without it, no timer interrupts it.
    fn check_awake(&self) {
        let role = self.thread.with(|state| {
            state.hosts[self.thread.host].process.as_ref().map(|process| process.role)
        });
        let is_live = role.is_some_and(is_primary);
        let check = || -> Checked {
            require!(
                self.was_live || !is_live,
                "host {} computes as {role:?} without the guest's time",
                self.thread.host
            );
            Ok(())
        };
        self.thread.check(check());
    }

    fn spend_call(&self) {
        let takes_ns = self.thread.with(|state| state.hosts[self.thread.host].options.call_ns);
        self.thread.spend(takes_ns);
    }

    fn arm(&mut self) {
        let after_ns = self.thread.with(|state| state.hosts[self.thread.host].options.deadline_ns);
        let kick_at = self.thread.in_true_time(Duration::from_nanos(after_ns));
        self.deadline = Some((self.thread.now(), self.positions));
        self.thread.with(|state| state.hosts[self.thread.host].kick_at = Some(kick_at));
    }

    /// Returns whether the region has lasted for the deadline, and arms the timer again if it has fired.
    fn deadline_passed(&mut self) -> bool {
        let Some((armed_at, position)) = self.deadline else { return false };
        let after_ns = self.thread.with(|state| state.hosts[self.thread.host].options.deadline_ns);
        if self.thread.now().since(armed_at).as_nanos() < after_ns {
            return false;
        }
        self.arm();
        position == self.positions
    }
}

impl LiveInputs for SimTap<'_> {
    type Error = TapFailed;

    fn clock_ns(&mut self) -> Result<u64, TapFailed> {
        self.update();
        let Ok(now_ns) = self.inputs.clock_ns();
        Ok(now_ns)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, TapFailed> {
        self.update();
        let Ok(unix_ns) = self.inputs.wall_clock_ns();
        Ok(unix_ns)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, TapFailed> {
        let Ok(filled) = self.inputs.entropy(bytes);
        Ok(filled)
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, TapFailed> {
        self.check_tap()?;
        self.update();
        let Ok(input) = self.inputs.next_input(capacity);
        Ok(input)
    }

    fn go_live(&mut self, clock_ns: u64) {
        self.update();
        self.inputs.frames.clear();
        self.inputs.go_live(clock_ns);
        self.was_live = true;
        self.thread.with(|state| state.goes_live(self.thread.host));
    }
}

/// The hosts of this simulator have no disk.
impl LocalDisks for SimTap<'_> {
    fn begin_request(&mut self, request: &DiskRequest<'_>) {
        self.inputs.begin_request(request);
    }

    fn done(&mut self, disk: u8, number: u64) -> Option<DiskStatus> {
        self.inputs.done(disk, number)
    }

    fn take_done(&mut self, disk: u8, number: u64) -> Option<DiskCompletion<'_>> {
        self.inputs.take_done(disk, number)
    }

    fn has_done(&mut self) -> bool {
        self.inputs.has_done()
    }

    fn fail_disk(&mut self, disk: u8) {
        self.inputs.fail_disk(disk);
    }

    fn forget_requests(&mut self) {
        self.inputs.forget_requests();
    }
}

impl DiskCopier for SimTap<'_> {
    fn begin_copy(&mut self, end: CopyEnd) {
        self.inputs.begin_copy(end);
    }

    fn end_copy(&mut self) {
        self.inputs.end_copy();
    }

    fn copy_out(&mut self) -> Option<DiskCopy<'_>> {
        self.inputs.copy_out()
    }

    fn copy_takes(&mut self) -> bool {
        self.inputs.copy_takes()
    }

    fn copy_in(&mut self, message: &DiskCopy<'_>) -> Result<(), UnexpectedMessage> {
        self.inputs.copy_in(message)
    }

    fn copy_state(&mut self) -> CopyState {
        self.inputs.copy_state()
    }
}

impl LiveWorld for SimTap<'_> {
    fn has_order(&self) -> bool {
        self.thread.with(|state| {
            let process = state.hosts[self.thread.host].process.as_ref();
            process.is_some_and(|process| process.order.is_some())
        })
    }

    fn lan_is_up(&self) -> bool {
        true
    }

    fn take_order(&mut self) -> Option<Order> {
        self.thread.with(|state| {
            let process = state.hosts[self.thread.host].process.as_mut();
            process.and_then(|process| process.order.take())
        })
    }

    fn order_failed(&mut self) {}

    fn entering(&mut self) -> Result<(), TapFailed> {
        if self.deadline.is_none() {
            self.arm();
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), TapFailed> {
        self.deadline = None;
        self.thread.with(|state| state.hosts[self.thread.host].kick_at = None);
        Ok(())
    }

    fn reached(&mut self) {
        self.positions += 1;
    }

    fn next_frame(&mut self) -> Result<Option<&[u8]>, TapFailed> {
        self.check_tap()?;
        self.update();
        Ok(self.inputs.next_frame())
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, TapFailed> {
        self.check_awake();
        if self.has_order() {
            return Ok(StopAction::Checkpoint);
        }
        let passed = self.deadline_passed();
        self.update();
        let now = self.inputs.now;
        let timer = capacity.timer_ns.and_then(|due_ns| self.inputs.when(due_ns));
        let has_frame = capacity.frame && !self.inputs.frames.is_empty();
        let is_timer_due = timer.is_some_and(|at| at <= now);
        Ok(match passed && (has_frame || !window && is_timer_due) {
            true => StopAction::Checkpoint,
            false => StopAction::Resume,
        })
    }

    fn wait_max(&mut self, capacity: &DeviceCapacity) -> Duration {
        self.update();
        let timer = capacity.timer_ns.and_then(|due_ns| self.inputs.when(due_ns));
        timer.map_or(WAIT_MAX, |at| at.since(self.inputs.now)).min(WAIT_MAX)
    }

    fn console_output(&mut self, _byte: u8) {
        let thread = &self.thread;
        thread.check(thread.with(|state| state.check_speaker(thread.host)));
        let waits = thread.with(|state| state.planted == Some(DriverMutant::BlockingEvents));
        thread.write_to_terminal(waits);
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), TapFailed> {
        if self.fault().is_some() {
            return self.fail();
        }
        self.unflushed.push(frame.into());
        self.spend_call();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TapFailed> {
        if self.unflushed.is_empty() {
            return Ok(());
        }
        if self.fault().is_some() {
            self.unflushed.clear();
            return self.fail();
        }
        let takes_ns = self.thread.with(|state| {
            let own = &mut state.hosts[self.thread.host];
            own.rng.below(own.options.tap_ns_max + 1)
        });
        self.thread.reach(CrashPoint::Release);
        self.thread.sleep_undisturbed(takes_ns);
        for frame in self.unflushed.drain(..) {
            let host = self.thread.host;
            self.thread.check(self.thread.with(|state| state.leave_host(host, &frame)));
        }
        self.thread.reach(CrashPoint::Released);
        Ok(())
    }
}

impl super::state::State {
    /// The process of `host` is told that its tap has failed.
    fn see_tap_failure(&mut self, host: usize) {
        let now = self.queue.now();
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.tap_failed_at.is_none() {
            process.tap_failed_at = Some(now);
            let id = process.id;
            let by = now + self.tap_deadline_ns();
            self.queue.push(by, Event::TapDeadline { host, process: id });
        }
    }

    /// Longest time for a process to end after its tap has failed.
    pub(super) fn tap_deadline_ns(&self) -> u64 {
        3 * self.options.pair.timing.silence.as_nanos() + 100 * MS
    }

    /// A frame from a client reaches the tap of `host`.
    pub(super) fn tap_receives(&mut self, host: usize, frame: Rc<[u8]>) {
        let is_for_vm = packet::stations(&frame).is_some_and(|(to, _)| to == packet::VM_MAC);
        let own = &mut self.hosts[host];
        if is_for_vm
            && own.process.is_some()
            && own.tap_fault.is_none()
            && own.tap_queue.len() < own.options.tap_frames_max
        {
            own.tap_queue.push_back(frame);
            self.wake(host, |by| by.tap);
        }
    }
}
