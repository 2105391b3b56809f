//! A checkpoint as data, on its way to or from the log.

use crate::mem::layout::PAGE;
use crate::mem::{GuestRam, guest::read_page};
use xxhash_rust::xxh3::Xxh3;

/// A checkpoint that was just taken: the states are encoded, the pages are still in guest RAM.
#[derive(Debug)]
pub struct ImageView<'a> {
    /// `pages` lists every page that is not zero, and not only those that changed.
    pub full: bool,
    /// Encoded `VcpuState`.
    pub vcpu: &'a [u8],
    /// Encoded `DevicesState`.
    pub devices: &'a [u8],
    /// Page numbers, ascending.
    pub pages: &'a [u64],
    /// Guest RAM, which holds the contents of the pages.
    pub ram: &'a GuestRam,
}

impl ImageView<'_> {
    /// Calls `each` with the number and the contents of every page, in ascending order.
    ///
    /// # Errors
    ///
    /// The first error that `each` returns.
    pub fn for_each_page<E>(
        &self,
        mut each: impl FnMut(u64, &[u8; PAGE as usize]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = [0u8; PAGE as usize];
        for &number in self.pages {
            read_page(self.ram, number, &mut bytes);
            each(number, &bytes)?;
        }
        Ok(())
    }
}

/// One page of an [`Image`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageImage {
    /// Page number.
    pub number: u64,
    /// Contents; `None` is a page of zeros.
    pub bytes: Option<Box<[u8; PAGE as usize]>>,
}

/// A complete checkpoint, received and verified, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// A full checkpoint: pages that are not listed are zero.
    pub full: bool,
    /// Encoded `VcpuState`.
    pub vcpu: Vec<u8>,
    /// Encoded `DevicesState`.
    pub devices: Vec<u8>,
    /// Pages in ascending order.
    pub pages: Vec<PageImage>,
}

/// The digest that ends a checkpoint in a recording. It is computed in the order in which the checkpoint
/// is written.
#[derive(Default)]
pub struct ImageDigest(Xxh3);

impl ImageDigest {
    /// Starts the digest with the states.
    pub fn new(full: bool, vcpu: &[u8], devices: &[u8]) -> ImageDigest {
        let mut hasher = Xxh3::new();
        hasher.update(&[u8::from(full)]);
        for part in [vcpu, devices] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        ImageDigest(hasher)
    }

    /// Adds a page's contents, independent of how the log encodes them.
    pub fn page(&mut self, number: u64, bytes: &[u8; PAGE as usize]) {
        self.0.update(&number.to_le_bytes());
        self.0.update(bytes);
    }

    /// Returns the digest.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}
