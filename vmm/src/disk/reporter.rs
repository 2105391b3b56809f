//! [`Reporter`]: passes completed requests from the thread of a disk to the vCPU thread.

use super::request::{Completed, Request};
use crate::kvm::kick::Kicker;
use crossbeam::channel::Sender;
use replication::boundary::DiskStatus;
use std::sync::{Arc, OnceLock};

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
    kick: Kick,
    /// Requests were completed since the last kick.
    must_kick: bool,
}

impl Reporter {
    /// Creates the reporter of the disk with index `disk`.
    pub(super) fn new(disk: u8, completed: Sender<Completed>, kick: Kick) -> Reporter {
        Reporter { disk, completed, kick, must_kick: false }
    }

    /// Reports that `request` ended with `status`. A [kick](Reporter::kick) must follow.
    pub(super) fn completed(&mut self, request: Request, status: DiskStatus) {
        let Request { number, operation, buffer, .. } = request;
        // Nobody takes it when the VM has ended.
        let _ =
            self.completed.send(Completed { disk: self.disk, number, operation, status, buffer });
        self.must_kick = true;
    }

    /// Kicks the vCPU thread if something was reported since the last time.
    pub(super) fn kick(&mut self) {
        if std::mem::take(&mut self.must_kick) {
            self.kick.kick();
        }
    }
}
