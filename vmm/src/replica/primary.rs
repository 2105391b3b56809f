//! A primary's backups: they come, are given the memory, and go.

use super::claim::Claim;
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::guard::Ignored;
use super::precopy::Precopy;
use super::role::{Primary, Protected, Role};
use super::step::CopyRequest;
use crate::checkpoint::delta_cache;
use logchan::channel::Channel;
use logchan::entry::{Entry, PageBytes};
use logchan::ids::Lane;
use logchan::limits::PAGE_BYTES;
use logchan::time::Time;

/// Bytes that a page takes in the bulk lane at most: kind, length, number, form, contents.
pub(super) const PAGE_ENTRY_BYTES_MAX: usize = 1 + 3 + 10 + 1 + PAGE_BYTES;

impl Replica {
    /// A backup was met.
    pub(super) fn begin_sync(&mut self) {
        self.log_base = self.watermark;
        self.cache.begin(true);
        self.role = Role::Primary(Primary::Copying(Precopy::new(self.config.memory_pages)));
        self.emit(ReplicaEvent::SyncBegun);
    }

    /// What is wanted of guest memory now; the machine stands still while it answers. `None` too
    /// while the link is busy.
    pub fn poll_copy(&self) -> Option<CopyRequest> {
        let Role::Primary(Primary::Copying(precopy)) = &self.role else { return None };
        let room = self.channel().map_or(0, |channel| channel.room(Lane::Bulk));
        precopy.request().filter(|_| room >= PAGE_ENTRY_BYTES_MAX)
    }

    /// Answers [`CopyRequest::Begin`]: from here on writes are noted.
    pub fn copy_begun(&mut self) {
        match &mut self.role {
            Role::Primary(Primary::Copying(precopy)) => precopy.begin(),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                self.ignore(Ignored::CopyOfNoSync);
            }
        }
    }

    /// Answers [`CopyRequest::Page`].
    pub fn copied(&mut self, now: Time, page: &[u8; PAGE_BYTES]) {
        let Role::Primary(Primary::Copying(precopy)) = &mut self.role else {
            return self.ignore(Ignored::CopyOfNoSync);
        };
        let (number, bytes) = (precopy.page(), delta_cache::whole(page));
        // The backup's memory is empty.
        let sent = bytes != PageBytes::Zero;
        if sent {
            precopy.digest.page(number, page);
        }
        precopy.advance(sent);
        if sent {
            self.append(now, Lane::Bulk, &Entry::Page { number, bytes });
            self.stats.pages_copied += 1;
        }
    }

    /// The closing checkpoint is on its way: from here on the backup may be able to take over.
    pub(super) fn sync_sent(&mut self) {
        let sync_end = self.channel().expect("a sync has a channel").appended(Lane::Latency);
        self.role = Role::Primary(Primary::Protected(Protected { sync_end, is_confirmed: false }));
    }

    pub(super) fn emit_protected(&mut self) {
        let acked = self.channel().map(Channel::acked);
        if let Role::Primary(Primary::Protected(protected)) = &mut self.role
            && !protected.is_confirmed
            && acked >= Some(protected.sync_end)
        {
            protected.is_confirmed = true;
            self.stats.syncs += 1;
            self.emit(ReplicaEvent::Protected);
        }
    }

    /// The backup is not heard.
    pub(super) fn backup_silent(&mut self, now: Time, heard_at: Time) {
        let Role::Primary(primary) = &self.role else { return };
        match primary {
            // It was not given the whole VM, so it cannot take over.
            Primary::Copying(_) => {
                self.break_off_sync();
                self.renew(now);
            }
            Primary::Protected(_) => {
                let claim = Claim::after(self.term, self.config.claimant);
                self.role = Role::Primary(Primary::Losing(claim));
                self.sending = None;
                self.stats.backups_lost += 1;
                self.emit(ReplicaEvent::BackupSilent { heard_at });
            }
            // Met, and lost before there was a use for it.
            Primary::Starting(_) | Primary::Alone => self.renew(now),
            Primary::Losing(_) => {}
        }
    }

    /// The backup said goodbye, and will not take over.
    pub(super) fn backup_left(&mut self, now: Time) {
        let Role::Primary(primary) = &self.role else { return };
        match primary {
            Primary::Copying(_) => self.break_off_sync(),
            Primary::Protected(_) => {
                self.role = Role::Primary(Primary::Alone);
                self.sending = None;
                self.emit(ReplicaEvent::BackupLeft);
            }
            Primary::Starting(_) | Primary::Alone | Primary::Losing(_) => {}
        }
        // Until then it may ask whether its goodbye was heard.
        self.renew_at = Some(now + self.config.timing.silence);
    }

    fn break_off_sync(&mut self) {
        self.role = Role::Primary(Primary::Alone);
        self.sending = None;
        self.stats.syncs_broken += 1;
    }
}
