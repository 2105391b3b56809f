//! The thread of a disk whose [`Storage`] returns when it is done: one request after the other, in the order of their
//! numbers.

use super::faults::Faults;
use super::reporter::Reporter;
use super::request::Request;
use super::storage::{Spare, Storage};
use crate::sandbox::{self, Task};
use crossbeam::channel::Receiver;
use replication::boundary::DiskOperation;
use std::io;

/// The thread and what it owns.
pub(super) struct StorageThread {
    pub(super) storage: Box<dyn Storage>,
    pub(super) requests: Receiver<Request>,
    pub(super) faults: Faults,
    pub(super) reporter: Reporter,
}

impl StorageThread {
    /// Executes requests until their sender is gone.
    pub(super) fn run(mut self) {
        sandbox::enter(Task::Disk);
        while let Ok(mut request) = self.requests.recv() {
            let operation = request.operation;
            let status = match self.faults.refuse(operation) {
                true => self.faults.refused(),
                false => {
                    let result = execute(&mut *self.storage, &mut request);
                    self.faults.status(operation, result)
                }
            };
            self.reporter.completed(request, status);
            self.reporter.kick();
        }
        self.faults.ended(self.storage.flush());
    }
}

fn execute(storage: &mut dyn Storage, request: &mut Request) -> io::Result<()> {
    let range = request.range.clone();
    match request.operation {
        DiskOperation::Read => storage.read(range.start, request.buffer.bytes_mut()),
        DiskOperation::Write => storage.write(range.start, request.buffer.bytes()),
        DiskOperation::Flush => storage.flush(),
        DiskOperation::Discard => storage.zero(range, Spare::GiveBack),
        DiskOperation::WriteZeroes => storage.zero(range, Spare::Keep),
    }
}
