//! A backup's sessions: a primary is met, its memory arrives, and it is lost.

use super::checkpoint_receive::{
    CheckpointReceive, ReceiveError, decode_complete, expect_incomplete,
};
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
    /// Begins to receive the memory of a primary that was met.
    pub(super) fn start_syncing(&mut self) {
        let endpoint = self.endpoint.as_ref().expect("a primary was met");
        self.term = endpoint.term().unwrap_or(self.term);
        self.term_owner = endpoint.peer().map_or(self.term_owner, |peer| peer.identity.claimant);
        self.log_base = self.watermark;
        self.hold.clear();
        self.receive = CheckpointReceive::default();
        self.cache.begin(true);
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
            Err(ReceiveError) => self.leave(now),
        }
    }

    /// Moves pages from the bulk lane into [`CheckpointReceive`], until it holds `up_to` pages or the lane
    /// is empty.
    pub(super) fn receive_pages(&mut self, up_to: u32) -> Result<(), ReceiveError> {
        let memory_pages = self.config.memory_pages;
        let Self { receive, endpoint, cache, config, .. } = self;
        let Some(channel) = endpoint.as_mut().and_then(Endpoint::channel_mut) else {
            return Ok(());
        };
        let mut length = 0;
        let bytes = channel.received(Lane::Bulk);
        while receive.arrived() < up_to {
            let Some((entry, took)) = decode_complete(&bytes[length..])? else { break };
            match entry {
                Entry::Page { number, bytes } if number < memory_pages => {
                    receive.page(number, &bytes, cache, config.mutants)?;
                    length += took;
                }
                // The bulk lane carries pages of guest memory, and nothing else.
                _other => return Err(ReceiveError),
            }
        }
        channel.consume(Lane::Bulk, length);
        Ok(())
    }

    /// Takes the guest time and the closing checkpoint of the sync, with which a session's log begins.
    /// Returns whether they and all pages have arrived.
    fn finish_sync(&mut self) -> Result<bool, ReceiveError> {
        let Self { receive, endpoint, cache, .. } = self;
        let Some(channel) = endpoint.as_ref().and_then(Endpoint::channel) else { return Ok(false) };
        let log = channel.received(Lane::Latency);
        let Some((Entry::Clock { advance_ns }, clock_bytes)) = decode_complete(log)? else {
            return expect_incomplete(log);
        };
        let Some(taken) = receive.take(&log[clock_bytes..], true, cache)? else { return Ok(false) };
        let addresses = receive.split_addresses()?;
        // The deltas that follow are relative to this state.
        cache.begin(false);
        self.addresses = addresses;
        self.clock_ns = advance_ns;
        self.consume(clock_bytes + taken);
        Ok(true)
    }

    /// Takes the incremental checkpoint at the front of the log if all of it has arrived, and returns
    /// whether it did. [`take_checkpoint`](Self::take_checkpoint) then returns it.
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

    /// Handles the silence of the primary.
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

    /// Handles the primary's Bye: the VM has stopped.
    pub(super) fn primary_stopped(&mut self, now: Time) {
        let Role::Backup(backup) = &self.role else { return };
        match backup {
            Backup::Syncing | Backup::Following | Backup::Leaving => {
                self.halt(Halt::PrimaryStopped);
                // Keep the endpoint until then: the primary may repeat its Bye, to have it confirmed.
                self.renew_at = Some(now + self.config.timing.silence);
            }
            Backup::Seeking | Backup::Finishing | Backup::Claiming(_) => {}
        }
    }

    /// Drops the VM's state and waits for a primary.
    pub(super) fn seek(&mut self, now: Time) {
        self.role = Role::Backup(Backup::Seeking);
        self.invalidated = true;
        self.hold.clear();
        self.receive = CheckpointReceive::default();
        self.renew(now);
    }

    /// Leaves the session because this host's VM diverged from the primary's. Sends Bye, so that the
    /// primary knows that this host will not take over; a new session syncs the memory again.
    pub(super) fn leave(&mut self, now: Time) {
        self.stats.divergences += 1;
        self.emit(ReplicaEvent::Diverged);
        if !self.channel().is_some_and(Channel::is_open) {
            // The primary is dead, and no host holds the VM's true state.
            return self.halt_without_bye(Halt::Diverged);
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
