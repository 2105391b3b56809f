//! [`Faults`]: what has gone wrong on a disk while the VM runs, and what follows from it.

use super::request::Origin;
use super::shared::{Gate, not_locked};
use replication::boundary::{DiskOperation, DiskStatus};
use replication::replica::SharedUse;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most different reasons of failures that are reported.
const REASONS_MAX: usize = 16;

/// The failures of one disk.
///
/// - A request that fails ends with [`DiskStatus::Failed`], is counted if it is the guest's, and each reason is reported
///   once.
/// - After a flush that failed, every other one fails, too: the kernel reports an error of its write-back once, and
///   forgets the data.
/// - An image that has become shorter fails every request from then on: what was cut off is lost, and a write
///   would make the file long again.
#[derive(Debug)]
pub(super) struct Faults {
    /// The disk in messages.
    name: String,
    /// Requests that failed.
    count: Arc<AtomicU64>,
    flush_failed: bool,
    truncated: bool,
    reported: Vec<(&'static str, DiskOperation, Option<i32>)>,
    /// The lock of an image that both hosts of a pair share.
    gate: Option<Gate>,
}

impl Faults {
    /// There were none. `count` counts the requests that fail.
    pub(super) fn new(name: String, count: Arc<AtomicU64>) -> Faults {
        let reported = Vec::new();
        Faults { name, count, flush_failed: false, truncated: false, reported, gate: None }
    }

    /// Makes requests fail while this host does not have the lock of `gate`.
    pub(super) fn add_gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// This host uses the image, or the other one does ([`Gate::set`]).
    pub(super) fn share(&mut self, shared: SharedUse) {
        if let Some(gate) = &mut self.gate {
            gate.set(shared, &self.name);
        }
    }

    /// Returns whether `operation` can't succeed, whatever the disk does.
    pub(super) fn refuse(&mut self, operation: DiskOperation) -> bool {
        if self.gate.as_ref().is_some_and(|gate| !gate.is_locked()) {
            self.report("for the guest", operation, &not_locked());
            return true;
        }
        self.truncated || self.flush_failed && operation == DiskOperation::Flush
    }

    /// Returns the status of a request that ended with `result`, and remembers and reports a failure.
    pub(super) fn status(
        &mut self,
        origin: Origin,
        operation: DiskOperation,
        result: io::Result<()>,
    ) -> DiskStatus {
        let Err(error) = result else { return DiskStatus::Done };
        self.flush_failed |= operation == DiskOperation::Flush;
        self.truncated |= error.kind() == io::ErrorKind::UnexpectedEof;
        // Whether the guest learns of it is not known here: a pair may hand the VM over before.
        let whose = match origin {
            Origin::Guest { .. } => "for the guest",
            Origin::Copy { .. } => "for a copy",
        };
        self.report(whose, operation, &error);
        self.refused(origin)
    }

    /// Reports each reason once.
    fn report(&mut self, whose: &'static str, operation: DiskOperation, error: &io::Error) {
        let reason = (whose, operation, error.raw_os_error());
        if !self.reported.contains(&reason) && self.reported.len() < REASONS_MAX {
            self.reported.push(reason);
            let (name, operation) = (&self.name, text(operation));
            tracing::warn!("{name}: {operation} {whose} failed: {error}");
        }
    }

    /// Reports the result of the flush at the end of the VM, of which no guest is told.
    pub(super) fn ended(&self, flushed: io::Result<()>) {
        if let Err(error) = flushed {
            let name = &self.name;
            tracing::warn!("{name}: what was written since the last flush can be lost: {error}");
        }
    }

    /// Returns the status of a request that was refused.
    pub(super) fn refused(&self, origin: Origin) -> DiskStatus {
        match origin {
            Origin::Guest { .. } => {
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            Origin::Copy { .. } => {}
        }
        DiskStatus::Failed
    }
}

/// The error of an image that is shorter than it was.
pub(super) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the image has become shorter")
}

fn text(operation: DiskOperation) -> &'static str {
    match operation {
        DiskOperation::Read => "a read",
        DiskOperation::Write => "a write",
        DiskOperation::Flush => "a flush",
        DiskOperation::Discard => "a discard",
        DiskOperation::WriteZeroes => "writing zeros",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DiskOperation::{Flush, Read, Write};

    const GUEST: Origin = Origin::Guest { number: 1 };

    fn faults() -> Faults {
        Faults::new("disk0".into(), Arc::default())
    }

    #[test]
    fn failure_is_counted_and_concerns_its_request_alone() {
        let mut faults = faults();
        assert_eq!(faults.status(GUEST, Read, Ok(())), DiskStatus::Done);
        for _ in 0..3 {
            let full = Err(io::Error::from_raw_os_error(libc::ENOSPC));
            assert_eq!(faults.status(GUEST, Write, full), DiskStatus::Failed);
        }
        assert!(!faults.refuse(Write) && !faults.refuse(Flush));
        assert_eq!((faults.count.load(Ordering::Relaxed), faults.reported.len()), (3, 1));
    }

    #[test]
    fn flush_after_a_failed_one_fails() {
        let mut faults = faults();
        let _ = faults.status(GUEST, Flush, Err(io::Error::from_raw_os_error(libc::EIO)));
        assert!(faults.refuse(Flush) && !faults.refuse(Read) && !faults.refuse(Write));
    }

    #[test]
    fn everything_fails_after_the_image_has_become_shorter() {
        let mut faults = faults();
        let copy = Origin::Copy { tag: 0 };
        let _ = faults.status(copy, Read, Err(truncated()));
        assert_eq!(faults.count.load(Ordering::Relaxed), 0, "the guest has not seen it");
        assert!(faults.refuse(Flush) && faults.refuse(Read) && faults.refuse(Write));
    }
}
