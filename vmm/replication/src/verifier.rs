//! The verifier: compares an execution with a log, in a file or from the logging channel.
//!
//! A machine that follows a log asks the same questions as a live one. Each question has one entry of the log
//! as its answer, or one entry to compare with. An execution that does something else than the log says has
//! diverged, and the [`Divergence`] says what was expected and what was found. The
//! [`log_writer`](crate::log_writer) is the counterpart.

use crate::boundary::{DiskCompletion, DiskStatus, EndState, Input, Position, Region, VcpuDigest};
use crate::checkpoint::reader::{Begin, CheckpointReader};
use crate::checkpoint::{CheckpointFault, DeltaCache, Image};
use crate::divergence::{Divergence, Registers};
use crate::limits::LOGGED_INPUT_BYTES_MAX;
use crate::mutant::Mutants;
use crate::vcpu_parts::differing_parts;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use logchan::dump::Dump;
use logchan::entry::{Entry, PageBytes, REGISTERS, RegisterDelta};
use xxhash_rust::xxh3::xxh3_64;

/// A log that is read entry by entry.
pub trait LogCursor {
    /// Why the log cannot be read.
    type Error;

    /// Returns the next entry; `None` if there is none, or if not all of it has arrived.
    ///
    /// # Errors
    ///
    /// The log cannot be read, or is malformed.
    fn front(&mut self) -> Result<Option<Entry<'_>>, Self::Error>;

    /// Moves on to the entry after the one that [`front`](Self::front) returned.
    fn consume(&mut self);

    /// Returns the position of the next entry in the log, bytes from its beginning.
    fn position(&self) -> u64;

    /// Returns the last entries up to the next one, one line each, oldest first; as many as are still known.
    fn recent(&self) -> Vec<String>;
}

/// The answer to a question of a machine that follows a log.
#[derive(Debug)]
#[must_use]
pub enum Verdict<T> {
    /// The log agrees, and has this answer.
    Agreed(T),
    /// The log has no entry yet, or none any more.
    NoEntry,
    /// The log says otherwise.
    Diverged(Box<Divergence>),
}

/// An input that was taken from the log, and whose bytes the verifier keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenInput {
    /// See [`Input::Clock`].
    Clock {
        /// Guest time, nanoseconds.
        now_ns: u64,
    },
    /// See [`Input::Frame`].
    Frame {
        /// Length of the frame, bytes.
        length: usize,
    },
    /// See [`Input::Console`].
    Console {
        /// Number of bytes.
        length: usize,
    },
    /// See [`Input::Disk`].
    Disk(TakenDisk),
}

/// A request to a disk that is done, as a log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenDisk {
    /// Index of the disk.
    pub disk: u8,
    /// Number of the request.
    pub number: u64,
    /// How it ended.
    pub status: DiskStatus,
    /// Digest of the data of a read; otherwise 0.
    pub digest: u64,
    /// Length of the data of a read, bytes; 0 if the log does not have them.
    pub length: usize,
}

/// Compares an execution with a log.
#[derive(Debug)]
pub struct Verifier {
    /// Guest time of the last `Clock` entry, nanoseconds.
    clock_ns: u64,
    /// Registers as logged at the last exit; `None` after an exit without logged registers.
    registers: Option<[u64; REGISTERS]>,
    /// Exits that were compared.
    natural_exits: u64,
    cache: DeltaCache,
    reader: CheckpointReader,
    /// The input that the machine borrows.
    input: Box<[u8; LOGGED_INPUT_BYTES_MAX]>,
    mutants: Mutants,
}

impl Verifier {
    /// Creates the verifier of a log whose writer has a delta cache of `delta_cache_pages_max` pages.
    ///
    /// # Panics
    ///
    /// If `delta_cache_pages_max` is zero.
    pub fn new(delta_cache_pages_max: usize, mutants: Mutants) -> Verifier {
        Verifier {
            clock_ns: 0,
            registers: Some([0; REGISTERS]),
            natural_exits: 0,
            cache: DeltaCache::with_pages_max(delta_cache_pages_max),
            reader: CheckpointReader::default(),
            input: Box::new([0; LOGGED_INPUT_BYTES_MAX]),
            mutants,
        }
    }

    /// Begins another log.
    pub fn restart(&mut self) {
        self.clock_ns = 0;
        self.registers = Some([0; REGISTERS]);
        self.natural_exits = 0;
        self.cache.begin(true);
        self.reader = CheckpointReader::default();
    }

    /// The log begins with guest time `now_ns`.
    pub fn begin_clock(&mut self, now_ns: u64) {
        self.clock_ns = now_ns;
    }

    /// Returns guest time as logged last, nanoseconds.
    pub fn clock_ns(&self) -> u64 {
        self.clock_ns
    }

    /// Returns how many natural exits were compared.
    pub fn natural_exits(&self) -> u64 {
        self.natural_exits
    }

    /// Returns the divergence of an execution that did `found` where `log` has another entry, or where
    /// `expected` was due.
    pub fn divergence(
        &self,
        log: &mut impl LogCursor,
        expected: Option<String>,
        found: String,
        registers: Option<Registers>,
    ) -> Box<Divergence> {
        let (log_position, recent) = (log.position(), log.recent());
        let expected = expected.unwrap_or_else(|| match log.front() {
            Ok(Some(entry)) => Dump(&entry).to_string(),
            Ok(None) => String::from("nothing more"),
            Err(_) => String::from("bytes that are not an entry"),
        });
        let natural_exits = self.natural_exits;
        Box::new(Divergence { natural_exits, log_position, expected, found, registers, recent })
    }

    /// Consumes the next entry if `take` returns a value for it. Otherwise the execution, which did `found`,
    /// has diverged.
    fn expect<T, L: LogCursor>(
        &mut self,
        log: &mut L,
        take: impl FnOnce(&Entry<'_>) -> Option<T>,
        found: impl FnOnce() -> String,
    ) -> Result<Verdict<T>, L::Error> {
        let Some(entry) = log.front()? else { return Ok(Verdict::NoEntry) };
        match take(&entry) {
            Some(value) => {
                log.consume();
                Ok(Verdict::Agreed(value))
            }
            None => Ok(Verdict::Diverged(self.divergence(log, None, found(), None))),
        }
    }

    /// The machine is at a position and asks how the next region ends. A checkpoint is announced when its
    /// first entry is next, whether or not the rest of it has arrived.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn next_region<L: LogCursor>(&mut self, log: &mut L) -> Result<Verdict<Region>, L::Error> {
        let Some(entry) = log.front()? else { return Ok(Verdict::NoEntry) };
        Ok(Verdict::Agreed(match entry {
            Entry::Exit { .. } => Region::RunToExit,
            Entry::Window { .. } => Region::Run,
            Entry::CheckpointBegin { .. } => Region::Apply,
            Entry::End { .. } => Region::End,
            Entry::Page { .. }
            | Entry::CheckpointEnd { .. }
            | Entry::Clock { .. }
            | Entry::WallClock { .. }
            | Entry::Entropy(_)
            | Entry::Frame(_)
            | Entry::Console(_)
            | Entry::DiskDone { .. }
            | Entry::Interrupt { .. }
            | Entry::Output { .. }
            | Entry::HandOver
            | Entry::DiskCopy(_) => {
                let found = String::from("was ready to enter the guest");
                return Ok(Verdict::Diverged(self.divergence(log, None, found, None)));
            }
        }))
    }

    /// The region ended at `position` with the vCPU state `vcpu`. `exit` names the kind of exit.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn reached<L: LogCursor>(
        &mut self,
        log: &mut L,
        position: Position,
        vcpu: &VcpuDigest,
        exit: &dyn Display,
    ) -> Result<Verdict<()>, L::Error> {
        let (expected, registers) = match log.front()? {
            None => return Ok(Verdict::NoEntry),
            Some(Entry::Exit { digest, registers }) => {
                let logged = self.registers.zip(registers).map(|(old, delta)| after(&old, &delta));
                (Some((Position::Exit, digest)), logged)
            }
            Some(Entry::Window { digest }) => (Some((Position::Window, digest)), None),
            Some(
                Entry::CheckpointBegin { .. }
                | Entry::Page { .. }
                | Entry::CheckpointEnd { .. }
                | Entry::Clock { .. }
                | Entry::WallClock { .. }
                | Entry::Entropy(_)
                | Entry::Frame(_)
                | Entry::Console(_)
                | Entry::DiskDone { .. }
                | Entry::Interrupt { .. }
                | Entry::Output { .. }
                | Entry::End { .. }
                | Entry::HandOver
                | Entry::DiskCopy(_),
            ) => (None, None),
        };
        let is_exit = expected.is_some_and(|(expected, _)| expected == Position::Exit);
        self.natural_exits += u64::from(is_exit);
        if expected != Some((position, vcpu.digest)) {
            let mut found = format!("reached {exit} with digest {:016x}", vcpu.digest);
            let parts = expected
                .filter(|&(logged, _)| logged == position)
                .map(|(_, digest)| differing_parts(digest, vcpu.digest))
                .unwrap_or_default();
            if !parts.is_empty() {
                found += &format!(", which differs in {parts}");
            }
            let registers = Registers { expected: registers, found: vcpu.registers };
            return Ok(Verdict::Diverged(self.divergence(log, None, found, Some(registers))));
        }
        if is_exit {
            self.registers = registers;
        }
        log.consume();
        Ok(Verdict::Agreed(()))
    }

    /// The guest reads its clock.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn clock<L: LogCursor>(&mut self, log: &mut L) -> Result<Verdict<u64>, L::Error> {
        let clock_ns = self.clock_ns;
        let take = |entry: &Entry<'_>| {
            let Entry::Clock { advance_ns } = *entry else { return None };
            clock_ns.checked_add(advance_ns)
        };
        let verdict = self.expect(log, take, || String::from("read the guest clock"))?;
        if let Verdict::Agreed(now_ns) = verdict {
            self.clock_ns = now_ns;
        }
        Ok(verdict)
    }

    /// The guest reads the wall clock.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn wall_clock<L: LogCursor>(&mut self, log: &mut L) -> Result<Verdict<u64>, L::Error> {
        let take = |entry: &Entry<'_>| {
            let Entry::WallClock { unix_ns } = *entry else { return None };
            Some(unix_ns)
        };
        self.expect(log, take, || String::from("read the wall clock"))
    }

    /// The guest asks for entropy, which is copied to the front of `bytes`. Returns how many bytes the log has: it may
    /// be fewer than the guest asked for, but not none.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn entropy<L: LogCursor>(
        &mut self,
        log: &mut L,
        bytes: &mut [u8],
    ) -> Result<Verdict<usize>, L::Error> {
        let length = bytes.len();
        let take = |entry: &Entry<'_>| {
            let Entry::Entropy(logged) = *entry else { return None };
            let is_possible = logged.len() <= length && logged.is_empty() == (length == 0);
            is_possible.then(|| {
                bytes[..logged.len()].copy_from_slice(logged);
                logged.len()
            })
        };
        self.expect(log, take, || format!("asked for {length} bytes of entropy"))
    }

    /// The guest sends `frame`.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn output<L: LogCursor>(
        &mut self,
        log: &mut L,
        frame: &[u8],
    ) -> Result<Verdict<()>, L::Error> {
        let made = (frame.len() as u64, xxh3_64(frame));
        let take = |entry: &Entry<'_>| {
            let Entry::Output { length, digest } = *entry else { return None };
            ((u64::from(length), digest) == made).then_some(())
        };
        let found = || format!("sent a frame of {} bytes, digest {:016x}", made.0, made.1);
        self.expect(log, take, found)
    }

    /// The machine asks for the next input at this position. [`input`](Self::input) returns what was taken.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn next_input<L: LogCursor>(
        &mut self,
        log: &mut L,
    ) -> Result<Verdict<Option<TakenInput>>, L::Error> {
        let taken = match log.front()? {
            None => return Ok(Verdict::NoEntry),
            Some(Entry::Clock { .. }) => {
                return Ok(match self.clock(log)? {
                    Verdict::Agreed(now_ns) => Verdict::Agreed(Some(TakenInput::Clock { now_ns })),
                    Verdict::NoEntry => Verdict::NoEntry,
                    Verdict::Diverged(divergence) => Verdict::Diverged(divergence),
                });
            }
            Some(Entry::Frame(bytes)) => {
                self.input[..bytes.len()].copy_from_slice(bytes);
                TakenInput::Frame { length: bytes.len() }
            }
            Some(Entry::Console(bytes)) => {
                self.input[..bytes.len()].copy_from_slice(bytes);
                TakenInput::Console { length: bytes.len() }
            }
            Some(Entry::DiskDone { disk, number, status, digest, data }) => {
                self.input[..data.len()].copy_from_slice(data);
                TakenInput::Disk(TakenDisk { disk, number, status, digest, length: data.len() })
            }
            Some(
                Entry::Exit { .. }
                | Entry::Window { .. }
                | Entry::CheckpointBegin { .. }
                | Entry::Page { .. }
                | Entry::CheckpointEnd { .. }
                | Entry::WallClock { .. }
                | Entry::Entropy(_)
                | Entry::Interrupt { .. }
                | Entry::Output { .. }
                | Entry::End { .. }
                | Entry::HandOver
                | Entry::DiskCopy(_),
            ) => return Ok(Verdict::Agreed(None)),
        };
        log.consume();
        Ok(Verdict::Agreed(Some(taken)))
    }

    /// Returns the input that [`next_input`](Self::next_input) has taken last.
    pub fn input(&self, taken: TakenInput) -> Input<'_> {
        match taken {
            TakenInput::Clock { now_ns } => Input::Clock { now_ns },
            TakenInput::Frame { length } => Input::Frame(&self.input[..length]),
            TakenInput::Console { length } => Input::Console(&self.input[..length]),
            TakenInput::Disk(TakenDisk { disk, number, status, digest: _, length }) => {
                let data = &self.input[..length];
                Input::Disk(DiskCompletion { disk, number, status, data })
            }
        }
    }

    /// The guest halted, no interrupt is pending, and the machine has asked for inputs. Returns whether the
    /// log continues with an input; otherwise it ends here.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn halted<L: LogCursor>(&mut self, log: &mut L) -> Result<Verdict<bool>, L::Error> {
        match log.front()? {
            None => Ok(Verdict::NoEntry),
            Some(
                Entry::Clock { .. } | Entry::Frame(_) | Entry::Console(_) | Entry::DiskDone { .. },
            ) => Ok(Verdict::Agreed(true)),
            Some(Entry::End { .. }) => Ok(Verdict::Agreed(false)),
            Some(
                Entry::Exit { .. }
                | Entry::Window { .. }
                | Entry::CheckpointBegin { .. }
                | Entry::Page { .. }
                | Entry::CheckpointEnd { .. }
                | Entry::WallClock { .. }
                | Entry::Entropy(_)
                | Entry::Interrupt { .. }
                | Entry::Output { .. }
                | Entry::HandOver
                | Entry::DiskCopy(_),
            ) => {
                let found = String::from("halted with no interrupt pending");
                Ok(Verdict::Diverged(self.divergence(log, None, found, None)))
            }
        }
    }

    /// The machine injects `vector` at this position.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn interrupt<L: LogCursor>(
        &mut self,
        log: &mut L,
        injected: u8,
    ) -> Result<Verdict<()>, L::Error> {
        let take = |entry: &Entry<'_>| {
            let Entry::Interrupt { vector } = *entry else { return None };
            (vector == injected).then_some(())
        };
        self.expect(log, take, || format!("injected interrupt vector {injected:#x}"))
    }

    /// The guest cannot continue. That is a divergence: the log has it continue, or there would have been
    /// nothing to run.
    pub fn fatal(
        &self,
        log: &mut impl LogCursor,
        registers: &[u64; REGISTERS],
        exit: &dyn Display,
    ) -> Box<Divergence> {
        let registers = Registers { expected: None, found: *registers };
        self.divergence(log, None, format!("stopped in {exit}"), Some(registers))
    }

    /// The machine stopped in the state `end`.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn end<L: LogCursor>(
        &mut self,
        log: &mut L,
        end: &EndState,
    ) -> Result<Verdict<()>, L::Error> {
        let logged = match log.front()? {
            None => return Ok(Verdict::NoEntry),
            Some(Entry::End { natural_exits, interrupts, memory_digest, state_digest }) => {
                EndState { natural_exits, interrupts, memory_digest, state_digest }
            }
            Some(_) => {
                let found = String::from("ended");
                return Ok(Verdict::Diverged(self.divergence(log, None, found, None)));
            }
        };
        if logged == *end {
            log.consume();
            return Ok(Verdict::Agreed(()));
        }
        let (expected, found) = (Some(format!("{logged:x?}")), format!("ended in {end:x?}"));
        Ok(Verdict::Diverged(self.divergence(log, expected, found, None)))
    }

    #[cfg(test)]
    pub(crate) fn cache_mut(&mut self) -> &mut DeltaCache {
        &mut self.cache
    }

    /// A checkpoint begins. Those of a session after its first one need no announcement.
    pub fn begin_checkpoint(&mut self, full: bool) {
        self.cache.begin(full);
    }

    /// Returns how many pages of the current checkpoint were read; one that was read twice counts twice.
    pub fn pages(&self) -> u32 {
        self.reader.count()
    }

    /// Keeps a page of the current checkpoint.
    ///
    /// # Errors
    ///
    /// The page's delta does not fit.
    pub fn page(&mut self, number: u64, bytes: &PageBytes<'_>) -> Result<(), CheckpointFault> {
        self.reader.page(number, bytes, &mut self.cache, self.mutants)
    }

    /// Returns the complete checkpoint that `begin`, a [`Entry::CheckpointBegin`], announced. Its pages were
    /// passed to [`page`](Self::page). `digest` is the digest that ends it; `None` skips the comparison
    /// (planted bug only).
    ///
    /// # Errors
    ///
    /// The states do not fit, or the digest does not match.
    ///
    /// # Panics
    ///
    /// If `begin` is another entry.
    pub fn checkpoint(
        &mut self,
        begin: &Entry<'_>,
        digest: Option<u64>,
    ) -> Result<Image, CheckpointFault> {
        let Entry::CheckpointBegin { full, vcpu, devices, pages: _ } = *begin else {
            panic!("{begin:?} begins no checkpoint");
        };
        let begin = Begin { full, vcpu, devices };
        let image = self.reader.finish(&begin, &mut self.cache, digest)?;
        // The deltas that follow are relative to this state.
        self.cache.begin(false);
        Ok(image)
    }
}

/// Returns the registers `old` after the change `delta`.
fn after(old: &[u64; REGISTERS], delta: &RegisterDelta) -> [u64; REGISTERS] {
    core::array::from_fn(|index| old[index] ^ delta.xor[index])
}
