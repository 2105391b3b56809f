//! A checkpoint as data, on its way to or from the log.

use crate::mem::layout::PAGE;
use crate::mem::{GuestRam, guest::read_page};
use xxhash_rust::xxh3::Xxh3;

/// A checkpoint just taken: states as bytes, pages still in guest RAM.
#[derive(Debug)]
pub struct ImageView<'a> {
    /// Every page that is not zero is listed, not only the changed ones.
    pub full: bool,
    /// `VcpuState`, encoded.
    pub vcpu: &'a [u8],
    /// `DevicesState`, encoded.
    pub devices: &'a [u8],
    /// Page numbers, ascending.
    pub pages: &'a [u64],
    /// Where their contents are.
    pub ram: &'a GuestRam,
}

impl ImageView<'_> {
    /// Calls `each` with every page's number and contents, in order.
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

/// A whole checkpoint, received and verified, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pages not listed are zero.
    pub full: bool,
    /// `VcpuState`, encoded.
    pub vcpu: Vec<u8>,
    /// `DevicesState`, encoded.
    pub devices: Vec<u8>,
    /// Pages, ascending.
    pub pages: Vec<PageImage>,
}

/// The digest that closes a checkpoint in a recording, built up in the order in which that is written.
#[derive(Default)]
pub struct ImageDigest(Xxh3);

impl ImageDigest {
    /// Starts with the states.
    pub fn new(full: bool, vcpu: &[u8], devices: &[u8]) -> ImageDigest {
        let mut hasher = Xxh3::new();
        hasher.update(&[u8::from(full)]);
        for part in [vcpu, devices] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        ImageDigest(hasher)
    }

    /// Adds a page as it is, however it is told.
    pub fn page(&mut self, number: u64, bytes: &[u8; PAGE as usize]) {
        self.0.update(&number.to_le_bytes());
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}
