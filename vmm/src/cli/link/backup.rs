//! The backup: reads entries and says how far it is.

use super::drive::{End, see_off, take_in, wait_for_work};
use super::entries::is_entry;
use crate::link::{LogLink, now};
use logchan::channel::Channel;
use logchan::entry_codec::decode;
use logchan::error::DecodeError;
use logchan::ids::Lane;
use netpath::PortError;
use std::sync::atomic::{AtomicBool, Ordering};

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Entries, each whole and after the one before it.
    pub(super) entries: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// Reads until the primary leaves or falls silent, or until `stop`. What arrived is there in any
/// case.
pub(super) fn run(link: &mut LogLink, stop: &AtomicBool) -> (Received, Result<End, PortError>) {
    let mut received = Received::default();
    let end = received.run(link, stop);
    (received, end)
}

impl Received {
    fn run(&mut self, link: &mut LogLink, stop: &AtomicBool) -> Result<End, PortError> {
        let (mut foreign, mut has_left) = (None, false);
        loop {
            let end = take_in(link)?;
            let channel = link.channel_mut().expect("a peer was met");
            if foreign.is_none() {
                // What arrived before the end is there all the same.
                foreign = self.read(channel).err();
            }
            if let Some(end) = end {
                if end == End::PeerLeft {
                    see_off(link)?;
                }
                return Ok(foreign.unwrap_or(end));
            }
            if !has_left && (foreign.is_some() || stop.load(Ordering::Relaxed)) {
                channel.bye(now());
                has_left = true;
            }
            if !link.transmit()? {
                wait_for_work(link, None)?;
            }
        }
    }

    /// Reads the entries that are whole. Bulk is not read: nobody sends any, and whoever does finds
    /// the window closed.
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
                ) => break Err(End::Foreign { entry: self.entries }),
            }
        };
        self.bytes += length as u64;
        channel.consume(Lane::Latency, length);
        channel.set_executed(self.entries);
        result
    }
}
