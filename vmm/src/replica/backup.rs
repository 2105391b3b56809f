//! A backup's primaries: they come, their memory arrives, and they go.

use super::checkpoint_receive::{CheckpointReceive, ReceiveError, no_other, whole};
use super::engine::Replica;
use super::event::ReplicaEvent;
use super::following::Front;
use super::role::{Backup, Halt, Role};
use logchan::channel::Channel;
use logchan::endpoint::Endpoint;
use logchan::entry::Entry;
use logchan::ids::Lane;
use logchan::time::Time;

impl Replica {
    /// A primary was met.
    pub(super) fn begin_syncing(&mut self) {
        let endpoint = self.endpoint.as_ref().expect("a primary was met");
        self.term = endpoint.term().unwrap_or(self.term);
        self.term_owner = endpoint.peer().map_or(self.term_owner, |peer| peer.identity.claimant);
        self.log_base = self.watermark;
        self.hold.clear();
        self.receive = CheckpointReceive::default();
        self.cache.begin(true);
        self.role = Role::Backup(Backup::Syncing);
    }

    /// Takes in memory that arrived. The VM is whole as soon as all of it is here, whether or not the
    /// machine has come to it: the primary may rely on that from the acknowledgement on.
    pub(super) fn take_in(&mut self, now: Time) {
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
            Err(ReceiveError) => self.leave(now),
        }
    }

    /// Moves pages from the bulk lane into the receive area until there are `up_to`, or no more.
    pub(super) fn receive_pages(&mut self, up_to: u32) -> Result<(), ReceiveError> {
        let memory_pages = self.config.memory_pages;
        let Self { receive, endpoint, cache, config, .. } = self;
        let Some(channel) = endpoint.as_mut().and_then(Endpoint::channel_mut) else {
            return Ok(());
        };
        let mut length = 0;
        let bytes = channel.received(Lane::Bulk);
        while receive.pages() < up_to {
            let Some((entry, took)) = whole(&bytes[length..])? else { break };
            match entry {
                Entry::Page { number, bytes } if number < memory_pages => {
                    receive.page(number, &bytes, cache, config.mutants)?;
                    length += took;
                }
                // Nothing but pages of this memory is ever in that lane.
                _other => return Err(ReceiveError),
            }
        }
        channel.consume(Lane::Bulk, length);
        Ok(())
    }

    /// The log of a session begins with the guest's time and the closing checkpoint of the sync.
    /// Takes them if they are here, with all pages; whether that is so.
    fn finish_sync(&mut self) -> Result<bool, ReceiveError> {
        let Self { receive, endpoint, cache, .. } = self;
        let Some(channel) = endpoint.as_ref().and_then(Endpoint::channel) else { return Ok(false) };
        let log = channel.received(Lane::Latency);
        let Some((Entry::Clock { advance_ns }, clock_bytes)) = whole(log)? else {
            return no_other(log);
        };
        let Some(taken) = receive.take(&log[clock_bytes..], true, cache)? else { return Ok(false) };
        let addresses = receive.split_addresses()?;
        // What follows is told against this.
        cache.begin(false);
        self.addresses = addresses;
        self.clock_ns = advance_ns;
        self.consume(clock_bytes + taken);
        Ok(true)
    }

    /// Takes the incremental checkpoint at the front of the log, if all of it is here; whether that
    /// is so. Once it was taken, [`take_checkpoint`](Self::take_checkpoint) has it.
    pub(super) fn take_incremental(&mut self) -> Result<bool, ReceiveError> {
        let Front::Entry(Entry::CheckpointBegin { pages, .. }, _) = self.front() else {
            return Ok(false);
        };
        if u64::from(pages) > self.config.memory_pages {
            return Err(ReceiveError);
        }
        self.receive_pages(pages)?;
        let Self { receive, endpoint, cache, .. } = self;
        let Some(channel) = endpoint.as_ref().and_then(Endpoint::channel) else { return Ok(false) };
        let Some(taken) = receive.take(channel.received(Lane::Latency), false, cache)? else {
            return Ok(false);
        };
        self.consume(taken);
        Ok(true)
    }

    /// The primary is not heard.
    pub(super) fn primary_silent(&mut self, now: Time, heard_at: Time) {
        let Role::Backup(backup) = &self.role else { return };
        match backup {
            Backup::Following => {
                self.role = Role::Backup(Backup::Finishing);
                self.emit(ReplicaEvent::PrimarySilent { heard_at, whole: true });
            }
            Backup::Syncing => {
                self.emit(ReplicaEvent::PrimarySilent { heard_at, whole: false });
                self.seek(now);
            }
            Backup::Seeking | Backup::Leaving => self.seek(now),
            Backup::Finishing | Backup::Claiming(_) => {}
        }
    }

    /// The primary said goodbye: the VM is over.
    pub(super) fn primary_stopped(&mut self, now: Time) {
        let Role::Backup(backup) = &self.role else { return };
        match backup {
            Backup::Syncing | Backup::Following | Backup::Leaving => {
                self.halt(Halt::PrimaryStopped);
                // Until then it may ask whether its goodbye was heard.
                self.renew_at = Some(now + self.config.timing.silence);
            }
            Backup::Seeking | Backup::Finishing | Backup::Claiming(_) => {}
        }
    }

    /// Drops everything, and looks for a primary.
    pub(super) fn seek(&mut self, now: Time) {
        self.role = Role::Backup(Backup::Seeking);
        self.invalidated = true;
        self.hold.clear();
        self.receive = CheckpointReceive::default();
        self.renew(now);
    }

    /// What is here is not what the primary is: it must give us the memory again. It is told
    /// goodbye, so that it knows that we will not take over.
    pub(super) fn leave(&mut self, now: Time) {
        self.stats.divergences += 1;
        self.emit(ReplicaEvent::Diverged);
        if !self.channel().is_some_and(Channel::is_open) {
            // The primary is gone, and nobody has the VM as it was.
            return self.over(Halt::Diverged);
        }
        self.role = Role::Backup(Backup::Leaving);
        self.invalidated = true;
        self.hold.clear();
        self.receive = CheckpointReceive::default();
        if let Some(channel) = self.channel_mut() {
            channel.bye(now);
        }
    }
}
