//! The machine's questions to the driver.

use super::Notice;
use super::drive::{Driver, DriverParts};
use super::host::{CheckpointMoment, Clock, Host, LinkPort, LiveWorld, Moment, Observer};
use crate::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, DiskRequest, EndState, Input, Memory, Position,
    Region, StopAction, VcpuDigest, Waited,
};
use crate::checkpoint::{CheckpointImage, Image};
use crate::error::BoundaryError;
use crate::limits::UNSENT_LOG_BYTES_MAX;
use crate::mutant::DriverMutant;
use crate::replica::{
    CopyRequest, DiskCopier as _, LocalDisks as _, NextRegion, Replica, RoleName, Step, StopAdvice,
    WaitFor,
};
use core::fmt::Display;
use logchan::entry::REGISTERS;
use logchan::limits::PAGE_BYTES;
use logchan::time::Duration;

/// Longest time for which memory is copied in one go; the guest is paused meanwhile.
const COPY_MAX: Duration = Duration::from_micros(300);

impl<H: Host> DeviceBoundary for Driver<H> {
    type Error = BoundaryError<H::Error>;

    fn clock_ns(&mut self) -> Result<u64, Self::Error> {
        self.ask_until_ready(|parts, now| parts.replica.clock_ns(now, &mut parts.world))
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Self::Error> {
        self.ask_until_ready(|parts, now| parts.replica.wall_clock_ns(now, &mut parts.world))
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.ask_until_ready(|parts, now| parts.replica.entropy(now, &mut parts.world, bytes))
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), Self::Error> {
        self.made_output = true;
        self.ask_until_ready(|parts, now| {
            let step = parts.replica.output(now, frame);
            if let Step::Ready(()) = step {
                parts.observer.frame(&mut parts.world, Moment::Made, || now);
            }
            Ok(step)
        })
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), Self::Error> {
        let disk = request.disk;
        if usize::from(disk) >= self.parts.replica.disks() {
            return Err(BoundaryError::NoDisk { disk });
        }
        self.asked_shared_disk |= self.parts.replica.shares(disk);
        self.ask_until_ready(|parts, now| {
            let step = parts.replica.disk_request(&mut parts.world, request);
            parts.replica.begin_shared(now, &mut parts.world);
            Ok(step)
        })
    }

    fn holds_disk_requests(&mut self) -> bool {
        self.parts.replica.holds_disk_requests()
    }

    fn interrupt_served(&mut self) {
        self.frame_passes(Moment::Served);
    }

    fn console_output(&mut self, byte: u8) {
        self.console_byte(byte);
    }
}

impl<H: Host> Driver<H> {
    /// Copies memory for a sync, for a short time and as far as there is room in the window.
    fn copy_memory(
        &mut self,
        memory: &mut dyn Memory<Error = BoundaryError<H::Error>>,
    ) -> Result<(), BoundaryError<H::Error>> {
        if self.parts.replica.poll_copy().is_none() {
            return Ok(());
        }
        let until = self.now() + COPY_MAX;
        let mut page = [0; PAGE_BYTES];
        while let Some(request) = self.parts.replica.poll_copy() {
            match request {
                CopyRequest::Begin => {
                    let _before = memory.take_written()?;
                    let now = self.now();
                    self.parts.replica.copy_begun(now);
                }
                CopyRequest::Page(number) => {
                    memory.read_page(number, &mut page);
                    let now = self.now();
                    self.parts.replica.copied(now, &page);
                }
                CopyRequest::Written => {
                    let pages = memory.take_written()?;
                    let now = self.now();
                    self.parts.replica.written(now, pages);
                }
            }
            if self.now() >= until {
                break;
            }
        }
        Ok(())
    }
}

/// Returns whether requests to disks were held, and are not any more: they go on at a position.
fn is_released(capacity: &DeviceCapacity, replica: &Replica) -> bool {
    capacity.disk_requests_held && !replica.holds_disk_requests()
}

impl<H: Host> Boundary for Driver<H> {
    fn poll_memory(
        &mut self,
        memory: &mut dyn Memory<Error = Self::Error>,
    ) -> Result<(), Self::Error> {
        let share = self.parts.replica.guest_share();
        if share.is_whole() {
            self.throttle.release();
            if self.parts.replica.poll_copy().is_none() {
                return Ok(());
            }
        }
        let now = self.now();
        let resume_at = match self.has(DriverMutant::NeverPause) {
            true => now,
            false => self.throttle.pause_until(now, share),
        };
        loop {
            self.copy_memory(memory)?;
            self.drive()?;
            // The pause also ends when the copy does, by its last page or by the loss of the backup.
            let is_slowed = !self.parts.replica.guest_share().is_whole();
            let now = self.now();
            if is_slowed && now < resume_at {
                let DriverParts { replica, wire, .. } = &self.parts;
                if replica.poll_copy().is_none() && !wire.has_bulk_to_give(replica) {
                    self.wait_on_wire_for(resume_at.since(now))?;
                }
                continue;
            }
            if is_slowed {
                self.throttle.enter(now);
            }
            return Ok(());
        }
    }

    fn next_region(&mut self) -> Result<Region, Self::Error> {
        let unsent = self.appended().saturating_sub(self.sent());
        // The guest's answer to a frame needs the frame's log entry. Sent now, it can be acknowledged while
        // the guest computes the answer.
        let reports = self.parts.replica.take_report_due();
        if unsent > UNSENT_LOG_BYTES_MAX || self.frame_entered && unsent > 0 || reports {
            self.transmit()?;
        }
        self.frame_entered = false;
        if self.parts.wire.port().has_frame() || self.parts.world.has_order() {
            self.drive()?;
        }
        loop {
            let now = self.now();
            match self.parts.replica.next_region(now) {
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
                    self.paused_since = Some(self.now());
                    return Ok(Region::Capture);
                }
                Step::Ready(NextRegion::End) => return Ok(Region::End),
                Step::Invalidated => return Err(BoundaryError::Invalidated),
                Step::Pending => {}
            }
            if self.parts.replica.poll_copy().is_some() {
                return Ok(Region::Pending);
            }
            self.parts.world.idle()?;
            self.drive()?;
            let now = self.now();
            if let Step::Pending = self.parts.replica.next_region(now) {
                self.wait_on_wire()?;
                self.drive()?;
            }
        }
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Result<(), Self::Error> {
        self.parts.world.reached();
        self.ask_until_ready(|parts, now| Ok(parts.replica.reached(now, position, vcpu, exit)))
    }

    fn exit_handled(&mut self) -> Result<(), Self::Error> {
        let asked_shared_disk = core::mem::take(&mut self.asked_shared_disk);
        if core::mem::take(&mut self.made_output) {
            if self.has(DriverMutant::SendLogAfterOutput) {
                return Ok(self.release()?);
            }
            self.begin_round();
            if self.parts.replica.is_releasable_by(self.sent()) {
                self.log_sent();
            } else {
                self.transmit()?;
            }
            if self.parts.wire.port().has_frame() {
                self.receive()?;
            }
            self.release()?;
            self.spin_for_ack()?;
        } else if asked_shared_disk && self.parts.replica.has_waiting_change() {
            self.begin_round();
            self.transmit()?;
        }
        Ok(())
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, Self::Error> {
        // Both questions use one clock reading: where RDTSC faults on this thread, each is a system call.
        let asked = self.ask_until_ready(|DriverParts { replica, world, .. }, now| {
            Ok(replica.input_ready(now, world).map(|()| now))
        })?;
        let DriverParts { replica, world, .. } = &mut self.parts;
        match replica.next_input(asked, world, capacity)? {
            Step::Ready(input) => {
                self.frame_entered |= matches!(input, Some(Input::Frame(_)));
                Ok(input)
            }
            Step::Invalidated => Err(BoundaryError::Invalidated),
            Step::Pending => unreachable!("input_ready returned Ready"),
        }
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, Self::Error> {
        if self.throttle.is_running() {
            let now = self.now();
            self.throttle.stop(now);
        }
        self.parts.world.idle()?;
        self.drive()?;
        if self.is_stopping {
            return Ok(Waited::End);
        }
        let waits = self.ask_until_ready(|parts, now| Ok(parts.replica.halted_guest(now)));
        match waits {
            Ok(WaitFor::Nothing) => return Ok(Waited::Poll),
            Ok(WaitFor::Input) => {}
            // The guest leaves its halt without an interrupt, here and on the backup: the backup starts
            // from the state after the halt.
            Ok(WaitFor::Capture) => return Ok(Waited::End),
            Err(BoundaryError::Invalidated) if self.is_stopping => return Ok(Waited::End),
            Err(error) => return Err(error),
        }
        let DriverParts { replica, world, .. } = &mut self.parts;
        if replica.poll_copy().is_some()
            || capacity.frame && replica.has_passed_frame()
            || capacity.disk_requests > 0 && world.has_done()
            || is_released(capacity, replica)
        {
            return Ok(Waited::Poll);
        }
        let wait_max = self.wait_max();
        let DriverParts { replica, wire, world, clock, .. } = &mut self.parts;
        let now = clock.now();
        let due = wire.due(replica, now);
        let mut timeout = world.wait_max(capacity).min(wait_max);
        if let Some(due) = due {
            timeout = timeout.min(due.since(now));
        }
        if capacity.frame {
            H::wait_any(world, wire.port_mut(), timeout)?;
        } else {
            // The NIC's receive queue has no buffer: frames stay in the port.
            wire.port_mut().wait(Some(timeout)).map_err(H::Error::from)?;
        }
        if wire.port().has_frame() || due.is_some_and(|due| due <= clock.now()) {
            self.drive()?;
        }
        Ok(Waited::Poll)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), Self::Error> {
        self.ask_until_ready(|parts, now| Ok(parts.replica.interrupt(now, vector)))?;
        self.frame_passes(Moment::Injected);
        Ok(())
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, Self::Error> {
        self.drive()?;
        // This must be called whatever the engine's advice is: it re-arms the timer if the timer kicked.
        let as_needed = self.parts.world.interrupted(capacity, window)?;
        let action =
            match self.ask_until_ready(|parts, now| Ok(parts.replica.mid_region_stop(now)))? {
                StopAdvice::Resume => StopAction::Resume,
                StopAdvice::Checkpoint => StopAction::Checkpoint,
                // The live side does not know of frames that were passed on.
                StopAdvice::AsNeeded
                    if capacity.frame
                        && !capacity.interrupts_blocked
                        && self.parts.replica.has_passed_frame() =>
                {
                    StopAction::Checkpoint
                }
                StopAdvice::AsNeeded if is_released(capacity, &self.parts.replica) => {
                    StopAction::Checkpoint
                }
                StopAdvice::AsNeeded => as_needed,
            };
        if action == StopAction::Checkpoint {
            self.paused_since = Some(self.now());
        }
        Ok(action)
    }

    fn window_at_cpl0(&mut self) -> Result<StopAction, Self::Error> {
        let now = self.now();
        match self.parts.replica.mid_region_stop(now) {
            Step::Ready(StopAdvice::Checkpoint | StopAdvice::AsNeeded) => {
                self.paused_since = Some(now);
                Ok(StopAction::Checkpoint)
            }
            Step::Ready(StopAdvice::Resume) | Step::Pending => Ok(StopAction::Resume),
            Step::Invalidated => Err(BoundaryError::Invalidated),
        }
    }

    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Result<(), Self::Error> {
        self.ask_until_ready(|parts, now| Ok(parts.replica.fatal(now, registers, exit)))
    }

    fn keeps_checkpoints(&self) -> bool {
        self.parts.replica.keeps_checkpoints()
    }

    fn checkpoint(&mut self, image: &dyn CheckpointImage) -> Result<(), Self::Error> {
        let since = self.paused_since.take();
        let captured_at = self.now();
        let was_copying = self.parts.replica.role() == RoleName::Copying;
        let pages_before = self.parts.replica.stats().checkpoint_pages;
        self.ask_until_ready(|parts, now| parts.replica.checkpoint(now, &mut parts.world, image))?;
        let DriverParts { replica, world, .. } = &mut self.parts;
        if was_copying && matches!(replica.role(), RoleName::Closing | RoleName::Protected) {
            world.copy_closed();
        }
        // As after stopping the vCPU: a kick that arrived meanwhile may be lost.
        self.parts.world.idle()?;
        let DriverParts { replica, observer, clock, .. } = &mut self.parts;
        if let Some(since) = since
            && matches!(replica.role(), RoleName::Closing | RoleName::Protected)
        {
            let now = clock.now();
            let pause = now.since(since);
            let pages = replica.stats().checkpoint_pages - pages_before;
            if was_copying {
                observer.checkpoint(now, CheckpointMoment::SyncClosed { pause });
                observer.notice(replica, Notice::SyncClosed { pause, pages });
            } else {
                let capture = captured_at.since(since);
                observer.checkpoint(now, CheckpointMoment::Sent { capture, pause, pages });
            }
        }
        Ok(())
    }

    fn take_checkpoint(&mut self) -> Result<Image, Self::Error> {
        let image = self.parts.replica.take_checkpoint();
        if !image.full {
            let now = self.now();
            self.parts.observer.checkpoint(now, CheckpointMoment::Fetched);
        }
        Ok(image)
    }

    fn applied(&mut self) -> Result<(), Self::Error> {
        let now = self.now();
        self.parts.observer.checkpoint(now, CheckpointMoment::Applied);
        Ok(())
    }

    /// Drives the wire during a long operation: the other host waits for acknowledgements, and takes this
    /// host for dead after its silence timeout.
    fn keepalive(&mut self) -> Result<(), Self::Error> {
        if self.has(DriverMutant::ForgetKeepalive) {
            return Ok(());
        }
        Ok(self.drive()?)
    }

    fn end(&mut self, _end: &EndState) -> Result<(), Self::Error> {
        Ok(())
    }
}
