//! [`Reporter`]: passes completed requests from the thread of a disk to the vCPU thread.

use super::buffers::Buffer;
use super::copy::{Contents, CopyAnswer, CopyResult};
use super::request::{Completed, Origin, Request};
use crate::kvm::kick::Kicker;
use crossbeam::channel::Sender;
use replication::boundary::{DiskOperation, DiskStatus};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::xxh3_128;

/// Whom the threads of the disks kick when a request is complete: the thread that called [`Kick::attend`], if any.
#[derive(Clone, Debug, Default)]
pub struct Kick(Arc<OnceLock<Kicker>>);

impl Kick {
    /// The calling thread runs the machine: it is kicked from here on.
    pub fn attend(&self) {
        let _ = self.0.set(Kicker::of_this_thread());
    }

    fn kick(&self) {
        if let Some(kicker) = self.0.get() {
            kicker.kick();
        }
    }
}

/// Where the thread of one disk reports to.
#[derive(Debug)]
pub(super) struct Reporter {
    disk: u8,
    completed: Sender<Completed>,
    copied: Sender<CopyAnswer>,
    kick: Kick,
    /// Requests were completed since the last kick.
    must_kick: bool,
}

impl Reporter {
    /// Creates the reporter of the disk with index `disk`.
    pub(super) fn new(
        disk: u8,
        (completed, copied): (Sender<Completed>, Sender<CopyAnswer>),
        kick: Kick,
    ) -> Reporter {
        Reporter { disk, completed, copied, kick, must_kick: false }
    }

    /// Reports that `request` ended with `status`. A [kick](Reporter::kick) must follow.
    pub(super) fn completed(&mut self, request: Request, status: DiskStatus) {
        let Request { origin, operation, buffer, .. } = request;
        let disk = self.disk;
        // Nobody takes it when the VM has ended.
        match origin {
            Origin::Guest { number } => {
                let completed = Completed { disk, number, operation, status, buffer };
                let _ = self.completed.send(completed);
            }
            Origin::Copy { tag } => {
                let result = copy_result(operation, status, &buffer);
                let _ = self.copied.send(CopyAnswer { disk, tag, operation, result, buffer });
            }
        }
        self.must_kick = true;
    }

    /// A superblock was stored, or could not be. A [kick](Reporter::kick) must follow.
    pub(super) fn kept(&mut self) {
        self.must_kick = true;
    }

    /// Kicks the vCPU thread if something was reported since the last time.
    pub(super) fn kick(&mut self) {
        if std::mem::take(&mut self.must_kick) {
            self.kick.kick();
        }
    }
}

/// Returns what a copy learns of its request. The vCPU thread is spared the look at the contents.
fn copy_result(operation: DiskOperation, status: DiskStatus, buffer: &Buffer) -> CopyResult {
    match (status, operation) {
        (DiskStatus::Failed, _) => CopyResult::Failed,
        (DiskStatus::Done, DiskOperation::Read) => CopyResult::Read {
            digest: xxh3_128(buffer.bytes()),
            contents: Contents::of(buffer.bytes()),
        },
        (
            DiskStatus::Done,
            DiskOperation::Write
            | DiskOperation::Flush
            | DiskOperation::Discard
            | DiskOperation::WriteZeroes,
        ) => CopyResult::Done,
    }
}
