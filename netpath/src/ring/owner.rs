//! Which thread may use a ring, and how it waits.

use std::io;
use std::thread::{self, ThreadId};

use super::core::Core;
use crate::error::PortError;
use crate::sys::signal::SignalMask;
use crate::wait::WaitPolicy;

/// The owner of a ring: nobody yet, or the thread that used it first.
pub(super) struct Owner {
    /// Interface name, for messages.
    name: String,
    thread: Option<ThreadId>,
    policy: WaitPolicy,
    mask: Option<SignalMask>,
    /// System calls made on the ring.
    pub(super) enters: u64,
}

impl Owner {
    pub(super) fn new(name: &str, policy: WaitPolicy) -> Owner {
        Owner { name: name.to_string(), thread: None, policy, mask: None, enters: 0 }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn policy(&self) -> &WaitPolicy {
        &self.policy
    }

    /// The signal mask to block with, known once the ring is claimed.
    pub(super) fn mask(&self) -> Option<&SignalMask> {
        self.mask.as_ref()
    }

    /// Makes the calling thread the owner and enables the ring; false if it has an owner already.
    pub(super) fn claim(&mut self, core: &Core) -> Result<bool, PortError> {
        if self.thread.is_some() {
            return Ok(false);
        }
        self.mask = match self.policy.wake_signal {
            Some(signal) => Some(
                SignalMask::current_without(signal)
                    .map_err(PortError::system("cannot read the signal mask"))?,
            ),
            None => None,
        };
        core.enable().map_err(PortError::system("cannot enable the io_uring"))?;
        self.thread = Some(thread::current().id());
        Ok(true)
    }

    /// Whether the calling thread may give commands to the ring.
    pub(super) fn is_here(&self) -> bool {
        self.thread.is_none_or(|owner| owner == thread::current().id())
    }

    /// A system call that neither blocks nor reports waiting: tried again when interrupted.
    pub(super) fn enter(
        &mut self,
        mut call: impl FnMut() -> io::Result<()>,
    ) -> Result<(), PortError> {
        loop {
            self.enters += 1;
            match call() {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
    }

    /// What the failure of `io_uring_enter` means.
    pub(super) fn failed(&self, error: io::Error) -> PortError {
        if error.raw_os_error() == Some(libc::EEXIST) {
            PortError::WrongThread { name: self.name.clone() }
        } else {
            PortError::System { doing: "io_uring_enter failed", source: error }
        }
    }
}
