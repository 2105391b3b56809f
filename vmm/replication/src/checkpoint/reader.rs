//! A checkpoint as it is read from a log. Its pages are collected apart from guest memory: a checkpoint is
//! applied as a whole or not at all.

use super::{CheckpointDigest, DeltaCache, Image, PageImage};
use crate::mutant::{Mutant, Mutants};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use logchan::entry::{PageBytes, StateBytes};
use logchan::error::FieldError;
use logchan::limits::PAGE_BYTES;

/// Why entries are not a valid checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// A delta does not fit the contents that the log carried before.
    #[error("a delta does not fit the checkpoint before: {0}")]
    Delta(#[from] FieldError),
    /// More pages than the checkpoint's first entry announced.
    #[error("it has more than {announced} pages")]
    Pages {
        /// The announced number.
        announced: u32,
    },
    /// The digest that ends the checkpoint does not match it.
    #[error("it does not match its digest")]
    Digest,
}

/// Collects the pages of one checkpoint.
#[derive(Debug, Default)]
pub(crate) struct CheckpointReader {
    /// The newest contents of each page that was read, by page number; `None` for a page of zeros. At most
    /// the pages of guest memory.
    pages: BTreeMap<u64, Option<Box<[u8; PAGE_BYTES]>>>,
    /// Number of pages that were read; a page that was read twice counts twice.
    count: u32,
    digest: CheckpointDigest,
}

impl CheckpointReader {
    /// Returns the number of pages that were read; a page that was read twice counts twice.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Decodes a page and keeps it.
    pub(crate) fn page(
        &mut self,
        number: u64,
        bytes: &PageBytes<'_>,
        cache: &mut DeltaCache,
        mutants: Mutants,
    ) -> Result<(), CheckpointFault> {
        let page = cache.decode(number, bytes)?;
        self.digest.page(number, page.unwrap_or(&[0; PAGE_BYTES]));
        self.count = self.count.saturating_add(1);
        let is_unchanged = matches!(bytes, PageBytes::Delta(delta) if delta.is_unchanged());
        if is_unchanged && mutants.has(Mutant::SkipUnchanged) {
            return Ok(());
        }
        self.pages.insert(number, page.map(|page| Box::new(*page)));
        Ok(())
    }

    /// Returns the checkpoint of the pages that were read and of these states, and starts over. `digest` is
    /// the digest in the log; `None` skips the comparison (planted bug only).
    pub(crate) fn finish(
        &mut self,
        begin: &Begin<'_>,
        cache: &mut DeltaCache,
        digest: Option<u64>,
    ) -> Result<Image, CheckpointFault> {
        let full = begin.full;
        let vcpu = cache.vcpu.decode(&begin.vcpu)?.to_vec();
        let devices = cache.devices.decode(&begin.devices)?.to_vec();
        let Self { pages, digest: found, count: _ } = core::mem::take(self);
        if digest.is_some_and(|digest| digest != found.finish(full, &vcpu, &devices)) {
            return Err(CheckpointFault::Digest);
        }
        let pages = pages.into_iter().map(|(number, bytes)| PageImage { number, bytes }).collect();
        Ok(Image { full, vcpu, devices, pages })
    }
}

/// The first entry of a checkpoint, [`CheckpointBegin`](logchan::entry::Entry::CheckpointBegin).
pub(crate) struct Begin<'a> {
    pub(crate) full: bool,
    pub(crate) vcpu: StateBytes<'a>,
    pub(crate) devices: StateBytes<'a>,
}
