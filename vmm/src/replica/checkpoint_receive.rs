//! A checkpoint as it arrives. Its pages are collected apart from guest memory: a checkpoint is applied as
//! a whole or not at all.

use super::digest::CheckpointDigest;
use super::mutant::{Mutant, Mutants};
use crate::checkpoint::{DeltaCache, Image, PageImage};
use logchan::entry::{Entry, PageBytes, StateBytes};
use logchan::entry_codec::decode;
use logchan::error::DecodeError;
use logchan::limits::PAGE_BYTES;
use netpath::announce::GuestAddresses;
use std::collections::BTreeMap;

/// Bytes from an authenticated peer that are not a valid checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveError;

/// A checkpoint that is being received.
#[derive(Debug, Default)]
pub(super) struct CheckpointReceive {
    /// The newest contents of each page that arrived, by page number; `None` for a page of zeros. At most the
    /// pages of guest memory.
    pages: BTreeMap<u64, Option<Box<[u8; PAGE_BYTES]>>>,
    /// Number of pages that arrived; a page that arrived twice counts twice.
    arrived: u32,
    digest: CheckpointDigest,
    /// A complete checkpoint that was not fetched yet.
    ready: Option<Image>,
}

impl CheckpointReceive {
    /// Returns the number of pages that arrived; a page that arrived twice counts twice.
    pub(super) fn arrived(&self) -> u32 {
        self.arrived
    }

    /// Decodes a page and keeps it.
    pub(super) fn page(
        &mut self,
        number: u64,
        bytes: &PageBytes<'_>,
        cache: &mut DeltaCache,
        mutants: Mutants,
    ) -> Result<(), ReceiveError> {
        let page = cache.decode(number, bytes).map_err(|_| ReceiveError)?;
        self.digest.page(number, page.unwrap_or(&[0; PAGE_BYTES]));
        self.arrived = self.arrived.saturating_add(1);
        let is_unchanged = matches!(bytes, PageBytes::Delta(delta) if delta.is_unchanged());
        if is_unchanged && mutants.has(Mutant::SkipUnchanged) {
            return Ok(());
        }
        self.pages.insert(number, page.map(|page| Box::new(*page)));
        Ok(())
    }

    /// Takes the checkpoint at the front of `log` if all of it has arrived, and returns how many bytes of
    /// the log it occupies. `sync`: it must be a full checkpoint, that is, the closing one of a sync.
    pub(super) fn take(
        &mut self,
        log: &[u8],
        sync: bool,
        cache: &mut DeltaCache,
    ) -> Result<Option<usize>, ReceiveError> {
        let Some((begin, begin_bytes)) = decode_complete(log)? else { return Ok(None) };
        let Entry::CheckpointBegin { full, pages, vcpu, devices } = begin else {
            return Err(ReceiveError);
        };
        if full != sync {
            return Err(ReceiveError);
        }
        let rest = &log[begin_bytes..];
        let Some((Entry::CheckpointEnd { digest }, end_bytes)) = decode_complete(rest)? else {
            return expect_incomplete(rest).map(|_| None);
        };
        if self.arrived < pages {
            return Ok(None);
        }
        if self.arrived > pages {
            return Err(ReceiveError);
        }
        self.make_ready(full, &vcpu, &devices, cache, Some(digest))?;
        Ok(Some(begin_bytes + end_bytes))
    }

    /// Makes the received pages and the states from the entry `CheckpointBegin` an image, which is then
    /// ready. `digest` is the expected digest; `None` skips the comparison (planted bug only).
    pub(super) fn make_ready(
        &mut self,
        full: bool,
        vcpu: &StateBytes<'_>,
        devices: &StateBytes<'_>,
        cache: &mut DeltaCache,
        digest: Option<u64>,
    ) -> Result<(), ReceiveError> {
        let vcpu = cache.vcpu.decode(vcpu).map_err(|_| ReceiveError)?.to_vec();
        let devices = cache.devices.decode(devices).map_err(|_| ReceiveError)?.to_vec();
        if digest.is_some_and(|digest| digest != self.digest.finish(full, &vcpu, &devices)) {
            return Err(ReceiveError);
        }
        let pages = std::mem::take(&mut self.pages).into_iter();
        let pages = pages.map(|(number, bytes)| PageImage { number, bytes }).collect();
        *self = CheckpointReceive {
            ready: Some(Image { full, vcpu, devices, pages }),
            ..Self::default()
        };
        Ok(())
    }

    /// Returns whether a complete checkpoint can be fetched.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Returns the complete checkpoint, once.
    pub(super) fn fetch(&mut self) -> Option<Image> {
        self.ready.take()
    }

    /// Removes the guest's addresses from the front of the device state of a sync, and returns them.
    pub(super) fn split_addresses(&mut self) -> Result<GuestAddresses, ReceiveError> {
        let image = self.ready.as_mut().ok_or(ReceiveError)?;
        let (&length, rest) = image.devices.split_first_chunk().ok_or(ReceiveError)?;
        let length = usize::from(u16::from_le_bytes(length));
        let addresses = rest.get(..length).ok_or(ReceiveError)?;
        let addresses = GuestAddresses::decode(addresses).map_err(|_| ReceiveError)?;
        image.devices.drain(..2 + length);
        Ok(addresses)
    }
}

/// Decodes the entry at the front of `log`, and returns it with its length in bytes; `None` if it has not
/// arrived completely.
pub(super) fn decode_complete(log: &[u8]) -> Result<Option<(Entry<'_>, usize)>, ReceiveError> {
    match decode(log) {
        Ok(entry) => Ok(Some(entry)),
        Err(DecodeError::Truncated) => Ok(None),
        Err(_) => Err(ReceiveError),
    }
}

/// Returns `Ok(false)` if no complete entry has arrived at the front of `log`. To be called when the front
/// is not the required entry: a complete entry there is another one, which is an error.
pub(super) fn expect_incomplete(log: &[u8]) -> Result<bool, ReceiveError> {
    match decode_complete(log)? {
        None => Ok(false),
        Some(_) => Err(ReceiveError),
    }
}
