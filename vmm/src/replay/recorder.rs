//! The recording boundary: it wraps another boundary and appends to a log whatever passes through it, in
//! order, before the guest or the world sees it.

use super::error::{HostError, LogError, SourceError};
use logchan::entry::{Entry, REGISTERS};
use replication::Mutants;
use replication::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, DiskRequest, EndState, Input, Memory, Position,
    Region, StopAction, VcpuDigest, Waited,
};
use replication::checkpoint::{CheckpointImage, Image};
use replication::log_writer::{
    self, CheckpointParts, CheckpointWriter, LogSink, LogWriter, LoggedReads, Progress,
};
use std::fmt::Display;

/// A log file, as a recorder uses it.
pub trait LogDestination: LogSink<Error = LogError> {
    /// Notes that the guest is about to wait, which is a good moment to write the collected entries.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    fn idle(&mut self) -> Result<(), LogError>;
    /// Writes everything that was collected. No entry follows.
    ///
    /// # Errors
    ///
    /// The log cannot be written.
    fn finish(&mut self) -> Result<(), LogError>;
}

/// A boundary that also writes a log.
pub struct Recorder<B, L> {
    boundary: B,
    log: L,
    writer: LogWriter,
}

impl<B: Boundary<Error = SourceError>, L: LogDestination> Recorder<B, L> {
    /// Creates a recorder that logs what passes through `boundary` to `log`, whose reader has a delta cache
    /// of `delta_cache_pages_max` pages.
    pub fn new(boundary: B, log: L, delta_cache_pages_max: usize) -> Recorder<B, L> {
        Recorder {
            boundary,
            log,
            writer: LogWriter::new(delta_cache_pages_max, Mutants::default()),
        }
    }

    /// Makes the log have `reads` of what the guest reads from its disks.
    pub fn with_reads(self, reads: LoggedReads) -> Recorder<B, L> {
        Recorder { writer: self.writer.with_reads(reads), ..self }
    }

    /// Returns the wrapped boundary, for its statistics.
    pub fn boundary(&self) -> &B {
        &self.boundary
    }

    /// Returns the log, for its statistics.
    pub fn log(&self) -> &L {
        &self.log
    }

    fn append(&mut self, entry: &Entry<'_>) -> Result<(), SourceError> {
        Ok(self.log.append(entry).map_err(HostError::from)?)
    }
}

impl<B: Boundary<Error = SourceError>, L: LogDestination> DeviceBoundary for Recorder<B, L> {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        let now_ns = self.boundary.clock_ns()?;
        let entry = self.writer.clock(now_ns);
        self.append(&entry)?;
        Ok(now_ns)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        let unix_ns = self.boundary.wall_clock_ns()?;
        self.append(&Entry::WallClock { unix_ns })?;
        Ok(unix_ns)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        let filled = self.boundary.entropy(bytes)?;
        self.append(&Entry::Entropy(&bytes[..filled]))?;
        Ok(filled)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.append(&log_writer::output(frame))?;
        self.boundary.output(frame)
    }

    fn console_output(&mut self, byte: u8) {
        self.boundary.console_output(byte);
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        self.boundary.disk_request(request)
    }

    fn interrupt_served(&mut self) {
        self.boundary.interrupt_served();
    }
}

impl<B: Boundary<Error = SourceError>, L: LogDestination> Boundary for Recorder<B, L> {
    fn poll_memory(
        &mut self,
        memory: &mut dyn Memory<Error = SourceError>,
    ) -> Result<(), SourceError> {
        self.boundary.poll_memory(memory)
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        self.boundary.next_region()
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        let entry = self.writer.position(position, vcpu);
        self.append(&entry)?;
        self.boundary.reached(position, vcpu, exit)
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        self.boundary.exit_handled()
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        let input = self.boundary.next_input(capacity)?;
        if let Some(input) = &input {
            self.log.append(&self.writer.input(input)).map_err(HostError::from)?;
        }
        Ok(input)
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        self.log.idle().map_err(HostError::from)?;
        self.boundary.wait(capacity)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.append(&Entry::Interrupt { vector })?;
        self.boundary.interrupt(vector)
    }

    fn interrupted(
        &mut self,
        capacity: &DeviceCapacity,
        window: bool,
    ) -> Result<StopAction, SourceError> {
        self.boundary.interrupted(capacity, window)
    }

    fn window_at_cpl0(&mut self) -> Result<StopAction, SourceError> {
        self.boundary.window_at_cpl0()
    }

    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        self.boundary.fatal(registers, exit)
    }

    fn keeps_checkpoints(&self) -> bool {
        true
    }

    fn checkpoint(&mut self, image: &dyn CheckpointImage) -> Result<(), SourceError> {
        let parts = CheckpointParts::of(image);
        let progress = CheckpointWriter::new()
            .write(&mut self.writer, &parts, &mut self.log)
            .map_err(HostError::from)?;
        assert_eq!(progress, Progress::Done, "a file has room");
        self.boundary.checkpoint(image)
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        self.boundary.take_checkpoint()
    }

    fn applied(&mut self) -> Result<(), SourceError> {
        self.boundary.applied()
    }

    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.boundary.keepalive()
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.boundary.end(end)?;
        self.append(&log_writer::end(end))?;
        Ok(self.log.finish().map_err(HostError::from)?)
    }
}
