//! The backup of `understudy link`: receives entries, checks them and reports how many it has executed.

use super::drive::{End, linger, receive_events, wait_for_work};
use super::entries::is_entry;
use crate::link::{LogLink, now};
use logchan::channel::Channel;
use logchan::entry_codec::decode;
use logchan::error::DecodeError;
use logchan::ids::Lane;
use netpath::PortError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Counts of what the backup received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Whole entries, received in order.
    pub(super) entries: u64,
    /// Bytes of these entries.
    pub(super) bytes: u64,
}

/// Receives until the primary leaves or falls silent, or until `stop`. Returns the counts even if the run
/// ends with an error.
pub(super) fn run(link: &mut LogLink, stop: &AtomicBool) -> (Received, Result<End, PortError>) {
    let mut received = Received::default();
    let end = received.run(link, stop);
    (received, end)
}

impl Received {
    fn run(&mut self, link: &mut LogLink, stop: &AtomicBool) -> Result<End, PortError> {
        let (mut unexpected, mut has_left) = (None, false);
        loop {
            let end = receive_events(link)?;
            let channel = link.channel_mut().expect("a peer was met");
            if unexpected.is_none() {
                // Entries that arrived before the channel ended count, too.
                unexpected = self.read(channel).err();
            }
            if let Some(end) = end {
                if end == End::PeerLeft {
                    linger(link)?;
                }
                return Ok(unexpected.unwrap_or(end));
            }
            if !has_left && (unexpected.is_some() || stop.load(Ordering::Relaxed)) {
                channel.bye(now());
                has_left = true;
            }
            if !link.transmit()? {
                wait_for_work(link, None)?;
            }
        }
    }

    /// Reads the whole entries of the latency lane. The bulk lane is not read: `understudy link` sends
    /// nothing on it, and the closed window stops a peer that does.
    fn read(&mut self, channel: &mut Channel) -> Result<(), End> {
        let bytes = channel.received(Lane::Latency);
        let mut length = 0;
        let result = loop {
            match decode(&bytes[length..]) {
                Ok((entry, bytes)) if is_entry(&entry, self.entries) => {
                    self.entries += 1;
                    length += bytes;
                }
                Err(DecodeError::Truncated) => break Ok(()),
                Ok(_)
                | Err(
                    DecodeError::InvalidKind
                    | DecodeError::UnknownKind(_)
                    | DecodeError::Length { .. }
                    | DecodeError::Body { .. },
                ) => break Err(End::UnexpectedEntry { entry: self.entries }),
            }
        };
        self.bytes += length as u64;
        channel.consume(Lane::Latency, length);
        channel.set_executed(self.entries);
        result
    }
}
