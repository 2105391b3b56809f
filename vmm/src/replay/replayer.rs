//! The replaying boundary: everything the machine learns comes from a log, and everything the machine
//! does is compared with that log.

use super::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, EndState, Input, Position, Region, StopAction,
    VcpuDigest, Waited,
};
use super::divergence::Divergence;
use super::error::{LogError, SourceError};
use super::log_file::LogReader;
use crate::checkpoint::{DeltaCache, Image, ImageDigest, ImageView, PageImage};
use logchan::entry::{Entry, REGISTERS};
use logchan::limits::PAGE_BYTES;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// Log entries in the report of a divergence.
const RECENT_ENTRIES: usize = 24;

/// A boundary that reads a log.
pub struct Replayer {
    log: LogReader,
    /// Guest time of the last `Clock` entry, nanoseconds.
    clock_ns: u64,
    /// Registers as recorded at the last exit; `None` after an exit without logged registers.
    registers: Option<[u64; REGISTERS]>,
    /// The delta cache against which checkpoints are decoded.
    cache: DeltaCache,
    natural_exits: u64,
    stop: Arc<AtomicBool>,
    on_progress: Box<dyn FnMut(u64) + Send>,
}

impl Replayer {
    /// Creates a replayer for `log`. It stops when `stop` is set. `on_progress` is called from time to
    /// time with the offset in the file.
    pub fn new(
        log: LogReader,
        stop: Arc<AtomicBool>,
        on_progress: Box<dyn FnMut(u64) + Send>,
    ) -> Replayer {
        let cache = DeltaCache::new(log.header().memory_bytes / PAGE_BYTES as u64);
        Replayer {
            log,
            cache,
            clock_ns: 0,
            registers: Some([0; REGISTERS]),
            natural_exits: 0,
            stop,
            on_progress,
        }
    }

    /// Returns how many bytes of the log have been consumed.
    pub fn log_bytes(&self) -> u64 {
        self.log.offset()
    }

    /// Returns how many natural exits have been compared.
    pub fn natural_exits(&self) -> u64 {
        self.natural_exits
    }

    /// A requested stop is an error, because it is not a position: the log does not contain it.
    fn check_stop(&self) -> Result<(), SourceError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(SourceError::Stopped),
            false => Ok(()),
        }
    }

    fn truncated(&self) -> LogError {
        LogError::Truncated { offset: self.log.offset(), natural_exits: self.natural_exits }
    }

    /// Returns the error for a divergence: the log expects `expected` (its next entry if `None`), and the
    /// replay did `found`.
    fn diverged(
        &mut self,
        expected: Option<String>,
        found: String,
        registers: Option<(Option<[u64; REGISTERS]>, [u64; REGISTERS])>,
    ) -> SourceError {
        let expected = match expected {
            Some(expected) => expected,
            None => match self.log.peek() {
                Ok(Some(entry)) => logchan::dump::Dump(&entry).to_string(),
                Ok(None) => return self.truncated().into(),
                Err(error) => return error.into(),
            },
        };
        SourceError::Diverged(Box::new(Divergence {
            natural_exits: self.natural_exits,
            expected,
            found,
            registers,
            recent: self.log.recent(RECENT_ENTRIES),
        }))
    }

    /// Consumes the `Clock` entry that was peeked and returns the new guest time.
    fn advance_clock(&mut self, advance_ns: u64) -> Result<u64, SourceError> {
        let offset = self.log.offset();
        let now_ns = self.clock_ns.checked_add(advance_ns);
        self.clock_ns = now_ns.ok_or(LogError::Clock { offset })?;
        self.consume()?;
        Ok(self.clock_ns)
    }

    fn peek(&mut self) -> Result<Entry<'_>, SourceError> {
        let truncated = self.truncated();
        Ok(self.log.peek()?.ok_or(truncated)?)
    }

    fn consume(&mut self) -> Result<Entry<'_>, SourceError> {
        let truncated = self.truncated();
        Ok(self.log.consume()?.ok_or(truncated)?)
    }
}

impl DeviceBoundary for Replayer {
    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        match self.peek()? {
            Entry::Clock { advance_ns } => self.advance_clock(advance_ns),
            _other => Err(self.diverged(None, String::from("read the guest clock"), None)),
        }
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        match self.peek()? {
            Entry::WallClock { unix_ns } => {
                self.consume()?;
                Ok(unix_ns)
            }
            _other => Err(self.diverged(None, String::from("read the wall clock"), None)),
        }
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        match self.peek()? {
            Entry::Entropy(logged) if logged.len() == bytes.len() => {
                bytes.copy_from_slice(logged);
                self.consume()?;
                Ok(())
            }
            _other => {
                let found = format!("asked for {} bytes of entropy", bytes.len());
                Err(self.diverged(None, found, None))
            }
        }
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        let made = (frame.len() as u64, xxh3_64(frame));
        match self.peek()? {
            Entry::Output { length, digest } if (u64::from(length), digest) == made => {
                self.consume()?;
                Ok(())
            }
            _other => {
                let found = format!("sent a frame of {} bytes, digest {:016x}", made.0, made.1);
                Err(self.diverged(None, found, None))
            }
        }
    }

    /// Discards the byte: console output was shown when it was recorded.
    fn console_output(&mut self, _byte: u8) {}
}

impl Boundary for Replayer {
    fn next_region(&mut self) -> Result<Region, SourceError> {
        self.check_stop()?;
        match self.peek()? {
            Entry::Exit { .. } => Ok(Region::RunToExit),
            Entry::UserWindow { .. } => Ok(Region::Run),
            Entry::CheckpointBegin { .. } => Ok(Region::Apply),
            Entry::End { .. } => Ok(Region::End),
            Entry::Page { .. }
            | Entry::CheckpointEnd { .. }
            | Entry::Clock { .. }
            | Entry::WallClock { .. }
            | Entry::Entropy(_)
            | Entry::Frame(_)
            | Entry::Console(_)
            | Entry::Interrupt { .. }
            | Entry::Output { .. } => {
                Err(self.diverged(None, String::from("was ready to enter the guest"), None))
            }
        }
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        let (expected, digest) = match self.peek()? {
            Entry::Exit { digest, registers } => {
                self.natural_exits += 1;
                self.registers = match (self.registers, registers) {
                    (Some(mut old), Some(delta)) => {
                        old.iter_mut().zip(delta.xor).for_each(|(register, xor)| *register ^= xor);
                        Some(old)
                    }
                    (None, _) | (_, None) => None,
                };
                (Position::Exit, digest)
            }
            Entry::UserWindow { digest } => (Position::UserWindow, digest),
            _other => {
                let found = format!("reached {exit}");
                return Err(self.diverged(None, found, Some((None, vcpu.registers))));
            }
        };
        if (expected, digest) != (position, vcpu.digest) {
            let found = format!("reached {exit} with digest {:016x}", vcpu.digest);
            let recorded = match expected {
                Position::Exit => self.registers,
                Position::UserWindow => None,
            };
            return Err(self.diverged(None, found, Some((recorded, vcpu.registers))));
        }
        self.consume()?;
        if self.natural_exits.is_multiple_of(4096) {
            (self.on_progress)(self.log.offset());
        }
        Ok(())
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn next_input(&mut self, _capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        if let Entry::Clock { advance_ns } = self.peek()? {
            let now_ns = self.advance_clock(advance_ns)?;
            return Ok(Some(Input::Clock { now_ns }));
        }
        if !matches!(self.peek()?, Entry::Frame(_) | Entry::Console(_)) {
            return Ok(None);
        }
        match self.consume()? {
            Entry::Frame(frame) => Ok(Some(Input::Frame(frame))),
            Entry::Console(bytes) => Ok(Some(Input::Console(bytes))),
            entry => unreachable!("{entry:?} was peeked as an input"),
        }
    }

    fn wait(&mut self, _capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        match self.peek()? {
            Entry::End { .. } => Ok(Waited::End),
            _other => {
                Err(self.diverged(None, String::from("halted with no interrupt pending"), None))
            }
        }
    }

    fn interrupt(&mut self, injected: u8) -> Result<(), SourceError> {
        match self.peek()? {
            Entry::Interrupt { vector } if vector == injected => {
                self.consume()?;
                Ok(())
            }
            _other => {
                let found = format!("injected interrupt vector {injected:#x}");
                Err(self.diverged(None, found, None))
            }
        }
    }

    /// Resumes after any kick that is not a requested stop: the region ends where the log says.
    fn interrupted(
        &mut self,
        _capacity: &DeviceCapacity,
        _window: bool,
    ) -> Result<StopAction, SourceError> {
        self.check_stop()?;
        Ok(StopAction::Resume)
    }

    /// Resumes: the log says that this region ends in a window at CPL3.
    fn window_at_cpl0(&mut self) -> StopAction {
        StopAction::Resume
    }

    /// Always a divergence: the log has the guest continue, or there would have been nothing to run.
    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        Err(self.diverged(None, format!("stopped in {exit}"), Some((None, *registers))))
    }

    fn keeps_checkpoints(&self) -> bool {
        false
    }

    fn checkpoint(&mut self, _image: &ImageView<'_>) -> Result<(), SourceError> {
        unreachable!("a replay keeps no checkpoints")
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        let truncated = self.truncated();
        let offset = self.log.offset();
        let wrong_base = |source| LogError::DeltaBase { offset, source };
        let Self { log, cache, .. } = self;
        let (mut image, pages) = match log.consume()? {
            Some(Entry::CheckpointBegin { full, pages, vcpu, devices }) => {
                cache.begin(full);
                let vcpu = cache.vcpu.decode(&vcpu).map_err(wrong_base)?.to_vec();
                let devices = cache.devices.decode(&devices).map_err(wrong_base)?.to_vec();
                (Image { full, vcpu, devices, pages: Vec::new() }, pages)
            }
            entry => unreachable!("{entry:?}: next_region peeked a checkpoint here"),
        };
        let mut digest = ImageDigest::new(image.full, &image.vcpu, &image.devices);
        for _page in 0..pages {
            match log.consume()? {
                Some(Entry::Page { number, bytes }) => {
                    let page = cache.decode(number, &bytes).map_err(wrong_base)?;
                    digest.page(number, page.unwrap_or(&[0; PAGE_BYTES]));
                    image.pages.push(PageImage { number, bytes: page.map(|page| Box::new(*page)) });
                }
                None => return Err(truncated.into()),
                entry => unreachable!("{entry:?}: the sequence checker requires a page here"),
            }
        }
        match log.consume()? {
            Some(Entry::CheckpointEnd { digest: logged }) if logged == digest.finish() => Ok(image),
            None => Err(truncated.into()),
            _mismatch => Err(LogError::CheckpointDigest { offset }.into()),
        }
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        let logged = match self.peek()? {
            Entry::End { natural_exits, interrupts, memory_digest, state_digest } => {
                EndState { natural_exits, interrupts, memory_digest, state_digest }
            }
            _other => return Err(self.diverged(None, String::from("ended"), None)),
        };
        if logged == *end {
            self.consume()?;
            return Ok(());
        }
        let expected = format!("{logged:x?}");
        Err(self.diverged(Some(expected), format!("ended in {end:x?}"), None))
    }
}
