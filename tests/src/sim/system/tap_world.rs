//! [`TapWorld`]: the source of a live machine's clock readings and inputs: the host's clock, tap and console; and the disk.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use logchan::disk_copy::DiskCopy;
use logchan::limits::FRAME_BYTES_MAX;
use logchan::time::Time;
use replication::boundary::{DeviceCapacity, DiskCompletion, DiskRequest, DiskStatus, Input};
use replication::replica::{
    CopyEnd, CopyState, DiskCopier, LiveInputs, LocalDisks, UnexpectedMessage,
};

use super::sim_disk::SimDisk;

use crate::sim::rng::{Chance, Rng};

/// The live inputs of one process.
#[derive(Debug)]
pub(crate) struct TapWorld {
    /// The last reading of the host's clock.
    pub(crate) now: Time,
    /// Frames that arrived from the LAN, with their arrival times.
    pub(crate) frames: VecDeque<(Time, Rc<[u8]>)>,
    /// A host time and the guest time at that moment; `None` while the machine is not live.
    guest_time: Option<(Time, u64)>,
    /// Difference of the wall clock to the host's clock.
    wall_ns: u64,
    console_input: Chance,
    rng: Rng,
    /// The input that was returned last.
    input: [u8; FRAME_BYTES_MAX],
    /// The host's disk.
    pub(crate) disk: SimDisk,
}

impl TapWorld {
    /// Creates the inputs of a process whose machine is not live.
    pub(crate) fn new(now: Time, console_input: Chance, (disk, mut rng): (SimDisk, Rng)) -> Self {
        let wall_ns = rng.within(1 << 60..=1 << 61);
        Self {
            now,
            frames: VecDeque::new(),
            guest_time: None,
            wall_ns,
            console_input,
            rng,
            input: [0; FRAME_BYTES_MAX],
            disk,
        }
    }

    /// Starts guest time at 0, because the guest boots.
    pub(crate) fn boot(&mut self) {
        self.guest_time = Some((self.now, 0));
    }

    /// Whether the machine is live: it was booted here or has gone live.
    pub(crate) fn is_live(&self) -> bool {
        self.guest_time.is_some()
    }

    /// Sets the wall clock to a random time, forward or back.
    pub(crate) fn set_wall_clock(&mut self) {
        self.wall_ns = self.rng.within(1 << 60..=1 << 61);
    }

    /// The reading of the host's clock when guest time is `guest_ns`; `None` if the machine is not live.
    pub(crate) fn when(&self, guest_ns: u64) -> Option<Time> {
        let (at, was_ns) = self.guest_time?;
        Some(Time::from_nanos(at.as_nanos() + guest_ns.saturating_sub(was_ns)))
    }

    /// Takes the next frame that arrived from the LAN.
    pub(crate) fn next_frame(&mut self) -> Option<&[u8]> {
        let (_, frame) = self.frames.pop_front()?;
        let input = &mut self.input[..frame.len()];
        input.copy_from_slice(&frame);
        Some(input)
    }

    /// Since when an input waits that the devices can accept.
    pub(crate) fn waiting_since(&mut self, capacity: &DeviceCapacity) -> Option<Time> {
        let disk = self.disk.any_done(self.now).map(|(_, since)| since);
        let disk = disk.filter(|_| capacity.disk_requests > 0);
        let frame = self.frames.front().map(|(at, _)| *at).filter(|_| capacity.frame);
        let timer = capacity.timer_ns.and_then(|due_ns| self.when(due_ns));
        let since = frame.into_iter().chain(timer).chain(disk).min()?;
        (since <= self.now).then_some(since)
    }

    fn guest_ns(&self) -> u64 {
        let (at, was_ns) = self.guest_time.expect("only a live machine reads guest time");
        was_ns + self.now.since(at).as_nanos()
    }
}

impl LiveInputs for TapWorld {
    type Error = Infallible;

    fn clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(self.guest_ns())
    }

    fn wall_clock_ns(&mut self) -> Result<u64, Infallible> {
        Ok(self.wall_ns + self.now.as_nanos())
    }

    /// Fills all of `bytes`, or half of them as the limit of the rate does.
    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        self.rng.fill(bytes);
        let is_limited = bytes.first().is_some_and(|byte| byte % 2 == 0);
        Ok(if is_limited { bytes.len().div_ceil(2) } else { bytes.len() })
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, Infallible> {
        let now_ns = self.guest_ns();
        if capacity.timer_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            return Ok(Some(Input::Clock { now_ns }));
        }
        let done = self.disk.any_done(self.now).filter(|_| capacity.disk_requests > 0);
        if let Some((number, _since)) = done {
            return Ok(self.disk.take_done(self.now, number).map(Input::Disk));
        }
        if capacity.frame
            && let Some((_, frame)) = self.frames.pop_front()
        {
            let input = &mut self.input[..frame.len()];
            input.copy_from_slice(&frame);
            return Ok(Some(Input::Frame(input)));
        }
        if capacity.console_bytes > 0 && self.rng.chance(self.console_input) {
            let length = self.rng.within(1..=capacity.console_bytes as u64) as usize;
            let input = &mut self.input[..length];
            self.rng.fill(input);
            return Ok(Some(Input::Console(input)));
        }
        Ok(None)
    }

    fn go_live(&mut self, clock_ns: u64) {
        self.guest_time = Some((self.now, clock_ns));
    }
}

impl LocalDisks for TapWorld {
    fn begin_request(&mut self, request: &DiskRequest<'_>) {
        self.disk.begin_request(self.now, request);
    }

    fn done(&mut self, _disk: u8, number: u64) -> Option<DiskStatus> {
        self.disk.done(self.now, number)
    }

    fn take_done(&mut self, _disk: u8, number: u64) -> Option<DiskCompletion<'_>> {
        self.disk.take_done(self.now, number)
    }

    fn has_done(&mut self) -> bool {
        self.disk.any_done(self.now).is_some()
    }

    fn fail_disk(&mut self, _disk: u8) {
        self.disk.is_broken = true;
    }

    fn forget_requests(&mut self) {
        self.disk.forget_requests();
    }
}

impl DiskCopier for TapWorld {
    fn begin_copy(&mut self, end: CopyEnd) {
        self.disk.begin_copy(end);
    }

    fn end_copy(&mut self) {
        self.disk.end_copy();
    }

    fn copy_out(&mut self) -> Option<DiskCopy<'_>> {
        self.disk.copy_out(self.now)
    }

    fn copy_takes(&mut self) -> bool {
        self.disk.copy_takes(self.now)
    }

    fn copy_in(&mut self, message: &DiskCopy<'_>) -> Result<(), UnexpectedMessage> {
        self.disk.copy_in(message)
    }

    fn copy_state(&mut self) -> CopyState {
        self.disk.copy_state()
    }
}
