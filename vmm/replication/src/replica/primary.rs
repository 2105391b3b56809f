//! A primary's sessions: a backup attaches, receives the memory, and is lost.

use super::claim::Claim;
use super::converge::{AfterPass, CopyProgress, GuestShare};
use super::disk::DISK_HOLD_MAX;
use super::engine::Replica;
use super::event::{Loss, ReplicaEvent};
use super::guard::Ignored;
use super::precopy::{DiskProgress, Precopy};
use super::resync::SyncLoss;
use super::role::{AfterHandover, HandingOver, Losing, Primary, Protected, Role};
use super::step::CopyRequest;
use crate::checkpoint::delta_cache;
use crate::limits::PAGE_ENTRY_BYTES_MAX;
use crate::log_writer::LogSink;
use crate::mutant::Mutant;
use crate::witness::ClaimCause;
use alloc::vec::Vec;
use logchan::channel::Channel;
use logchan::entry::{Entry, PageBytes};
use logchan::entry_codec::encoded_length;
use logchan::ids::Lane;
use logchan::limits::PAGE_BYTES;
use logchan::time::Time;

impl Replica {
    /// Begins the sync of a backup that was met.
    pub(super) fn start_precopy(&mut self, now: Time) {
        self.session.begin_log(self.commit.watermark());
        self.commit.log_begins();
        self.disks.sync_begins();
        self.writer.restart();
        let (delay, ends_at) = (self.sync_delay_from(now), now + self.config.resync.sync_max);
        let disks = match self.config.mirrored_disks() {
            0 => DiskProgress::Whole,
            _some => DiskProgress::Far(None),
        };
        let precopy = Precopy::new(self.config.memory_pages, disks, delay, ends_at);
        self.role = Role::Primary(Primary::Copying(precopy));
        self.emit(delay.map_or(ReplicaEvent::SyncBegun, ReplicaEvent::SyncDelayed));
    }

    /// Returns what the engine needs of guest memory now. The machine must be paused while it answers, and from the
    /// answer to [`CopyRequest::Written`] until it is asked whether to run on.
    /// Returns `None` as well while the bulk lane has no room, and at the end of a pass until the backup has
    /// received all of it.
    pub fn poll_copy(&self) -> Option<CopyRequest> {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return None };
        let request = precopy.request()?;
        let is_possible = match request {
            CopyRequest::Begin | CopyRequest::Page(_) => {
                self.session.room(Lane::Bulk) >= PAGE_ENTRY_BYTES_MAX
            }
            CopyRequest::Written => self.is_bulk_received(),
        };
        is_possible.then_some(request)
    }

    /// Answers [`CopyRequest::Begin`]: from here on, written pages are tracked.
    pub fn copy_begun(&mut self, now: Time) {
        match &mut self.role {
            Role::Primary(Primary::Copying(precopy)) => precopy.begin(now),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                self.ignore(Ignored::CopyWithoutSync);
            }
        }
    }

    /// Answers [`CopyRequest::Page`] with the page's contents.
    pub fn copied(&mut self, now: Time, page: &[u8; PAGE_BYTES]) {
        let Role::Primary(Primary::Copying(precopy)) = &mut self.role else {
            return self.ignore(Ignored::CopyWithoutSync);
        };
        let number = precopy.page().expect("a page was asked for");
        let bytes = delta_cache::whole(page);
        let skips_zeros =
            precopy.is_first_pass() || self.config.mutants.has(Mutant::ForgetZeroedPages);
        let sent = bytes != PageBytes::Zero || !skips_zeros;
        if sent {
            precopy.digest.page(number, page);
        }
        precopy.advance(sent);
        if sent {
            let (_writer, mut log) = self.log(now);
            let entry = Entry::Page { number, bytes };
            let Ok(()) = log.append(&entry);
            self.stats.pages_copied += 1;
            let end = self.session.channel().map(|channel| channel.appended(Lane::Bulk));
            if let Role::Primary(Primary::Copying(precopy)) = &mut self.role {
                precopy.pages_end = end.unwrap_or_default();
                precopy.page_bytes += encoded_length(&entry) as u64;
            }
        }
    }

    /// Answers [`CopyRequest::Written`] with the numbers of these pages, ascending.
    pub fn written(&mut self, now: Time, pages: Vec<u64>) {
        let forgets = self.planted(Mutant::ForgetWrittenPages);
        let silence = self.config.timing.silence;
        let Role::Primary(Primary::Copying(precopy)) = &mut self.role else {
            return self.ignore(Ignored::CopyWithoutSync);
        };
        // Messages of the disks' copy take time of the link, and are not what the pass had to send.
        let bulk_bytes = precopy.page_bytes;
        let had_slowed = precopy.has_slowed();
        let count = pages.len() as u64;
        match precopy.passes.end(now, bulk_bytes, count, silence) {
            AfterPass::Close => {
                precopy.close(if forgets { Vec::new() } else { pages });
                // Requests to disks may delay the checkpoint, for so long.
                precopy.ends_at = now + DISK_HOLD_MAX;
            }
            AfterPass::Pass => {
                precopy.begin_pass(now, bulk_bytes, pages);
                self.stats.copies_repeated += 1;
            }
            AfterPass::SlowerPass => {
                precopy.begin_pass(now, bulk_bytes, pages);
                self.stats.copies_repeated += 1;
                if !had_slowed {
                    let carried_per_s = precopy.passes.carried_per_s();
                    self.stats.guests_slowed += 1;
                    self.emit(ReplicaEvent::GuestSlowed { pages: count, carried_per_s });
                }
            }
            AfterPass::GiveUp => {
                let carried_per_s = precopy.passes.carried_per_s();
                self.give_up_sync(now, SyncLoss::WritesTooFast { pages: count, carried_per_s });
            }
        }
    }

    /// Returns the share of time for which the machine is to run the guest.
    pub fn guest_share(&self) -> GuestShare {
        match &self.role {
            Role::Primary(Primary::Copying(precopy)) => precopy.share(),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                GuestShare::WHOLE
            }
        }
    }

    /// Returns how far the copy of the memory is, while there is one.
    pub fn copy_progress(&self) -> Option<CopyProgress> {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return None };
        precopy.progress()
    }

    /// A sync ends, in one way or the other.
    fn end_slowing(&mut self) {
        if let Role::Primary(Primary::Copying(precopy)) = &self.role
            && precopy.has_slowed()
        {
            self.emit(ReplicaEvent::GuestNotSlowed);
        }
    }

    /// The closing checkpoint was given to the channel: from here on, the backup may be able to take over.
    pub(super) fn sync_sent(&mut self) {
        self.end_slowing();
        let sync_end = self.session.appended();
        self.role = Role::Primary(Primary::Protected(Protected { sync_end, is_confirmed: false }));
    }

    /// Emits [`ReplicaEvent::Protected`] when the backup has acknowledged the end of the sync.
    pub(super) fn emit_protected(&mut self, now: Time) {
        let acked = self.session.channel().map(Channel::acked);
        if let Role::Primary(Primary::Protected(protected)) = &mut self.role
            && !protected.is_confirmed
            && acked >= Some(protected.sync_end)
        {
            protected.is_confirmed = true;
            self.resync.protected(now);
            self.stats.syncs += 1;
            self.emit(ReplicaEvent::Protected);
        }
    }

    /// Handles the death of the backup.
    pub(super) fn backup_lost(&mut self, now: Time, loss: Loss) {
        let Role::Primary(primary) = &self.role else { return };
        match primary {
            // The backup does not hold the whole VM, so it cannot take over.
            Primary::Copying(precopy) => {
                let has_begun = precopy.delay.is_none();
                if let (Loss::Silent { .. }, true) = (loss, has_begun) {
                    self.sync_failed(now, SyncLoss::Silent);
                }
                self.abort_sync();
                self.renew(now);
            }
            Primary::Protected(_) => {
                if let Loss::Silent { .. } = loss {
                    self.sync_failed(now, SyncLoss::Silent);
                }
                self.lose_backup(now, None);
                self.stats.backups_lost += 1;
                self.emit(loss.of_backup());
            }
            // The backup is dead, or has gone live and left this session.
            Primary::HandingOver(_) if self.planted(Mutant::ResumeWithoutClaim) => {
                self.role = Role::Primary(Primary::Alone);
                self.renew(now);
            }
            &Primary::HandingOver(HandingOver { after, .. }) => self.lose_backup(now, Some(after)),
            // The backup was lost before its sync began.
            Primary::Starting(_) | Primary::Alone => self.renew(now),
            Primary::Losing(_) => {}
        }
    }

    /// Claims the next term: the backup may take over, or has taken over.
    pub(super) fn lose_backup(&mut self, now: Time, handed_over: Option<AfterHandover>) {
        let (owner, at) = (self.config.claimant, now + self.claim_delay());
        let mut claim = Claim::after(self.term, owner, ClaimCause::BackupLost, at);
        claim.handle_timeout(now);
        self.role = Role::Primary(Primary::Losing(Losing { claim, handed_over }));
        self.sending = None;
        self.forget_handover();
    }

    /// The backup is lost before the VM was handed over to it.
    fn forget_handover(&mut self) {
        if self.handover.take().is_some() {
            self.handover_failed();
        }
    }

    /// Handles the backup's Bye: it will not take over.
    pub(super) fn backup_left(&mut self, now: Time) {
        let Role::Primary(primary) = &self.role else { return };
        match primary {
            Primary::Copying(_) => {
                self.sync_failed(now, SyncLoss::Left);
                self.abort_sync();
            }
            // Its disk is as fresh as this host's until the witness has a newer term.
            Primary::Protected(_) if self.config.disks > 0 => {
                self.sync_failed(now, SyncLoss::Left);
                self.lose_backup(now, None);
                self.emit(ReplicaEvent::BackupLeft);
            }
            Primary::Protected(_) => {
                self.sync_failed(now, SyncLoss::Left);
                self.role = Role::Primary(Primary::Alone);
                self.sending = None;
                self.forget_handover();
                self.emit(ReplicaEvent::BackupLeft);
            }
            // It may have claimed the next term before.
            &Primary::HandingOver(HandingOver { after, .. }) => {
                self.lose_backup(now, Some(after));
                return;
            }
            Primary::Starting(_) | Primary::Alone | Primary::Losing(_) => {}
        }
        // Keep the session until then: the backup may repeat its Bye, to have it confirmed.
        self.session.renew_at(now + self.config.timing.silence);
    }

    /// Gives up a sync of a backup that is there.
    pub(super) fn give_up_sync(&mut self, now: Time, cause: SyncLoss) {
        self.sync_failed(now, cause);
        self.emit(ReplicaEvent::SyncGivenUp(cause));
        self.abort_sync();
        self.renew(now);
    }

    pub(super) fn abort_sync(&mut self) {
        self.end_slowing();
        self.role = Role::Primary(Primary::Alone);
        self.sending = None;
        self.stats.syncs_broken += 1;
    }
}
