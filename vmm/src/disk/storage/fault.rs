//! [`Faulty`]: a storage with faults, for tests.

use super::{Spare, Storage};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong from now on.
#[derive(Debug, Default)]
pub(in crate::disk) struct Plan {
    /// Error of every read.
    pub(in crate::disk) read_error: Option<i32>,
    /// Error of every write, discard and writing of zeros.
    pub(in crate::disk) write_error: Option<i32>,
    /// Error of every flush.
    pub(in crate::disk) flush_error: Option<i32>,
    /// How long each operation takes in addition.
    pub(in crate::disk) delay: Duration,
}

/// A change that is not stable yet.
#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Zero(Range<u64>),
}

/// A storage that fails as its [`Plan`] says, and has a volatile cache: changes reach the storage below at a flush. A
/// power cut is its drop.
pub(in crate::disk) struct Faulty<S> {
    inner: S,
    plan: Arc<Mutex<Plan>>,
    cache: Vec<Change>,
}

impl<S: Storage> Faulty<S> {
    /// Wraps `inner`. Returns the plan, to change it while the storage is used.
    pub(in crate::disk) fn new(inner: S) -> (Faulty<S>, Arc<Mutex<Plan>>) {
        let plan = Arc::default();
        (Faulty { inner, plan: Arc::clone(&plan), cache: Vec::new() }, plan)
    }

    fn pass(&self, error: impl Fn(&Plan) -> Option<i32>) -> io::Result<()> {
        let (error, delay) = {
            let plan = self.plan.lock().unwrap();
            (error(&plan), plan.delay)
        };
        std::thread::sleep(delay);
        error.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

impl<S: Storage> Storage for Faulty<S> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.pass(|plan| plan.read_error)?;
        self.inner.read(offset, bytes)?;
        let range = offset..offset + bytes.len() as u64;
        for change in &self.cache {
            let at = match change {
                Change::Write(at, data) => *at..at + data.len() as u64,
                Change::Zero(at) => at.clone(),
            };
            let (start, end) = (at.start.max(range.start), at.end.min(range.end));
            if start >= end {
                continue;
            }
            let part = &mut bytes[(start - offset) as usize..(end - offset) as usize];
            match change {
                Change::Write(at, data) => {
                    part.copy_from_slice(&data[(start - at) as usize..(end - at) as usize]);
                }
                Change::Zero(_) => part.fill(0),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pass(|plan| plan.write_error)?;
        self.cache.push(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>, _spare: Spare) -> io::Result<()> {
        self.pass(|plan| plan.write_error)?;
        self.cache.push(Change::Zero(range));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass(|plan| plan.flush_error)?;
        for change in self.cache.drain(..) {
            match change {
                Change::Write(offset, bytes) => self.inner.write(offset, &bytes)?,
                Change::Zero(range) => self.inner.zero(range, Spare::GiveBack)?,
            }
        }
        self.inner.flush()
    }

    fn next_data(&mut self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size();
        Ok((from < size).then_some(from..size))
    }
}
