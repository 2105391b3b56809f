//! The delta cache: the pages and states that the log contained last, as the base for deltas (cf.
//! XBZRLE).
//!
//! The writer and the reader of a log each keep one and update it by the same rule, so that both hold the
//! same contents: it is a function of the checkpoints in the log.
//!
//! Guest memory cannot be the base. The writer does not know what a page held at the start of the region
//! that its checkpoint ends. The reader knows nothing else, because it did not execute that region. So if
//! the guest changes a page, and in that region restores the contents that the caches have, the page
//! equals the writer's copy but not the reader's memory. Therefore a checkpoint names every page that was
//! written, and the reader writes each of them.
//!
//! If the two caches should differ, the checkpoint's digest does not match, because it covers the decoded
//! pages and states and not their encoding.

use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashMap;
use logchan::entry::{PageBytes, StateBytes};
use logchan::error::FieldError;
use logchan::limits::{PAGE_BYTES, PAGE_DELTA_BYTES_MAX, delta_cache_pages_max};
use logchan::page_delta::PageDelta;

type Page = [u8; PAGE_BYTES];

const ZERO: Page = [0; PAGE_BYTES];

/// Copies of the last encoded pages and states, with at most [`delta_cache_pages_max`] pages.
///
/// A page that was not encoded recently is evicted (the clock algorithm).
pub struct DeltaCache {
    copies: Vec<Copy>,
    /// Index in `copies` of a page's copy.
    slots: HashMap<u64, usize>,
    /// Index of the copy that the eviction examines next.
    clock_hand: usize,
    pages_max: usize,
    /// A full checkpoint is being encoded or decoded: its pages are whole, and no copies are kept of
    /// them.
    full: bool,
    /// vCPU state.
    pub vcpu: StateCache,
    /// Device state.
    pub devices: StateCache,
    /// Buffer for the delta being encoded.
    delta_buffer: Box<Page>,
}

struct Copy {
    number: u64,
    bytes: Box<Page>,
    /// It was used since `clock_hand` last passed it.
    recent: bool,
}

impl DeltaCache {
    /// Creates an empty cache for a machine with `memory_pages` pages. A full checkpoint must come first.
    pub fn new(memory_pages: u64) -> DeltaCache {
        DeltaCache::with_pages_max(delta_cache_pages_max(memory_pages))
    }

    /// Creates an empty cache with a bound chosen by the caller. Writer and reader must use the same
    /// bound.
    ///
    /// # Panics
    ///
    /// If `pages_max` is zero.
    pub fn with_pages_max(pages_max: usize) -> DeltaCache {
        assert!(pages_max > 0, "the delta cache must hold at least one page");
        DeltaCache {
            full: true,
            copies: Vec::new(),
            slots: HashMap::new(),
            clock_hand: 0,
            pages_max,
            vcpu: StateCache::default(),
            devices: StateCache::default(),
            delta_buffer: Box::new(ZERO),
        }
    }

    /// Starts a checkpoint. A full checkpoint depends on nothing before it, so it clears the cache.
    pub fn begin(&mut self, full: bool) {
        if full {
            *self = DeltaCache::with_pages_max(self.pages_max);
        }
        self.full = full;
    }

    /// Encodes the contents `page` of page `number`, and remembers them.
    pub fn encode<'a>(&'a mut self, number: u64, page: &'a Page) -> PageBytes<'a> {
        if self.full {
            return whole(page);
        }
        if is_zero(page) {
            self.set_zero(number);
            return PageBytes::Zero;
        }
        let slot = self.slot(number);
        let copy = &mut self.copies[slot].bytes;
        let delta_buffer = &mut self.delta_buffer[..PAGE_DELTA_BYTES_MAX];
        let delta = PageDelta::make(&mut copy[..], page, delta_buffer);
        delta.map_or(PageBytes::Raw(page), PageBytes::Delta)
    }

    /// Decodes the contents of page `number`, and remembers them. `None` is a page of zeros.
    ///
    /// # Errors
    ///
    /// The delta is malformed, or is in a full checkpoint.
    pub fn decode<'a>(
        &'a mut self,
        number: u64,
        bytes: &PageBytes<'a>,
    ) -> Result<Option<&'a Page>, FieldError> {
        let slot = match *bytes {
            PageBytes::Zero => {
                self.set_zero(number);
                return Ok(None);
            }
            PageBytes::Raw(raw) if self.full => {
                return Ok(Some(raw.try_into().expect("the codec checks a page's length")));
            }
            PageBytes::Raw(raw) => {
                let slot = self.slot(number);
                self.copies[slot].bytes.copy_from_slice(raw);
                slot
            }
            PageBytes::Delta(_) if self.full => {
                return Err(FieldError::OutOfBounds { field: "form", value: 3, min: 1, max: 2 });
            }
            PageBytes::Delta(delta) => {
                let slot = self.slot(number);
                delta.apply(&mut self.copies[slot].bytes[..])?;
                slot
            }
        };
        Ok(Some(&self.copies[slot].bytes))
    }

    fn set_zero(&mut self, number: u64) {
        // A page without a copy counts as zero anyway.
        if let Some(&slot) = self.slots.get(&number) {
            self.copies[slot].bytes.fill(0);
            self.copies[slot].recent = true;
        }
    }

    /// Returns the index of the page's copy. A new copy is of zeros.
    fn slot(&mut self, number: u64) -> usize {
        if let Some(&slot) = self.slots.get(&number) {
            self.copies[slot].recent = true;
            return slot;
        }
        let slot = if self.copies.len() < self.pages_max {
            self.copies.push(Copy { number, bytes: Box::new(ZERO), recent: false });
            self.copies.len() - 1
        } else {
            let slot = self.evict();
            let copy = &mut self.copies[slot];
            self.slots.remove(&copy.number);
            copy.number = number;
            copy.bytes.fill(0);
            slot
        };
        self.slots.insert(number, slot);
        slot
    }

    /// Returns the index of a copy to reuse: one that was not used since `clock_hand` last passed it. The
    /// loop passes each copy at most once, because it clears the `recent` flag of every copy that it
    /// passes.
    fn evict(&mut self) -> usize {
        loop {
            let slot = self.clock_hand;
            self.clock_hand = (slot + 1) % self.copies.len();
            if !core::mem::take(&mut self.copies[slot].recent) {
                return slot;
            }
        }
    }
}

impl core::fmt::Debug for DeltaCache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeltaCache").field("pages", &self.copies.len()).finish_non_exhaustive()
    }
}

/// The state that was encoded or decoded last; empty if there was none.
#[derive(Debug, Default)]
pub struct StateCache {
    last: Vec<u8>,
    /// Buffer for the delta being encoded.
    delta_buffer: Vec<u8>,
}

impl StateCache {
    /// Encodes `state`, and remembers it.
    pub fn encode<'a>(&'a mut self, state: &'a [u8]) -> StateBytes<'a> {
        if self.last.len() != state.len() || state.is_empty() {
            self.keep(state);
            return StateBytes::Whole(state);
        }
        self.delta_buffer.resize(state.len(), 0);
        let delta = PageDelta::make(&mut self.last, state, &mut self.delta_buffer);
        delta.map_or(StateBytes::Whole(state), StateBytes::Delta)
    }

    fn keep(&mut self, state: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(state);
    }

    /// Decodes a state, and remembers it.
    ///
    /// # Errors
    ///
    /// The delta is malformed, or is for a state of another length.
    pub fn decode(&mut self, bytes: &StateBytes<'_>) -> Result<&[u8], FieldError> {
        match *bytes {
            StateBytes::Whole(state) => self.keep(state),
            StateBytes::Delta(delta) => delta.apply(&mut self.last)?,
        }
        Ok(&self.last)
    }
}

fn is_zero(page: &Page) -> bool {
    *page == ZERO
}

/// Encodes a page without a base, as a full checkpoint does.
pub fn whole(page: &Page) -> PageBytes<'_> {
    if is_zero(page) { PageBytes::Zero } else { PageBytes::Raw(page) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linear congruential generator (Knuth's MMIX) of which the upper half is used.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % end
        }
    }

    fn page_with(words: &[(usize, u8)]) -> Page {
        let mut page = ZERO;
        words.iter().for_each(|&(at, byte)| page[at] = byte);
        page
    }

    /// Encodes and decodes a page, and returns the number of encoded bytes.
    fn encode_and_decode(
        writer: &mut DeltaCache,
        reader: &mut DeltaCache,
        number: u64,
        page: &Page,
    ) -> usize {
        let encoded = writer.encode(number, page);
        let decoded = reader.decode(number, &encoded).expect("an encoded page decodes");
        assert!(decoded.unwrap_or(&ZERO) == page, "page {number} decodes to other contents");
        match encoded {
            PageBytes::Zero => 0,
            PageBytes::Raw(raw) => raw.len(),
            PageBytes::Delta(delta) => delta.bytes().len(),
        }
    }

    #[test]
    fn decode_returns_what_was_encoded_for_any_cache_size_and_eviction() {
        for pages_max in [1, 2, 7, 64] {
            let mut rng = Rng(pages_max as u64);
            let mut pair = [(); 2].map(|()| DeltaCache::with_pages_max(pages_max));
            let [writer, reader] = &mut pair;
            let mut memory = [ZERO; 16];
            for round in 0..4000 {
                if round % 500 == 0 {
                    writer.begin(round % 1000 == 0);
                    reader.begin(round % 1000 == 0);
                }
                let number = rng.below(16).min(rng.below(16));
                let page = &mut memory[number];
                match rng.below(8) {
                    0 => *page = ZERO,
                    1 => page.fill(rng.below(256) as u8),
                    2 => page.iter_mut().for_each(|byte| *byte = rng.below(256) as u8),
                    _ => page[rng.below(PAGE_BYTES)] = rng.below(256) as u8,
                }
                encode_and_decode(writer, reader, number as u64, page);
                assert!(writer.copies.len() <= pages_max);
                assert_eq!(writer.slots.len(), writer.copies.len());
            }
        }
    }

    #[test]
    fn page_is_encoded_whole_once_and_then_as_a_delta() {
        let mut pair = [(); 2].map(|()| DeltaCache::with_pages_max(2));
        let [writer, reader] = &mut pair;
        let mut page = [7; PAGE_BYTES];
        assert_eq!(encode_and_decode(writer, reader, 5, &page), PAGE_BYTES, "in a full checkpoint");
        writer.begin(false);
        reader.begin(false);
        assert_eq!(encode_and_decode(writer, reader, 5, &page), PAGE_BYTES, "for the first time");
        assert_eq!(encode_and_decode(writer, reader, 5, &page), 8, "unchanged");
        page[100] = 8;
        assert_eq!(encode_and_decode(writer, reader, 5, &page), 8 + 3, "one byte changed");
        assert_eq!(encode_and_decode(writer, reader, 5, &ZERO), 0);
        assert_eq!(
            encode_and_decode(writer, reader, 6, &page_with(&[(9, 1)])),
            8 + 3,
            "one byte differs from zero"
        );
        encode_and_decode(writer, reader, 7, &page);
        assert_eq!(encode_and_decode(writer, reader, 5, &page), PAGE_BYTES, "its copy was evicted");
    }

    #[test]
    fn delta_to_another_base_decodes_to_another_page() {
        let [mut writer, mut reader] = [(); 2].map(|()| DeltaCache::with_pages_max(4));
        writer.begin(false);
        reader.begin(false);
        let page = page_with(&[(8, 1)]);
        encode_and_decode(&mut writer, &mut reader, 3, &page);
        reader.copies[0].bytes[4000] ^= 1;
        let page = page_with(&[(8, 2)]);
        let decoded = reader.decode(3, &writer.encode(3, &page)).unwrap();
        assert!(decoded != Some(&page), "the checkpoint's digest detects this");
    }

    #[test]
    fn state_is_encoded_as_a_delta_while_its_length_is_unchanged() {
        let [mut writer, mut reader] = [StateCache::default(), StateCache::default()];
        let mut encode_and_decode = |state: &[u8]| {
            let encoded = writer.encode(state);
            assert_eq!(reader.decode(&encoded), Ok(state));
            matches!(encoded, StateBytes::Delta(_))
        };
        assert_eq!([encode_and_decode(&[]), encode_and_decode(&[1; 5000])], [false, false]);
        let mut state = [1; 5000];
        state[4999] = 2;
        assert!(encode_and_decode(&state));
        assert!(!encode_and_decode(&[1; 4999]));
        assert!(!encode_and_decode(&[2; 4999]), "the state is shorter than its delta");
    }

    #[test]
    fn arbitrary_delta_bytes_are_decoded_or_refused_without_panic() {
        let mut rng = Rng(1);
        let mut cache = DeltaCache::with_pages_max(8);
        let mut refused = 0;
        for round in 0..20_000 {
            cache.begin(round % 1000 == 0);
            let mut bytes: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(256) as u8).collect();
            // Few lines in the mask: a mask of many lines needs more bytes than there are.
            bytes.iter_mut().take(8).for_each(|byte| *byte &= 1 << (round % 8));
            let Ok(delta) = PageDelta::new(&bytes) else { continue };
            let number = rng.below(64) as u64 * u64::from(u32::MAX);
            refused += u32::from(cache.decode(number, &PageBytes::Delta(delta)).is_err());
            let _same_or_refused = cache.vcpu.decode(&StateBytes::Delta(delta));
            assert!(cache.copies.len() <= 8);
        }
        assert!(refused > 0);
    }
}
