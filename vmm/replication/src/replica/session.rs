//! The session with the other host: the endpoint of the logging channel, and the log that it carries.

use crate::log_writer::lane_of;
use crate::verifier::LogCursor;
use alloc::string::String;
use alloc::vec::Vec;
use logchan::channel::Channel;
use logchan::endpoint::{Endpoint, EndpointEvent, EndpointVerdict, Settings};
use logchan::entry::Entry;
use logchan::entry_codec::{self, decode};
use logchan::entry_stats::EntryStatsTable;
use logchan::error::DecodeError;
use logchan::ids::{Lane, LogSeq};
use logchan::limits::ENTRY_BYTES_MAX;
use logchan::seal::DeathNotice;
use logchan::time::Time;

/// Bytes from an authenticated peer that are not a valid entry, or not the required one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("bytes that are not an entry: {0}")]
    Entry(DecodeError),
    #[error("another entry than a {0}")]
    Other(&'static str),
}

/// What becomes of an entry of the bulk lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is removed.
    Yes,
    /// It stays, with all that follow.
    No,
}

/// The session with the other host.
pub(super) struct Session {
    /// `None` on a standalone host, and after this host's part is over.
    endpoint: Option<Endpoint>,
    /// When to reset the endpoint for another peer.
    renew_at: Option<Time>,
    /// Position at which the log of this session begins, counted over all sessions.
    log_base: u64,
    /// The primary has handed the VM over, and the log is executed to its end. What follows is not part of it.
    is_handed_over: bool,
    /// On a primary, entries sent; on a backup, entries executed.
    stats: EntryStatsTable,
    /// Buffer for one encoded entry.
    scratch: Vec<u8>,
}

impl Session {
    pub(super) fn new(endpoint: Option<Endpoint>) -> Session {
        Session {
            endpoint,
            renew_at: None,
            log_base: 0,
            is_handed_over: false,
            stats: EntryStatsTable::default(),
            scratch: Vec::with_capacity(ENTRY_BYTES_MAX),
        }
    }

    pub(super) fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> Option<EndpointVerdict> {
        Some(self.endpoint.as_mut()?.handle_frame(now, frame))
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.handle_timeout(now);
        }
    }

    /// See [`Channel::heard_by`].
    pub(super) fn heard_by(&mut self, now: Time) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.heard_by(now);
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.endpoint.as_mut()?.poll_event()
    }

    pub(super) fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.endpoint.as_mut()?.poll_transmit(now, out)
    }

    pub(super) fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.endpoint.as_mut()?.poll_transmit_log(now, out)
    }

    /// See [`Endpoint::poll_death_notice`].
    pub(super) fn poll_death_notice(&mut self) -> Option<DeathNotice> {
        self.endpoint.as_mut()?.poll_death_notice()
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let endpoint = self.endpoint.as_ref().and_then(Endpoint::poll_timeout);
        [endpoint, self.renew_at].into_iter().flatten().min()
    }

    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    pub(super) fn channel(&self) -> Option<&Channel> {
        self.endpoint.as_ref()?.channel()
    }

    pub(super) fn channel_mut(&mut self) -> Option<&mut Channel> {
        self.endpoint.as_mut()?.channel_mut()
    }

    pub(super) fn stats(&self) -> &EntryStatsTable {
        &self.stats
    }

    /// Returns whether the channel to the other host is open for log.
    pub(super) fn is_open(&self) -> bool {
        self.channel().is_some_and(Channel::is_open)
    }

    /// Returns whether this host has no endpoint (any more).
    pub(super) fn is_closed(&self) -> bool {
        self.endpoint.is_none()
    }

    /// Gives the endpoint up: nothing more is sent or received.
    pub(super) fn close(&mut self) {
        self.endpoint = None;
        self.renew_at = None;
    }

    /// Sends Bye, or gives the endpoint up if there is no peer.
    pub(super) fn bye_or_close(&mut self, now: Time) {
        match self.channel_mut() {
            Some(channel) if channel.is_open() => channel.bye(now),
            Some(_) | None => self.endpoint = None,
        }
    }

    /// Keeps the endpoint until `at`, and lets it wait for another peer then: this peer may repeat its Bye,
    /// to have it confirmed.
    pub(super) fn renew_at(&mut self, at: Time) {
        self.renew_at = Some(at);
    }

    pub(super) fn cancel_renewal(&mut self) {
        self.renew_at = None;
    }

    pub(super) fn is_renewal_due(&self, now: Time) -> bool {
        self.renew_at.is_some_and(|at| at <= now)
    }

    /// Drops the session with the peer and waits for a new handshake with `settings`.
    pub(super) fn renew(&mut self, now: Time, settings: Settings) {
        self.renew_at = None;
        self.is_handed_over = false;
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.renew(now, settings).expect("the configuration was checked");
        }
    }

    /// A peer was met: the log of this session begins at position `log_base`, counted over all sessions.
    pub(super) fn begin_log(&mut self, log_base: u64) {
        self.log_base = log_base;
    }

    /// Returns the position of `log_seq` counted over all sessions.
    pub(super) fn absolute(&self, log_seq: u64) -> u64 {
        self.log_base + log_seq
    }

    /// Returns the position in this session's log of `position`, which is counted over all sessions.
    pub(super) fn relative(&self, position: u64) -> u64 {
        position.saturating_sub(self.log_base)
    }

    /// Returns the position behind the newest entry of the log, in this session.
    pub(super) fn appended(&self) -> LogSeq {
        self.channel().map_or(LogSeq(0), |channel| channel.appended(Lane::Latency))
    }

    /// Returns how many bytes can be appended to `lane`.
    pub(super) fn room(&self, lane: Lane) -> usize {
        self.channel().map_or(0, |channel| channel.room(lane))
    }

    /// Appends `entry` to the log, which must be open and have room for it.
    pub(super) fn append(&mut self, now: Time, entry: &Entry<'_>) {
        let Self { endpoint, scratch, stats, .. } = self;
        let channel = endpoint.as_mut().and_then(Endpoint::channel_mut);
        let channel = channel.filter(|channel| channel.is_open());
        let channel = channel.expect("the log is appended to an open channel");
        if let Entry::CheckpointEnd { .. } = entry {
            // The acknowledgement of this entry must cover every page.
            channel.require_bulk();
        }
        scratch.clear();
        entry_codec::encode(entry, scratch);
        stats.record(entry);
        channel.append(now, lane_of(entry), scratch).expect("there was room");
    }

    /// Returns the position up to which the log was executed, in this session.
    pub(super) fn consumed(&self) -> u64 {
        self.channel().map_or(0, |channel| channel.consumed(Lane::Latency).0)
    }

    /// Returns the position up to which the other host has executed the log or, on a backup, released the
    /// outputs in it.
    pub(super) fn peer_executed(&self) -> u64 {
        self.channel().map_or(0, Channel::peer_executed)
    }

    /// Returns the entry at `offset` bytes behind the front of the received log and its length in bytes;
    /// `None` if it has not arrived completely.
    ///
    /// # Errors
    ///
    /// The bytes there are not an entry.
    pub(super) fn entry_at(&self, offset: usize) -> Result<Option<(Entry<'_>, usize)>, Malformed> {
        let log = self.channel().map_or(&[][..], |channel| channel.received(Lane::Latency));
        decode_complete(&log[offset..])
    }

    /// Returns whether the log ends here because the primary has handed the VM over.
    pub(super) fn ends_with_hand_over(&self) -> bool {
        matches!(self.entry_at(0), Ok(Some((Entry::HandOver, _))))
    }

    /// Returns whether the primary has handed the VM over, and [`finish_log`](Self::finish_log) was called.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over
    }

    /// The log is executed to its end. Removes the hand-over that it may end with: behind it, the frames of the
    /// primary's tap follow.
    pub(super) fn finish_log(&mut self) {
        if let Ok(Some((Entry::HandOver, length))) = self.entry_at(0) {
            self.stats.record(&Entry::HandOver);
            self.is_handed_over = true;
            self.consume_bytes(length);
        }
    }

    /// Returns how many bytes of log have arrived and were not removed.
    pub(super) fn received_bytes(&self) -> usize {
        self.channel().map_or(0, |channel| channel.received(Lane::Latency).len())
    }

    /// Removes `length` bytes from the log and reports them to the primary as executed.
    pub(super) fn consume_bytes(&mut self, length: usize) {
        if let Some(channel) = self.channel_mut() {
            channel.consume(Lane::Latency, length);
            let executed = channel.consumed(Lane::Latency).0;
            channel.set_executed(executed);
        }
    }

    /// Passes the entries of the bulk lane to `take`, in order, until one stays or no complete one is left.
    ///
    /// # Errors
    ///
    /// The first error of `take`, or bytes that are not an entry.
    pub(super) fn take_bulk<E: From<Malformed>>(
        &mut self,
        mut take: impl FnMut(&Entry<'_>) -> Result<Taken, E>,
    ) -> Result<(), E> {
        let Some(channel) = self.channel_mut() else { return Ok(()) };
        let bytes = channel.received(Lane::Bulk);
        let mut length = 0;
        while let Some((entry, took)) = decode_complete(&bytes[length..])? {
            match take(&entry)? {
                Taken::Yes => length += took,
                Taken::No => break,
            }
        }
        channel.consume(Lane::Bulk, length);
        Ok(())
    }

    /// Passes the received pages to `take`, in order, until it has taken `count_max` of them, no complete
    /// one is left, or a message of a disk's copy comes first.
    ///
    /// # Errors
    ///
    /// The first error of `take`, or a bulk lane that carries something else.
    pub(super) fn take_pages<E: From<Malformed>>(
        &mut self,
        count_max: u32,
        mut take: impl FnMut(u64, &logchan::entry::PageBytes<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = count_max;
        self.take_bulk(|entry| {
            if let Entry::DiskCopy(_) = entry {
                return Ok(Taken::No);
            }
            let Entry::Page { number, ref bytes } = *entry else {
                return Err(Malformed::Other("page").into());
            };
            if left == 0 {
                return Ok(Taken::No);
            }
            left -= 1;
            take(number, bytes)?;
            Ok(Taken::Yes)
        })
    }
}

/// Decodes the entry at the front of `log`, and returns it with its length in bytes; `None` if it has not
/// arrived completely.
fn decode_complete(log: &[u8]) -> Result<Option<(Entry<'_>, usize)>, Malformed> {
    match decode(log) {
        Ok(entry) => Ok(Some(entry)),
        Err(DecodeError::Truncated) => Ok(None),
        Err(error) => Err(Malformed::Entry(error)),
    }
}

/// The received log.
impl LogCursor for Session {
    type Error = Malformed;

    /// A hand-over is the end of the log, not an entry to execute.
    fn front(&mut self) -> Result<Option<Entry<'_>>, Malformed> {
        if self.is_handed_over {
            return Ok(None);
        }
        let front = self.entry_at(0)?.map(|(entry, _)| entry);
        Ok(front.filter(|entry| *entry != Entry::HandOver))
    }

    fn consume(&mut self) {
        let log = self.endpoint.as_ref().and_then(Endpoint::channel);
        let log = log.map_or(&[][..], |channel| channel.received(Lane::Latency));
        let (entry, length) = decode(log).expect("front returned this entry");
        self.stats.record(&entry);
        self.consume_bytes(length);
    }

    fn position(&self) -> u64 {
        self.consumed()
    }

    /// Returns nothing: a host keeps no log that it has executed.
    fn recent(&self) -> Vec<String> {
        Vec::new()
    }
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
