//! The recording boundary: it wraps another boundary and appends to a log whatever passes through it, in
//! order, before the guest or the world sees it.

use super::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, EndState, Input, Position, Region, StopAction,
    VcpuDigest, Waited,
};
use super::error::{LogError, SourceError};
use crate::checkpoint::{DeltaCache, Image, ImageDigest, ImageView};
use crate::mem;
use crate::mem::layout::PAGE;
use logchan::entry::{Entry, REGISTERS, RegisterDelta};
use xxhash_rust::xxh3::xxh3_64;

/// A destination for log entries.
pub trait LogSink {
    /// Appends one entry.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    fn append(&mut self, entry: &Entry<'_>) -> Result<(), LogError>;
    /// Notes that the guest is about to wait, which is a good moment to write the collected entries.
    fn idle(&mut self) -> Result<(), LogError>;
    /// Writes everything that was collected. No entry follows.
    fn finish(&mut self) -> Result<(), LogError>;
}

/// A boundary that also writes a log.
pub struct Recorder<B, L> {
    boundary: B,
    log: L,
    /// Guest time of the last `Clock` entry, nanoseconds.
    clock_ns: u64,
    /// Registers at the last exit logged.
    registers: [u64; REGISTERS],
    /// The delta cache against which checkpoints are encoded. The first checkpoint, which is full,
    /// creates it.
    cache: Option<DeltaCache>,
}

impl<B: Boundary, L: LogSink> Recorder<B, L> {
    /// Creates a recorder that logs what passes through `boundary` to `log`.
    pub fn new(boundary: B, log: L) -> Recorder<B, L> {
        Recorder { boundary, log, clock_ns: 0, registers: [0; REGISTERS], cache: None }
    }

    /// Returns the wrapped boundary, for its statistics.
    pub fn boundary(&self) -> &B {
        &self.boundary
    }

    /// Returns the log, for its statistics.
    pub fn log(&self) -> &L {
        &self.log
    }

    fn register_delta(&mut self, now: &[u64; REGISTERS]) -> RegisterDelta {
        let mut delta = RegisterDelta::default();
        for (index, (old, new)) in self.registers.iter().zip(now).enumerate() {
            delta.xor[index] = old ^ new;
            delta.changed |= u32::from(old != new) << index;
        }
        self.registers = *now;
        delta
    }
}

/// Returns the `Clock` entry that advances `clock_ns` to `now_ns`, and updates `clock_ns`.
fn clock_entry(clock_ns: &mut u64, now_ns: u64) -> Entry<'static> {
    let advance_ns = now_ns.checked_sub(*clock_ns).expect("guest time never goes back");
    *clock_ns = now_ns;
    Entry::Clock { advance_ns }
}

impl<B: Boundary, L: LogSink> DeviceBoundary for Recorder<B, L> {
    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        let now_ns = self.boundary.clock_ns()?;
        self.log.append(&clock_entry(&mut self.clock_ns, now_ns))?;
        Ok(now_ns)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        let unix_ns = self.boundary.wall_clock_ns()?;
        self.log.append(&Entry::WallClock { unix_ns })?;
        Ok(unix_ns)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.boundary.entropy(bytes)?;
        Ok(self.log.append(&Entry::Entropy(bytes))?)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        let length = u32::try_from(frame.len()).expect("a frame is short");
        self.log.append(&Entry::Output { length, digest: xxh3_64(frame) })?;
        self.boundary.output(frame)
    }

    fn console_output(&mut self, byte: u8) {
        self.boundary.console_output(byte);
    }

    fn interrupt_served(&mut self) {
        self.boundary.interrupt_served();
    }
}

impl<B: Boundary, L: LogSink> Boundary for Recorder<B, L> {
    fn next_region(&mut self) -> Result<Region, SourceError> {
        self.boundary.next_region()
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        let digest = vcpu.digest;
        let entry = match position {
            Position::Exit => {
                Entry::Exit { digest, registers: Some(self.register_delta(&vcpu.registers)) }
            }
            Position::UserWindow => Entry::UserWindow { digest },
        };
        self.log.append(&entry)?;
        self.boundary.reached(position, vcpu, exit)
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        self.boundary.exit_handled()
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        let input = self.boundary.next_input(capacity)?;
        if let Some(input) = &input {
            let entry = match *input {
                Input::Clock { now_ns } => clock_entry(&mut self.clock_ns, now_ns),
                Input::Frame(frame) => Entry::Frame(frame),
                Input::Console(bytes) => Entry::Console(bytes),
            };
            self.log.append(&entry)?;
        }
        Ok(input)
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        self.log.idle()?;
        self.boundary.wait(capacity)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.log.append(&Entry::Interrupt { vector })?;
        self.boundary.interrupt(vector)
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        self.boundary.interrupted(capacity, window)
    }

    fn window_at_cpl0(&mut self) -> StopAction {
        self.boundary.window_at_cpl0()
    }

    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.boundary.fatal(registers, exit)
    }

    fn keeps_checkpoints(&self) -> bool {
        true
    }

    fn checkpoint(&mut self, image: &ImageView<'_>) -> Result<(), SourceError> {
        let &ImageView { full, vcpu, devices, pages, .. } = image;
        let count = u32::try_from(pages.len()).expect("a guest has fewer than 2^32 pages");
        let cache =
            self.cache.get_or_insert_with(|| DeltaCache::new(mem::guest::bytes(image.ram) / PAGE));
        cache.begin(full);
        let (encoded_vcpu, encoded_devices) =
            (cache.vcpu.encode(vcpu), cache.devices.encode(devices));
        let begin = Entry::CheckpointBegin {
            full,
            pages: count,
            vcpu: encoded_vcpu,
            devices: encoded_devices,
        };
        self.log.append(&begin)?;
        let mut digest = ImageDigest::new(full, vcpu, devices);
        image.for_each_page(|number, page| {
            digest.page(number, page);
            self.log.append(&Entry::Page { number, bytes: cache.encode(number, page) })
        })?;
        self.log.append(&Entry::CheckpointEnd { digest: digest.finish() })?;
        self.boundary.checkpoint(image)
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        self.boundary.take_checkpoint()
    }

    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.boundary.keepalive()
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.boundary.end(end)?;
        let &EndState { natural_exits, interrupts, memory_digest, state_digest } = end;
        self.log.append(&Entry::End { natural_exits, interrupts, memory_digest, state_digest })?;
        Ok(self.log.finish()?)
    }
}
