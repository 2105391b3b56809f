//! A boundary that runs its machine up to a point and captures a full checkpoint there.
//!
//! The point is the first time that the guest waits, with no interrupt pending, after it has printed a
//! given text on its console. Without such a text the point is where the wrapped boundary ends the run.

use super::error::SourceError;
use logchan::entry::REGISTERS;
use replication::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, DiskRequest, EndState, Input, Memory, Position,
    Region, StopAction, VcpuDigest, Waited,
};
use replication::checkpoint::{CheckpointImage, Image};

/// Called with the wrapped boundary and the checkpoint at the point.
pub type OnCheckpoint<'a, B> = Box<dyn FnMut(&mut B, &dyn CheckpointImage) + Send + 'a>;

/// Progress towards the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The guest has not printed the text yet.
    AwaitingText,
    /// The guest has printed the text; its next wait is the point.
    AwaitingHalt,
    /// The machine is at the point; the checkpoint is next.
    Capturing,
    /// The checkpoint was taken; the run ends.
    Done,
}

/// The boundary that captures one checkpoint.
pub struct Snapshotter<'a, B> {
    boundary: B,
    /// The text to wait for.
    text: Option<Vec<u8>>,
    /// The console's last bytes, at most as many as the text has.
    last_printed: Vec<u8>,
    stage: Stage,
    on_checkpoint: OnCheckpoint<'a, B>,
}

impl<'a, B: Boundary<Error = SourceError>> Snapshotter<'a, B> {
    /// Wraps `boundary`. `on_checkpoint` receives the checkpoint that is taken once `text` has been
    /// printed.
    pub fn new(boundary: B, text: Option<String>, on_checkpoint: OnCheckpoint<'a, B>) -> Self {
        let text = text.map(String::into_bytes).filter(|text| !text.is_empty());
        Self { boundary, text, last_printed: Vec::new(), stage: Stage::AwaitingText, on_checkpoint }
    }

    fn match_text(&mut self, byte: u8) {
        let Some(text) = self.text.as_ref().filter(|_| self.stage == Stage::AwaitingText) else {
            return;
        };
        if self.last_printed.len() == text.len() {
            self.last_printed.remove(0);
        }
        self.last_printed.push(byte);
        if self.last_printed == *text {
            self.stage = Stage::AwaitingHalt;
        }
    }
}

impl<B: Boundary<Error = SourceError>> DeviceBoundary for Snapshotter<'_, B> {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.boundary.clock_ns()
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.boundary.wall_clock_ns()
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        self.boundary.entropy(bytes)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.boundary.output(frame)
    }

    fn console_output(&mut self, byte: u8) {
        self.match_text(byte);
        self.boundary.console_output(byte);
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        self.boundary.disk_request(request)
    }

    fn interrupt_served(&mut self) {
        self.boundary.interrupt_served();
    }
}

impl<B: Boundary<Error = SourceError>> Boundary for Snapshotter<'_, B> {
    fn poll_memory(
        &mut self,
        memory: &mut dyn Memory<Error = SourceError>,
    ) -> Result<(), SourceError> {
        self.boundary.poll_memory(memory)
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        match self.stage {
            Stage::Capturing => Ok(Region::Capture),
            Stage::Done => Ok(Region::End),
            Stage::AwaitingText | Stage::AwaitingHalt => match self.boundary.next_region()? {
                Region::End if self.text.is_none() => {
                    self.stage = Stage::Capturing;
                    Ok(Region::Capture)
                }
                region => Ok(region),
            },
        }
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.boundary.reached(position, vcpu, exit)
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        self.boundary.exit_handled()
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        self.boundary.next_input(capacity)
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        if self.stage == Stage::AwaitingHalt {
            self.stage = Stage::Capturing;
            return Ok(Waited::End);
        }
        self.boundary.wait(capacity)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
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
        exit: &dyn std::fmt::Display,
    ) -> Result<(), SourceError> {
        self.boundary.fatal(registers, exit)
    }

    /// Only the one checkpoint at the point is captured.
    fn keeps_checkpoints(&self) -> bool {
        self.stage == Stage::Capturing
    }

    fn checkpoint(&mut self, image: &dyn CheckpointImage) -> Result<(), SourceError> {
        self.stage = Stage::Done;
        (self.on_checkpoint)(&mut self.boundary, image);
        Ok(())
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        self.boundary.take_checkpoint()
    }

    fn keepalive(&mut self) -> Result<(), SourceError> {
        self.boundary.keepalive()
    }

    fn applied(&mut self) -> Result<(), SourceError> {
        self.boundary.applied()
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.boundary.end(end)
    }
}
