//! A backup's sessions: a primary is met, its memory arrives, and it is lost.

use super::engine::Replica;
use super::event::{Loss, ReplicaEvent};
use super::role::{Backup, Halt, Role};
use super::session::Malformed;
use crate::checkpoint::CheckpointFault;
use crate::divergence::Divergence;
use crate::mutant::Mutant;
use alloc::boxed::Box;
use alloc::string::ToString;
use core::fmt::Display;
use logchan::entry::Entry;
use logchan::time::Time;

/// Why received bytes are not the checkpoint that must come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Fault(#[from] CheckpointFault),
    #[error("a page beyond the guest's memory, number {0}")]
    PageNumber(u64),
    #[error("a checkpoint of {0} pages, which is more than guest memory has")]
    PageCount(u32),
    #[error("a full checkpoint in the middle of the log, or a partial one at its beginning")]
    Kind,
    #[error("guest addresses that do not decode")]
    Addresses,
}

impl Replica {
    /// Begins to receive the memory of a primary that was met.
    pub(super) fn start_syncing(&mut self) {
        let endpoint = self.session.endpoint().expect("a primary was met");
        self.term = endpoint.term().unwrap_or(self.term);
        self.term_owner = endpoint.peer().map_or(self.term_owner, |peer| peer.identity.claimant);
        self.session.begin_log(self.commit.watermark());
        self.commit.clear();
        self.commit.log_begins();
        self.disks.sync_begins();
        self.disks.forget_machine();
        self.received = None;
        self.verifier.restart();
        self.role = Role::Backup(Backup::Syncing);
    }

    /// Takes received memory out of the channel, and completes the sync once all of it is here. The sync
    /// is complete when the last byte has *arrived*, whether or not the machine has applied it: the
    /// primary relies on that as soon as it sees the acknowledgement.
    pub(super) fn receive_sync(&mut self, now: Time) {
        if !matches!(self.role, Role::Backup(Backup::Syncing)) {
            return;
        }
        let taken = self.receive_pages(u32::MAX).and_then(|()| self.finish_sync());
        match taken {
            Ok(true) => {
                self.role = Role::Backup(Backup::Following);
                self.emit(ReplicaEvent::Following);
            }
            Ok(false) => {}
            Err(error) => self.leave_malformed(now, "a checkpoint of the whole VM", &error),
        }
    }

    /// Moves pages from the bulk lane to the verifier, until it holds `up_to` pages or the lane is empty.
    fn receive_pages(&mut self, up_to: u32) -> Result<(), ReceiveError> {
        let memory_pages = self.config.memory_pages;
        let Self { session, verifier, .. } = self;
        session.take_pages(up_to.saturating_sub(verifier.pages()), |number, bytes| {
            if number >= memory_pages {
                return Err(ReceiveError::PageNumber(number));
            }
            Ok(verifier.page(number, bytes)?)
        })
    }

    /// Takes the guest time and the closing checkpoint of the sync, with which a session's log begins.
    /// Returns whether they and all pages have arrived.
    fn finish_sync(&mut self) -> Result<bool, ReceiveError> {
        let Some((first, clock_bytes)) = self.session.entry_at(0)? else { return Ok(false) };
        let Entry::Clock { advance_ns } = first else {
            return Err(Malformed::Other("clock").into());
        };
        if !self.receive_checkpoint(clock_bytes, true)? {
            return Ok(false);
        }
        let image = self.received.as_mut().expect("a checkpoint was received");
        let split = self.announcements.split_addresses(&mut image.devices);
        split.map_err(|_| ReceiveError::Addresses)?;
        self.verifier.begin_clock(advance_ns);
        Ok(true)
    }

    /// Takes the incremental checkpoint at the front of the log if all of it has arrived, and returns
    /// whether it did. [`take_checkpoint`](Self::take_checkpoint) then returns it.
    pub(super) fn receive_incremental(&mut self) -> Result<bool, ReceiveError> {
        if let Some((Entry::CheckpointBegin { pages, .. }, _)) = self.session.entry_at(0)? {
            if u64::from(pages) > self.config.memory_pages {
                return Err(ReceiveError::PageCount(pages));
            }
            self.receive_pages(pages)?;
        }
        self.receive_checkpoint(0, false)
    }

    /// Takes the checkpoint `offset` bytes behind the front of the log, and the log up to its end, if all of
    /// it has arrived; returns whether it did. `sync`: it must be a full checkpoint, that is, the closing one
    /// of a sync.
    fn receive_checkpoint(&mut self, offset: usize, sync: bool) -> Result<bool, ReceiveError> {
        let Self { session, verifier, .. } = self;
        let Some((begin, begin_bytes)) = session.entry_at(offset)? else { return Ok(false) };
        let Entry::CheckpointBegin { full, pages, .. } = begin else {
            return Err(Malformed::Other("checkpoint-begin").into());
        };
        if full != sync {
            return Err(ReceiveError::Kind);
        }
        let Some((end, end_bytes)) = session.entry_at(offset + begin_bytes)? else {
            return Ok(false);
        };
        let Entry::CheckpointEnd { digest } = end else {
            return Err(Malformed::Other("checkpoint-end").into());
        };
        if verifier.pages() < pages {
            return Ok(false);
        }
        if verifier.pages() > pages {
            return Err(CheckpointFault::Pages { announced: pages }.into());
        }
        self.received = Some(verifier.checkpoint(&begin, Some(digest))?);
        self.session.consume_bytes(offset + begin_bytes + end_bytes);
        Ok(true)
    }

    /// Handles the death of the primary.
    pub(super) fn primary_lost(&mut self, now: Time, loss: Loss) {
        let Role::Backup(backup) = &self.role else { return };
        match backup {
            Backup::Following => {
                self.role = Role::Backup(Backup::Finishing);
                self.emit(loss.of_primary(true));
            }
            Backup::Syncing => {
                self.emit(loss.of_primary(false));
                self.seek(now);
            }
            Backup::Seeking | Backup::Leaving => self.seek(now),
            Backup::Finishing | Backup::Claiming(_) => {}
        }
    }

    /// Handles the primary's Bye: the VM has stopped.
    pub(super) fn primary_stopped(&mut self, now: Time) {
        let Role::Backup(backup) = &self.role else { return };
        match backup {
            Backup::Syncing | Backup::Following | Backup::Leaving => {
                self.halt(Halt::PrimaryStopped);
                // Keep the endpoint until then: the primary may repeat its Bye, to have it confirmed.
                self.session.renew_at(now + self.config.timing.silence);
            }
            Backup::Seeking | Backup::Finishing | Backup::Claiming(_) => {}
        }
    }

    /// Drops the VM's state and waits for a primary.
    pub(super) fn seek(&mut self, now: Time) {
        self.role = Role::Backup(Backup::Seeking);
        self.disks.forget_machine();
        self.invalidated = true;
        self.announcements.stop();
        self.commit.clear();
        self.replay_out.end();
        self.received = None;
        if !self.planted(Mutant::KeepPassedFrames) {
            // They are the new primary's.
            self.passed.clear();
        }
        self.renew(now);
    }

    /// Leaves the session because this host's VM diverged from the primary's. Sends Bye, so that the
    /// primary knows that this host will not take over; a new session syncs the memory again.
    pub(super) fn leave(&mut self, now: Time, divergence: Box<Divergence>) {
        self.stats.divergences += 1;
        self.disks.distrust();
        self.divergence = Some(divergence);
        self.emit(ReplicaEvent::Diverged);
        self.leave_session(now);
    }

    /// Leaves the session because this host can't follow the log; the event that says why was emitted.
    pub(super) fn leave_session(&mut self, now: Time) {
        if !self.session.is_open() {
            // The primary is dead, and no host holds the VM's true state.
            return self.halt_without_bye(Halt::Diverged);
        }
        self.role = Role::Backup(Backup::Leaving);
        self.disks.forget_machine();
        self.invalidated = true;
        self.commit.clear();
        self.received = None;
        self.session.bye_or_close(now);
    }

    /// Leaves the session because the log has `found` where `expected` was due.
    pub(super) fn leave_malformed(&mut self, now: Time, expected: &str, found: &dyn Display) {
        let (expected, found) = (expected.to_string(), found.to_string());
        let divergence = self.verifier.divergence(&mut self.session, Some(expected), found, None);
        self.leave(now, divergence);
    }
}
