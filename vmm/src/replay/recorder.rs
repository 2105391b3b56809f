//! The recording side of the door: whatever passes through the source it wraps is appended to a
//! log, in order, before the guest or the world sees it.

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

/// Where log entries go.
pub trait LogSink {
    /// Appends one entry.
    fn append(&mut self, entry: &Entry<'_>) -> Result<(), LogError>;
    /// The guest is about to wait: a good moment to hand on what was collected.
    fn idle(&mut self) -> Result<(), LogError>;
    /// Nothing follows: hand on everything.
    fn finish(&mut self) -> Result<(), LogError>;
}

/// An event source that also logs.
pub struct Recorder<S, L> {
    source: S,
    log: L,
    /// Guest time of the last `Clock` entry, nanoseconds.
    clock_ns: u64,
    /// Registers at the last exit logged.
    registers: [u64; REGISTERS],
    /// What checkpoints are told against; there is one from the first on, which is full.
    cache: Option<DeltaCache>,
}

impl<S: Boundary, L: LogSink> Recorder<S, L> {
    /// Records what passes through `source` into `log`.
    pub fn new(source: S, log: L) -> Recorder<S, L> {
        Recorder { source, log, clock_ns: 0, registers: [0; REGISTERS], cache: None }
    }

    /// The source behind, for its statistics.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The log, for its statistics.
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

/// The `Clock` entry that brings `clock_ns` to `now_ns`.
fn clock_entry(clock_ns: &mut u64, now_ns: u64) -> Entry<'static> {
    let advance_ns = now_ns.checked_sub(*clock_ns).expect("guest time never goes back");
    *clock_ns = now_ns;
    Entry::Clock { advance_ns }
}

impl<S: Boundary, L: LogSink> DeviceBoundary for Recorder<S, L> {
    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        let now_ns = self.source.clock_ns()?;
        self.log.append(&clock_entry(&mut self.clock_ns, now_ns))?;
        Ok(now_ns)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        let unix_ns = self.source.wall_clock_ns()?;
        self.log.append(&Entry::WallClock { unix_ns })?;
        Ok(unix_ns)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.source.entropy(bytes)?;
        Ok(self.log.append(&Entry::Entropy(bytes))?)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        let length = u32::try_from(frame.len()).expect("a frame is short");
        self.log.append(&Entry::Output { length, digest: xxh3_64(frame) })?;
        self.source.output(frame)
    }

    fn console_output(&mut self, byte: u8) {
        self.source.console_output(byte);
    }

    fn interrupt_served(&mut self) {
        self.source.interrupt_served();
    }
}

impl<S: Boundary, L: LogSink> Boundary for Recorder<S, L> {
    fn next_region(&mut self) -> Result<Region, SourceError> {
        self.source.next_region()
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
        self.source.reached(position, vcpu, exit)
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        self.source.exit_handled()
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        let input = self.source.next_input(capacity)?;
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
        self.source.wait(capacity)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.log.append(&Entry::Interrupt { vector })?;
        self.source.interrupt(vector)
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        self.source.interrupted(capacity, window)
    }

    fn window_at_cpl0(&mut self) -> StopAction {
        self.source.window_at_cpl0()
    }

    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.source.fatal(registers, exit)
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
        self.source.checkpoint(image)
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        self.source.take_checkpoint()
    }

    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.source.keepalive()
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.source.end(end)?;
        let &EndState { natural_exits, interrupts, memory_digest, state_digest } = end;
        self.log.append(&Entry::End { natural_exits, interrupts, memory_digest, state_digest })?;
        Ok(self.log.finish()?)
    }
}
