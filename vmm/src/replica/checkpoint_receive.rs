//! A checkpoint as it arrives: pages first, into a place of their own, because half a checkpoint is
//! none.

use super::digest::CheckpointDigest;
use super::mutant::{Mutant, Mutants};
use crate::checkpoint::{DeltaCache, Image, PageImage};
use logchan::entry::{Entry, PageBytes, StateBytes};
use logchan::entry_codec::decode;
use logchan::error::DecodeError;
use logchan::limits::PAGE_BYTES;
use netpath::announce::GuestAddresses;
use std::collections::BTreeMap;

/// Bytes from an authentic peer that make no sense as a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveError;

/// Pages by number; the newest of each counts. No more than guest memory has.
#[derive(Debug, Default)]
pub(super) struct CheckpointReceive {
    pages: BTreeMap<u64, Option<Box<[u8; PAGE_BYTES]>>>,
    /// Pages that arrived, repetitions included.
    arrived: u32,
    digest: CheckpointDigest,
    /// Whole, and not fetched yet.
    ready: Option<Image>,
}

impl CheckpointReceive {
    /// Pages that arrived.
    pub(super) fn pages(&self) -> u32 {
        self.arrived
    }

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
        let is_unchanged = matches!(bytes, PageBytes::Delta(changes) if changes.is_none());
        if is_unchanged && mutants.has(Mutant::SkipUnchanged) {
            return Ok(());
        }
        self.pages.insert(number, page.map(|page| Box::new(*page)));
        Ok(())
    }

    /// Takes the checkpoint that `log` begins with, if all of it is there: how many bytes of the log
    /// that was. It is then ready.
    pub(super) fn take(
        &mut self,
        log: &[u8],
        sync: bool,
        cache: &mut DeltaCache,
    ) -> Result<Option<usize>, ReceiveError> {
        let Some((begin, begin_bytes)) = whole(log)? else { return Ok(None) };
        let Entry::CheckpointBegin { full, pages, vcpu, devices } = begin else {
            return Err(ReceiveError);
        };
        if full != sync {
            return Err(ReceiveError);
        }
        let rest = &log[begin_bytes..];
        let Some((Entry::CheckpointEnd { digest }, end_bytes)) = whole(rest)? else {
            return no_other(rest).map(|_| None);
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

    /// What arrived so far, with the states of the `begin` that it belongs to; if all of it is to be there,
    /// it must have this digest.
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

    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    pub(super) fn fetch(&mut self) -> Option<Image> {
        self.ready.take()
    }

    /// Takes the guest's addresses off the front of the device state of a sync.
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

/// The entry at the front of `log`, once it is all there.
pub(super) fn whole(log: &[u8]) -> Result<Option<(Entry<'_>, usize)>, ReceiveError> {
    match decode(log) {
        Ok(entry) => Ok(Some(entry)),
        Err(DecodeError::Truncated) => Ok(None),
        Err(_) => Err(ReceiveError),
    }
}

/// An entry is not there yet; another one in its place would be wrong.
pub(super) fn no_other(log: &[u8]) -> Result<bool, ReceiveError> {
    match whole(log)? {
        None => Ok(false),
        Some(_) => Err(ReceiveError),
    }
}
