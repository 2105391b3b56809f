//! The toy machine's memory: pages, their dirty flags, and a digest of all pages.

use logchan::limits::PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_64;

/// The bytes of a page.
pub(crate) type PageContents = [u8; PAGE_BYTES];

/// Memory from address 0 on. Writes by the guest and by devices set a page's dirty flag.
#[derive(Clone, Debug)]
pub(crate) struct Ram {
    pages: Vec<Box<PageContents>>,
    /// Whether each page was written since the dirty flags were cleared.
    dirty: Vec<bool>,
    /// The digest of each page, `None` if the page was written since it was computed.
    digests: Vec<Option<u64>>,
}

impl Ram {
    /// Creates a memory of `pages` zeroed pages.
    pub(crate) fn new(pages: u64) -> Self {
        let pages = usize::try_from(pages).expect("memory fits memory");
        Self {
            pages: vec![Box::new([0; PAGE_BYTES]); pages],
            dirty: vec![false; pages],
            digests: vec![None; pages],
        }
    }

    /// The number of pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// The contents of one page.
    pub(crate) fn page(&self, number: u64) -> &PageContents {
        &self.pages[number as usize]
    }

    /// `length` bytes at `address`, within one page.
    pub(crate) fn bytes(&self, address: usize, length: usize) -> &[u8] {
        &self.pages[address / PAGE_BYTES][address % PAGE_BYTES..][..length]
    }

    /// Writes `bytes` at `address`, within one page.
    pub(crate) fn write(&mut self, address: usize, bytes: &[u8]) {
        let page = address / PAGE_BYTES;
        self.pages[page][address % PAGE_BYTES..][..bytes.len()].copy_from_slice(bytes);
        self.dirty[page] = true;
        self.digests[page] = None;
    }

    /// The word at `address`, a multiple of 8.
    pub(crate) fn word(&self, address: usize) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().expect("8 bytes"))
    }

    /// Writes a word at `address`, a multiple of 8.
    pub(crate) fn set_word(&mut self, address: usize, word: u64) {
        self.write(address, &word.to_le_bytes());
    }

    /// Replaces a page with the contents of a checkpoint, `None` for zeros. Does not set the dirty flag.
    pub(crate) fn restore(&mut self, number: u64, contents: Option<&PageContents>) {
        let page = number as usize;
        match contents {
            Some(contents) => *self.pages[page] = *contents,
            None => self.pages[page].fill(0),
        }
        self.digests[page] = None;
    }

    /// Returns the dirty pages, and clears their flags.
    pub(crate) fn take_dirty(&mut self) -> Vec<u64> {
        let dirty_pages = self.dirty.iter_mut().enumerate();
        let dirty_pages = dirty_pages
            .filter_map(|(page, is_dirty)| std::mem::take(is_dirty).then_some(page as u64));
        dirty_pages.collect()
    }

    /// The xxh3-64 digest of the pages' digests.
    pub(crate) fn digest(&mut self) -> u64 {
        let mut digests = Vec::with_capacity(self.pages.len() * 8);
        for (page, digest) in self.pages.iter().zip(&mut self.digests) {
            let digest = digest.get_or_insert_with(|| xxh3_64(&page[..]));
            digests.extend(digest.to_le_bytes());
        }
        xxh3_64(&digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_set_dirty_flags_and_change_the_digest() {
        let mut ram = Ram::new(3);
        let before = ram.digest();
        ram.set_word(PAGE_BYTES + 8, 5);
        assert_ne!(ram.digest(), before);
        assert_eq!((ram.take_dirty(), ram.take_dirty()), (vec![1], vec![]));
        ram.restore(1, None);
        assert_eq!((ram.digest(), ram.word(PAGE_BYTES + 8)), (before, 0));
        assert_eq!(ram.take_dirty(), [0; 0], "a restored page is not dirty");
    }
}
