//! The thread of a disk whose [`Storage`] returns when it is done: one request after the other, in the order of their
//! numbers.

use super::faults::Faults;
use super::keeper::Keeper;
use super::reporter::Reporter;
use super::request::{Origin, Request, ToDisk, modifies};
use super::storage::{Spare, Storage};
use super::superblock::Superblock;
use crate::sandbox::{self, Task};
use crossbeam::channel::Receiver;
use replication::boundary::DiskOperation;
use std::io;

/// The thread and what it owns.
pub(super) struct StorageThread {
    pub(super) storage: Box<dyn Storage>,
    pub(super) requests: Receiver<ToDisk>,
    pub(super) faults: Faults,
    pub(super) reporter: Reporter,
    pub(super) keeper: Option<Keeper>,
}

impl StorageThread {
    /// Executes requests until their sender is gone. Returns the contents of the disk.
    pub(super) fn run(mut self) -> Box<dyn Storage> {
        sandbox::enter(Task::Disk);
        while let Ok(message) = self.requests.recv() {
            let mut request = match message {
                ToDisk::Request(request) => request,
                ToDisk::Keep(superblock) => {
                    keep(self.keeper.as_mut(), *superblock);
                    self.reporter.kept();
                    self.reporter.kick();
                    continue;
                }
                ToDisk::Share(shared) => {
                    self.faults.share(shared);
                    continue;
                }
            };
            let (origin, operation) = (request.origin, request.operation);
            let status = match self.faults.refuse(operation) {
                true => self.faults.refused(origin),
                false => {
                    let announced = announce(self.keeper.as_mut(), &request);
                    let result = announced.and_then(|()| execute(&mut *self.storage, &mut request));
                    self.faults.status(origin, operation, result)
                }
            };
            self.reporter.completed(request, status);
            self.reporter.kick();
        }
        self.faults.ended(self.storage.flush());
        self.storage
    }
}

/// Replaces the superblock.
pub(super) fn keep(keeper: Option<&mut Keeper>, superblock: Superblock) {
    if let Some(keeper) = keeper {
        keeper.keep(superblock);
    }
}

/// Makes sure that the superblock has the extents that `request` of the guest is going to change.
pub(super) fn announce(keeper: Option<&mut Keeper>, request: &Request) -> io::Result<()> {
    match (keeper, request.origin) {
        (Some(keeper), Origin::Guest { .. }) if modifies(request.operation) => {
            keeper.before_change(&request.range)
        }
        // While an image is copied to, all of it may differ.
        (Some(keeper), Origin::Copy { .. }) if modifies(request.operation) => keeper.check(),
        (Some(_) | None, Origin::Guest { .. } | Origin::Copy { .. }) => Ok(()),
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
