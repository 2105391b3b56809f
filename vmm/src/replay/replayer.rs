//! The replaying boundary: everything the machine learns comes from a log file, and everything the machine
//! does is compared with that log.
//!
//! Disks are the exception: the log has a digest of what the guest has read from one, so a replay executes the requests
//! again, on a disk that begins with the same contents, and compares. It does without disks if the log has the data.

use super::error::{HostError, LogError, SourceError};
use super::log_file::LogReader;
use super::orders::Orders;
use crate::disk::Disks;
use logchan::entry::{Entry, REGISTERS};
use logchan::limits::{PAGE_BYTES, delta_cache_pages_max};
use replication::Mutants;
use replication::boundary::{
    Boundary, DeviceBoundary, DeviceCapacity, DiskCompletion, DiskRequest, DiskStatus, EndState,
    Input, Memory, Position, Region, StopAction, VcpuDigest, Waited,
};
use replication::checkpoint::{CheckpointFault, CheckpointImage, Image};
use replication::log_writer::read_digest;
use replication::verifier::{TakenDisk, TakenInput, Verdict, Verifier};
use std::fmt::Display;
use std::sync::Arc;

/// Natural exits between two reports of progress.
const PROGRESS_EXITS: u64 = 4096;

/// A boundary that reads a log file.
pub struct Replayer {
    log: LogReader,
    verifier: Verifier,
    /// `None` if the log has what the guest has read.
    disks: Option<Disks>,
    orders: Arc<Orders>,
    on_progress: Box<dyn FnMut(u64) + Send>,
}

impl Replayer {
    /// Creates a replayer for `log`, on `disks` unless the log has what was read. It stops at any of `orders`.
    /// `on_progress` is called from time to time with the offset in the file.
    pub fn new(
        log: LogReader,
        disks: Option<Disks>,
        orders: Arc<Orders>,
        on_progress: Box<dyn FnMut(u64) + Send>,
    ) -> Replayer {
        let pages_max = delta_cache_pages_max(log.header().memory_bytes / PAGE_BYTES as u64);
        let verifier = Verifier::new(pages_max, Mutants::default());
        Replayer { log, verifier, disks, orders, on_progress }
    }

    /// Returns how many bytes of the log have been consumed.
    pub fn log_bytes(&self) -> u64 {
        self.log.offset()
    }

    /// Returns how many natural exits have been compared.
    pub fn natural_exits(&self) -> u64 {
        self.verifier.natural_exits()
    }

    /// A requested stop is an error, because it is not a position: the log does not contain it.
    fn check_stop(&self) -> Result<(), SourceError> {
        match self.orders.any() {
            true => Err(SourceError::Stopped),
            false => Ok(()),
        }
    }

    fn truncated(&self) -> HostError {
        let (offset, natural_exits) = (self.log.offset(), self.verifier.natural_exits());
        LogError::Truncated { offset, natural_exits }.into()
    }

    /// Asks the verifier. A log without a next entry is truncated: a whole one ends with an `End`.
    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut Verifier, &mut LogReader) -> Result<Verdict<T>, LogError>,
    ) -> Result<T, SourceError> {
        match ask(&mut self.verifier, &mut self.log).map_err(HostError::from)? {
            Verdict::Agreed(value) => Ok(value),
            Verdict::NoEntry => Err(self.truncated().into()),
            Verdict::Diverged(divergence) => Err(SourceError::Diverged(divergence)),
        }
    }

    /// Waits for the own request that the log says is done, and compares what it has read.
    ///
    /// A request that has failed in the recording fails here, too, whatever this host's disk does.
    fn disk_done(&mut self, logged: TakenDisk) -> Result<Input<'_>, SourceError> {
        let TakenDisk { disk, number, status, digest, length } = logged;
        let Replayer { log, verifier, disks, .. } = self;
        let diverged = |log: &mut LogReader, verifier: &Verifier, found: String| {
            let expected = format!("disk-done disk={disk} number={number} digest={digest:016x}");
            SourceError::Diverged(verifier.divergence(log, Some(expected), found, None))
        };
        let Some(disks) = disks else {
            let input = verifier.input(TakenInput::Disk(logged));
            let Input::Disk(completion) = &input else { unreachable!("{input:?}") };
            if read_digest(completion.data) != digest {
                let found = format!("read {length} bytes that the log has, with another digest");
                return Err(diverged(log, verifier, found));
            }
            return Ok(input);
        };
        let Some(own) = disks.wait_for(disk, number) else {
            let found = String::from("has no such request in flight");
            return Err(diverged(log, verifier, found));
        };
        let found = match (status, own.status) {
            (DiskStatus::Failed, _) => {
                let data = &[];
                return Ok(Input::Disk(DiskCompletion { disk, number, status, data }));
            }
            (DiskStatus::Done, DiskStatus::Done) if read_digest(own.data) == digest => {
                return Ok(Input::Disk(own));
            }
            (DiskStatus::Done, DiskStatus::Done) => format!(
                "read {} bytes from disk {disk} with digest {:016x}: its image is not the recorded one",
                own.data.len(),
                read_digest(own.data)
            ),
            (DiskStatus::Done, DiskStatus::Failed) => {
                format!("disk {disk} has failed on this host")
            }
        };
        Err(diverged(log, verifier, found))
    }

    /// Reads the checkpoint at the front of the log.
    fn read_checkpoint(&mut self) -> Result<Image, LogError> {
        let (offset, natural_exits) = (self.log.offset(), self.verifier.natural_exits());
        let fault = |fault| match fault {
            CheckpointFault::Delta(source) => LogError::DeltaBase { offset, source },
            CheckpointFault::Digest | CheckpointFault::Pages { .. } => {
                LogError::CheckpointDigest { offset }
            }
        };
        // The log borrows its entries from a buffer, and the states are needed after the pages.
        let (begin, pages) = match self.log.consume_entry()? {
            Some(entry @ Entry::CheckpointBegin { full, pages, .. }) => {
                self.verifier.begin_checkpoint(full);
                let mut bytes = Vec::new();
                logchan::entry_codec::encode(&entry, &mut bytes);
                (bytes, pages)
            }
            entry => unreachable!("{entry:?}: next_region announced a checkpoint here"),
        };
        let truncated =
            |log: &LogReader| LogError::Truncated { offset: log.offset(), natural_exits };
        for _page in 0..pages {
            match self.log.consume_entry()? {
                Some(Entry::Page { number, bytes }) => {
                    self.verifier.page(number, &bytes).map_err(fault)?;
                }
                None => return Err(truncated(&self.log)),
                entry => unreachable!("{entry:?}: the sequence checker requires a page here"),
            }
        }
        let digest = match self.log.consume_entry()? {
            Some(Entry::CheckpointEnd { digest }) => digest,
            None => return Err(truncated(&self.log)),
            entry => unreachable!("{entry:?}: the sequence checker requires the end here"),
        };
        let (begin, _length) = logchan::entry_codec::decode(&begin).expect("it was encoded above");
        self.verifier.checkpoint(&begin, Some(digest)).map_err(fault)
    }
}

impl DeviceBoundary for Replayer {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.ask(Verifier::clock)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.ask(Verifier::wall_clock)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        self.ask(|verifier, log| verifier.entropy(log, bytes))
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.ask(|verifier, log| verifier.output(log, frame))
    }

    /// Discards the byte: console output was shown when it was recorded.
    fn console_output(&mut self, _byte: u8) {}

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        let disk = request.disk;
        if usize::from(disk) >= self.log.header().disks.len() {
            return Err(SourceError::NoDisk { disk });
        }
        if let Some(disks) = &mut self.disks {
            disks.submit(request);
        }
        Ok(())
    }

    /// Does nothing: only a live boundary has statistics of it.
    fn interrupt_served(&mut self) {}
}

impl Boundary for Replayer {
    /// Does nothing: no other host needs the memory.
    fn poll_memory(
        &mut self,
        _memory: &mut dyn Memory<Error = SourceError>,
    ) -> Result<(), SourceError> {
        Ok(())
    }

    fn next_region(&mut self) -> Result<Region, SourceError> {
        self.check_stop()?;
        self.ask(Verifier::next_region)
    }

    fn reached(
        &mut self,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        self.ask(|verifier, log| verifier.reached(log, position, vcpu, exit))?;
        if self.verifier.natural_exits().is_multiple_of(PROGRESS_EXITS) {
            (self.on_progress)(self.log.offset());
        }
        Ok(())
    }

    fn exit_handled(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn next_input(&mut self, _capacity: &DeviceCapacity) -> Result<Option<Input<'_>>, SourceError> {
        let taken = self.ask(Verifier::next_input)?;
        if let Some(TakenInput::Disk(logged)) = taken {
            return self.disk_done(logged).map(Some);
        }
        Ok(taken.map(|taken| self.verifier.input(taken)))
    }

    fn wait(&mut self, _capacity: &DeviceCapacity) -> Result<Waited, SourceError> {
        match self.ask(Verifier::halted)? {
            true => Ok(Waited::Poll),
            false => Ok(Waited::End),
        }
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), SourceError> {
        self.ask(|verifier, log| verifier.interrupt(log, vector))
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

    /// Resumes: the log says that this region ends in a window that is exact.
    fn window_at_cpl0(&mut self) -> Result<StopAction, SourceError> {
        Ok(StopAction::Resume)
    }

    /// Always a divergence: the log has the guest continue, or there would have been nothing to run.
    fn fatal(
        &mut self,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Result<(), SourceError> {
        Err(SourceError::Diverged(self.verifier.fatal(&mut self.log, registers, exit)))
    }

    fn keeps_checkpoints(&self) -> bool {
        false
    }

    fn checkpoint(&mut self, _image: &dyn CheckpointImage) -> Result<(), SourceError> {
        unreachable!("a replay keeps no checkpoints")
    }

    fn take_checkpoint(&mut self) -> Result<Image, SourceError> {
        Ok(self.read_checkpoint().map_err(HostError::from)?)
    }

    /// Does nothing: there is no peer.
    fn keepalive(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Does nothing: only a pair measures checkpoints.
    fn applied(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn end(&mut self, end: &EndState) -> Result<(), SourceError> {
        self.ask(|verifier, log| verifier.end(log, end))
    }
}
