//! [`Reporter`]: passes completed requests from the thread of a disk to the vCPU thread.

use super::buffers::Buffer;
use super::copy::{Contents, CopyAnswer, CopyResult};
use super::request::{Completed, Origin, Request};
use crate::kvm::kick::Kicker;
use crossbeam::channel::Sender;
use replication::boundary::{DiskOperation, DiskStatus};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::xxh3_128;

/// Whom the threads of the disks kick when a request is complete: the thread that called [`Kick::attend`], if any. One that
/// says when it waits ([`Kick::waiting`]) is kicked only then: a guest that runs would make an exit, and get nothing
/// before its next one or its deadline.
#[derive(Clone, Debug, Default)]
pub struct Kick(Arc<Attention>);

#[derive(Debug, Default)]
struct Attention {
    kicker: OnceLock<Kicker>,
    /// The thread has said when it waits.
    says: AtomicBool,
    waits: AtomicBool,
}

/// Guard: the thread that attends waits, or is about to.
#[derive(Debug)]
pub struct Waiting(Arc<Attention>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waits.store(false, Ordering::Relaxed);
    }
}

impl Kick {
    /// The calling thread runs the machine: it is kicked from here on.
    pub fn attend(&self) {
        let _ = self.0.kicker.set(Kicker::of_this_thread());
    }

    /// Says that the calling thread is about to wait. It must look for completions once more before it does: those that
    /// came before have not kicked it. From the first time on, it is kicked only while such a guard exists.
    pub fn waiting(&self) -> Waiting {
        self.0.waits.store(true, Ordering::Relaxed);
        self.0.says.store(true, Ordering::Relaxed);
        // Either the thread of a disk sees that this one waits, or this one sees the completion.
        fence(Ordering::SeqCst);
        Waiting(Arc::clone(&self.0))
    }

    fn kick(&self) {
        fence(Ordering::SeqCst);
        let is_running =
            self.0.says.load(Ordering::Relaxed) && !self.0.waits.load(Ordering::Relaxed);
        if let Some(kicker) = self.0.kicker.get()
            && !is_running
        {
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
