//! A source that lets its machine run up to a point and hands out a whole checkpoint there.
//!
//! The point is the first time that the guest waits, with nothing pending, after it has printed a
//! text on its console; or, without such a text, where the source behind says that the machine ends.

use super::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, EndState, Input, Memory, Position, Region,
    StopAction, VcpuDigest, Waited,
};
use super::error::SourceError;
use crate::checkpoint::{Image, ImageView};
use logchan::entry::REGISTERS;

/// What is done with the machine at the point.
pub type Keep<'a> = Box<dyn FnMut(&ImageView<'_>) -> Result<(), SourceError> + Send + 'a>;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The text was not printed yet.
    Watching,
    /// It was: the next wait is the point.
    Waiting,
    /// This is the point.
    Taking,
    /// It is past.
    Done,
}

/// The source.
pub struct Snapshotter<'a, S> {
    source: S,
    /// The text, and how much of it the console's last bytes are.
    text: Option<Vec<u8>>,
    printed: Vec<u8>,
    stage: Stage,
    keep: Keep<'a>,
}

impl<'a, S: Boundary> Snapshotter<'a, S> {
    /// Runs on `source` and gives the machine to `keep` at the point.
    pub fn new(source: S, text: Option<String>, keep: Keep<'a>) -> Self {
        let text = text.map(String::into_bytes).filter(|text| !text.is_empty());
        Self { source, text, printed: Vec::new(), stage: Stage::Watching, keep }
    }

    /// Whether the point was reached.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    fn watch(&mut self, byte: u8) {
        let Some(text) = self.text.as_ref().filter(|_| self.stage == Stage::Watching) else {
            return;
        };
        if self.printed.len() == text.len() {
            self.printed.remove(0);
        }
        self.printed.push(byte);
        if self.printed == *text {
            self.stage = Stage::Waiting;
        }
    }
}

impl<S: Boundary> DeviceBoundary for Snapshotter<'_, S> {
    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.source.clock_ns()
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.source.wall_clock_ns()
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.source.entropy(bytes)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.source.output(frame)
    }

    fn console_output(&mut self, byte: u8) {
        self.watch(byte);
        self.source.console_output(byte);
    }
}

impl<S: Boundary> Boundary for Snapshotter<'_, S> {
    fn poll_memory(&mut self, memory: &mut dyn Memory) -> Result<(), SourceError> {
        self.source.poll_memory(memory)
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        match self.stage {
            Stage::Taking => Ok(Region::Capture),
            Stage::Done => Ok(Region::End),
            Stage::Watching | Stage::Waiting => match self.source.next_region()? {
                Region::End if self.text.is_none() => {
                    self.stage = Stage::Taking;
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
        self.source.reached(position, vcpu, exit)
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        self.source.exit_handled()
    }

    fn next_input(&mut self, capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        self.source.next_input(capacity)
    }

    fn wait(&mut self, capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        if self.stage == Stage::Waiting {
            self.stage = Stage::Taking;
            return Ok(Waited::End);
        }
        self.source.wait(capacity)
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
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

    /// Only the one that is asked for.
    fn keeps_checkpoints(&self) -> bool {
        self.stage == Stage::Taking
    }

    fn checkpoint(&mut self, image: &ImageView<'_>) -> Result<(), SourceError> {
        self.stage = Stage::Done;
        (self.keep)(image)
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        self.source.take_checkpoint()
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.source.end(end)
    }
}
