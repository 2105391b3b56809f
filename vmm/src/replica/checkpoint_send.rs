//! Sends a primary's checkpoint into the channel, as far as there is room.

use super::digest::CheckpointDigest;
use super::engine::Replica;
use super::guard::Ignored;
use super::mutant::Mutant;
use super::primary::PAGE_ENTRY_BYTES_MAX;
use super::role::{Primary, Protected, Role};
use super::step::{CheckpointImage, Step, World};
use crate::checkpoint::DeltaCache;
use logchan::channel::Channel;
use logchan::entry::{Entry, StateBytes};
use logchan::entry_stats::EntryStatsTable;
use logchan::ids::Lane;
use logchan::limits::PAGE_BYTES;
use logchan::time::Time;
use netpath::announce::ADDRESSES_BYTES_MAX;

/// Largest clock entry, bytes: kind, length, varint.
pub(super) const CLOCK_ENTRY_BYTES_MAX: usize = 1 + 1 + 10;
/// Size of the entry that ends a checkpoint, bytes: kind, length, digest.
const END_ENTRY_BYTES: usize = 1 + 1 + 8;

/// Progress of a checkpoint that is being sent.
#[derive(Debug)]
pub(super) struct CheckpointSend {
    /// Pages of the image that were appended to the channel.
    pages: usize,
    digest: CheckpointDigest,
}

impl Replica {
    /// Sends a checkpoint of the stopped machine to the backup. The checkpoint makes this point of the
    /// execution a position. While the answer is `Pending`, call again with the same image: the rest is
    /// sent when the channel has room.
    ///
    /// # Errors
    ///
    /// Errors of the world, which is asked for the time.
    pub fn checkpoint<W: World>(
        &mut self,
        now: Time,
        world: &mut W,
        image: &impl CheckpointImage,
    ) -> Result<Step<()>, W::Error> {
        let (full, copied) = match &self.role {
            Role::Primary(Primary::Copying(precopy)) if precopy.is_complete() => {
                (true, precopy.pages)
            }
            // Before its sync is complete, a backup takes every page for a page of the sync. So pages of the
            // next checkpoint must wait.
            Role::Primary(Primary::Protected(Protected { is_confirmed: false, .. }))
                if !self.planted(Mutant::PagesBeforeWhole) =>
            {
                return Ok(Step::Pending);
            }
            Role::Primary(Primary::Protected(_)) => (false, 0),
            Role::Halted(_) => return Ok(Step::Invalidated),
            Role::Standalone | Role::Primary(_) | Role::Backup(_) => {
                self.sending = None;
                self.ignore(Ignored::CheckpointWithoutSync);
                return Ok(Step::Ready(()));
            }
        };
        let pages = match full && self.planted(Mutant::MovingTarget) {
            true => &[][..],
            false => image.pages(),
        };
        let devices = if full { self.with_addresses(image.devices()) } else { Vec::new() };
        let (vcpu, devices) = (image.vcpu(), if full { &devices } else { image.devices() });
        let mut sending = match self.sending.take() {
            Some(sending) => sending,
            None => {
                let count = u32::try_from(pages.len()).expect("memory has fewer pages") + copied;
                let [vcpu_whole, devices_whole] = [vcpu, devices].map(StateBytes::Whole);
                let whole = Entry::CheckpointBegin {
                    full,
                    pages: count,
                    vcpu: vcpu_whole,
                    devices: devices_whole,
                };
                let bytes = CLOCK_ENTRY_BYTES_MAX + logchan::entry_codec::encoded_length(&whole);
                if !self.has_room(Lane::Latency, bytes) {
                    return Ok(Step::Pending);
                }
                if full {
                    // The first entry of the session's log advances the clock from 0 to the guest time.
                    let world = match self.planted(Mutant::SyncBeforeWake) {
                        true => world,
                        false => self.live(world),
                    };
                    let now_ns = world.clock_ns()?;
                    self.clock_ns = now_ns;
                    self.append(now, Lane::Latency, &Entry::Clock { advance_ns: now_ns });
                }
                let DeltaCache { vcpu: vcpu_cache, devices: devices_cache, .. } = &mut self.cache;
                let begin = Entry::CheckpointBegin {
                    full,
                    pages: count,
                    vcpu: vcpu_cache.encode(vcpu),
                    devices: devices_cache.encode(devices),
                };
                encode(&begin, &mut self.log_stats, &mut self.scratch);
                self.append_encoded(now, Lane::Latency);
                let digest = match &self.role {
                    Role::Primary(Primary::Copying(precopy)) => precopy.digest.clone(),
                    Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => {
                        CheckpointDigest::default()
                    }
                };
                CheckpointSend { pages: 0, digest }
            }
        };
        let mut page = [0; PAGE_BYTES];
        for &number in &pages[sending.pages..] {
            if !self.has_room(Lane::Bulk, PAGE_ENTRY_BYTES_MAX) {
                self.sending = Some(sending);
                return Ok(Step::Pending);
            }
            image.read_page(number, &mut page);
            sending.digest.page(number, &page);
            if self.planted(Mutant::BaseAfterRegion) {
                let _discarded = self.cache.encode(number, &page);
            }
            let entry = Entry::Page { number, bytes: self.cache.encode(number, &page) };
            encode(&entry, &mut self.log_stats, &mut self.scratch);
            self.append_encoded(now, Lane::Bulk);
            sending.pages += 1;
        }
        if !self.has_room(Lane::Latency, END_ENTRY_BYTES) {
            self.sending = Some(sending);
            return Ok(Step::Pending);
        }
        // The acknowledgement of the next entry must cover every page.
        if let Some(channel) = self.channel_mut() {
            channel.require_bulk();
        }
        let digest = sending.digest.finish(full, vcpu, devices);
        self.append(now, Lane::Latency, &Entry::CheckpointEnd { digest });
        self.stats.checkpoints_sent += 1;
        self.stats.checkpoint_pages += pages.len() as u64;
        if full {
            // The deltas that follow are relative to this state.
            self.cache.begin(false);
            self.sync_sent();
        }
        Ok(Step::Ready(()))
    }

    /// Returns `devices` with the guest's addresses in front. A backup learns addresses only from the
    /// frames that its own machine sends, but must announce all of them when it takes over.
    fn with_addresses(&self, devices: &[u8]) -> Vec<u8> {
        let mut addresses = [0; ADDRESSES_BYTES_MAX];
        let length = self.addresses.encode(&mut addresses);
        let prefix = u16::try_from(length).expect("a few addresses").to_le_bytes();
        [&prefix, &addresses[..length], devices].concat()
    }

    /// Returns whether `bytes` bytes can be appended to `lane`. Always true without a backup, because then
    /// nothing is appended.
    pub(super) fn has_room(&self, lane: Lane, bytes: usize) -> bool {
        match &self.role {
            Role::Primary(Primary::Copying(_) | Primary::Protected(_)) => {
                self.channel().is_some_and(|channel| channel.room(lane) >= bytes)
            }
            Role::Standalone | Role::Primary(_) | Role::Backup(_) | Role::Halted(_) => true,
        }
    }

    /// Encodes `entry` and appends it to `lane`, which must [have room](Self::has_room).
    pub(super) fn append(&mut self, now: Time, lane: Lane, entry: &Entry<'_>) {
        encode(entry, &mut self.log_stats, &mut self.scratch);
        self.append_encoded(now, lane);
        if lane == Lane::Latency {
            self.begin_segment(now, entry);
        }
    }

    /// Appends the entry that [`encode`] wrote to the scratch buffer.
    fn append_encoded(&mut self, now: Time, lane: Lane) {
        let Self { endpoint, scratch, .. } = self;
        let channel = endpoint.as_mut().and_then(|endpoint| endpoint.channel_mut());
        let channel = channel.filter(|channel| channel.is_open());
        let channel: &mut Channel = channel.expect("the log is appended to an open channel");
        channel.append(now, lane, scratch).expect("there was room");
    }
}

/// Encodes `entry` into `scratch`, and counts it as sent.
fn encode(entry: &Entry<'_>, stats: &mut EntryStatsTable, scratch: &mut Vec<u8>) {
    stats.record(entry);
    scratch.clear();
    logchan::entry_codec::encode(entry, scratch);
}
