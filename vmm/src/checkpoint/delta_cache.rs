//! What the log told of the machine last: the base of what it says has changed.
//!
//! Writer and reader of a log each keep this, by the same rule, so that they have the same: it is a
//! function of the checkpoints in the log. Guest memory is no such base. A writer does not know what a
//! page held where the region began that its checkpoint ends, and a reader, who did not execute that
//! region, has nothing else; a page that was written and put back is unchanged here, and not in the
//! reader's memory. So a checkpoint names every page that was written, and its reader writes each of them.
//!
//! What differs nevertheless comes to another digest of the checkpoint, which covers what its pages and
//! states are, not how they were told.

use logchan::entry::{PageBytes, StateBytes};
use logchan::error::FieldError;
use logchan::limits::{PAGE_BYTES, PAGE_DELTA_BYTES_MAX, delta_cache_pages_max};
use logchan::page_delta::PageDelta;
use std::collections::HashMap;

type Page = [u8; PAGE_BYTES];

const ZERO: Page = [0; PAGE_BYTES];

/// Copies of pages and states, no more than [`delta_cache_pages_max`] of the former. A copy that has to make room
/// is one that was not told of for a while (the clock algorithm).
pub struct DeltaCache {
    copies: Vec<Copy>,
    /// Where the copy of a page is.
    places: HashMap<u64, usize>,
    /// The next copy to be looked at when there must be room.
    hand: usize,
    pages_max: usize,
    /// A full checkpoint is being told: its pages are whole, and no copies are kept of them.
    full: bool,
    /// vCPU state.
    pub vcpu: StateCache,
    /// Device state.
    pub devices: StateCache,
    /// For changes that are about to be told.
    room: Box<Page>,
}

struct Copy {
    number: u64,
    bytes: Box<Page>,
    /// It was told of since the hand passed by.
    recent: bool,
}

impl DeltaCache {
    /// Nothing was told yet of a machine with `memory_pages` pages: a full checkpoint comes first.
    pub fn new(memory_pages: u64) -> DeltaCache {
        DeltaCache::with_pages_max(delta_cache_pages_max(memory_pages))
    }

    /// The same with a bound of the caller's, which must be the other side's, too.
    ///
    /// # Panics
    ///
    /// When that is zero.
    pub fn with_pages_max(pages_max: usize) -> DeltaCache {
        assert!(pages_max > 0, "a page that is cache of has a copy");
        DeltaCache {
            full: true,
            copies: Vec::new(),
            places: HashMap::new(),
            hand: 0,
            pages_max,
            vcpu: StateCache::default(),
            devices: StateCache::default(),
            room: Box::new(ZERO),
        }
    }

    /// A checkpoint begins. A full one depends on nothing that was told before.
    pub fn begin(&mut self, full: bool) {
        if full {
            *self = DeltaCache::with_pages_max(self.pages_max);
        }
        self.full = full;
    }

    /// How the log tells that page `number` now is `page`. From here on it has.
    pub fn encode<'a>(&'a mut self, number: u64, page: &'a Page) -> PageBytes<'a> {
        if self.full {
            return whole(page);
        }
        if is_zero(page) {
            self.set_zero(number);
            return PageBytes::Zero;
        }
        let place = self.place(number);
        let copy = &mut self.copies[place].bytes;
        let room = &mut self.room[..PAGE_DELTA_BYTES_MAX];
        let changes = PageDelta::make(&mut copy[..], page, room);
        changes.map_or(PageBytes::Raw(page), PageBytes::Delta)
    }

    /// The contents of page `number` that the log tells in this way; `None` are zeros.
    ///
    /// # Errors
    ///
    /// Those are no changes of a page, or are in a full checkpoint.
    pub fn decode<'a>(
        &'a mut self,
        number: u64,
        bytes: &PageBytes<'a>,
    ) -> Result<Option<&'a Page>, FieldError> {
        let place = match *bytes {
            PageBytes::Zero => {
                self.set_zero(number);
                return Ok(None);
            }
            PageBytes::Raw(raw) if self.full => {
                return Ok(Some(raw.try_into().expect("the codec checks a page's length")));
            }
            PageBytes::Raw(raw) => {
                let place = self.place(number);
                self.copies[place].bytes.copy_from_slice(raw);
                place
            }
            PageBytes::Delta(_) if self.full => {
                return Err(FieldError::OutOfBounds { field: "form", value: 3, min: 1, max: 2 });
            }
            PageBytes::Delta(changes) => {
                let place = self.place(number);
                changes.apply(&mut self.copies[place].bytes[..])?;
                place
            }
        };
        Ok(Some(&self.copies[place].bytes))
    }

    fn set_zero(&mut self, number: u64) {
        // Without a copy it counts as zero anyway.
        if let Some(&place) = self.places.get(&number) {
            self.copies[place].bytes.fill(0);
            self.copies[place].recent = true;
        }
    }

    /// Where the copy of a page is, which is of zeros if there was none.
    fn place(&mut self, number: u64) -> usize {
        if let Some(&place) = self.places.get(&number) {
            self.copies[place].recent = true;
            return place;
        }
        let place = if self.copies.len() < self.pages_max {
            self.copies.push(Copy { number, bytes: Box::new(ZERO), recent: false });
            self.copies.len() - 1
        } else {
            let place = self.oldest();
            let copy = &mut self.copies[place];
            self.places.remove(&copy.number);
            copy.number = number;
            copy.bytes.fill(0);
            place
        };
        self.places.insert(number, place);
        place
    }

    /// A copy that was not told of since the hand was there last. It passes by each at most once: behind it
    /// none is recent.
    fn oldest(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (place + 1) % self.copies.len();
            if !std::mem::take(&mut self.copies[place].recent) {
                return place;
            }
        }
    }
}

impl std::fmt::Debug for DeltaCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaCache").field("pages", &self.copies.len()).finish_non_exhaustive()
    }
}

/// A state as it was told last; of no bytes, if it was not.
#[derive(Debug, Default)]
pub struct StateCache {
    cache: Vec<u8>,
    /// For changes that are about to be told.
    room: Vec<u8>,
}

impl StateCache {
    /// How the log tells that the state now is `state`. From here on it has.
    pub fn encode<'a>(&'a mut self, state: &'a [u8]) -> StateBytes<'a> {
        if self.cache.len() != state.len() || state.is_empty() {
            self.keep(state);
            return StateBytes::Whole(state);
        }
        self.room.resize(state.len(), 0);
        let changes = PageDelta::make(&mut self.cache, state, &mut self.room);
        changes.map_or(StateBytes::Whole(state), StateBytes::Delta)
    }

    fn keep(&mut self, state: &[u8]) {
        self.cache.clear();
        self.cache.extend_from_slice(state);
    }

    /// The state that the log tells in this way.
    ///
    /// # Errors
    ///
    /// Those are no changes, or not of a state of that length.
    pub fn decode(&mut self, bytes: &StateBytes<'_>) -> Result<&[u8], FieldError> {
        match *bytes {
            StateBytes::Whole(state) => self.keep(state),
            StateBytes::Delta(changes) => changes.apply(&mut self.cache)?,
        }
        Ok(&self.cache)
    }
}

fn is_zero(page: &Page) -> bool {
    *page == ZERO
}

/// A page as a full checkpoint has it.
pub fn whole(page: &Page) -> PageBytes<'_> {
    if is_zero(page) { PageBytes::Zero } else { PageBytes::Raw(page) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linear congruential generator (Knuth's MMIX), the upper half of it.
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

    /// Tells and hears; how many bytes that took.
    fn pass(writer: &mut DeltaCache, reader: &mut DeltaCache, number: u64, page: &Page) -> usize {
        let cache = writer.encode(number, page);
        let heard = reader.decode(number, &cache).expect("what is cache is heard");
        assert!(heard.unwrap_or(&ZERO) == page, "page {number} is another one");
        match cache {
            PageBytes::Zero => 0,
            PageBytes::Raw(raw) => raw.len(),
            PageBytes::Delta(changes) => changes.bytes().len(),
        }
    }

    #[test]
    fn what_is_told_is_heard_whatever_makes_room_for_what() {
        for pages_max in [1, 2, 7, 64] {
            let mut rng = Rng(pages_max as u64);
            let mut ends = [(); 2].map(|()| DeltaCache::with_pages_max(pages_max));
            let [writer, reader] = &mut ends;
            let mut memory = [ZERO; 16];
            for turn in 0..4000 {
                if turn % 500 == 0 {
                    writer.begin(turn % 1000 == 0);
                    reader.begin(turn % 1000 == 0);
                }
                let number = rng.below(16).min(rng.below(16));
                let page = &mut memory[number];
                match rng.below(8) {
                    0 => *page = ZERO,
                    1 => page.fill(rng.below(256) as u8),
                    2 => page.iter_mut().for_each(|byte| *byte = rng.below(256) as u8),
                    _ => page[rng.below(PAGE_BYTES)] = rng.below(256) as u8,
                }
                pass(writer, reader, number as u64, page);
                assert!(writer.copies.len() <= pages_max);
                assert_eq!(writer.places.len(), writer.copies.len());
            }
        }
    }

    #[test]
    fn a_page_is_told_in_full_once_and_then_in_changes() {
        let mut ends = [(); 2].map(|()| DeltaCache::with_pages_max(2));
        let [writer, reader] = &mut ends;
        let mut page = [7; PAGE_BYTES];
        assert_eq!(pass(writer, reader, 5, &page), PAGE_BYTES, "in a full checkpoint");
        writer.begin(false);
        reader.begin(false);
        assert_eq!(pass(writer, reader, 5, &page), PAGE_BYTES, "for the first time");
        assert_eq!(pass(writer, reader, 5, &page), 8, "as it was");
        page[100] = 8;
        assert_eq!(pass(writer, reader, 5, &page), 8 + 3, "a byte of it changed");
        assert_eq!(pass(writer, reader, 5, &ZERO), 0);
        assert_eq!(pass(writer, reader, 6, &page_with(&[(9, 1)])), 8 + 3, "hardly anything");
        pass(writer, reader, 7, &page);
        assert_eq!(pass(writer, reader, 5, &page), PAGE_BYTES, "its copy made room for another");
    }

    #[test]
    fn changes_to_another_base_are_another_page() {
        let [mut writer, mut reader] = [(); 2].map(|()| DeltaCache::with_pages_max(4));
        writer.begin(false);
        reader.begin(false);
        let page = page_with(&[(8, 1)]);
        pass(&mut writer, &mut reader, 3, &page);
        reader.copies[0].bytes[4000] ^= 1;
        let page = page_with(&[(8, 2)]);
        let heard = reader.decode(3, &writer.encode(3, &page)).unwrap();
        assert!(heard != Some(&page), "which the checkpoint's digest tells");
    }

    #[test]
    fn states_are_told_in_changes_while_they_are_as_long() {
        let [mut writer, mut reader] = [StateCache::default(), StateCache::default()];
        let mut pass = |state: &[u8]| {
            let cache = writer.encode(state);
            assert_eq!(reader.decode(&cache), Ok(state));
            matches!(cache, StateBytes::Delta(_))
        };
        assert_eq!([pass(&[]), pass(&[1; 5000])], [false, false]);
        let mut state = [1; 5000];
        state[4999] = 2;
        assert!(pass(&state));
        assert!(!pass(&[1; 4999]));
        assert!(!pass(&[2; 4999]), "it is shorter than its changes");
    }

    #[test]
    fn bytes_of_any_kind_are_heard_or_refused() {
        let mut rng = Rng(1);
        let mut cache = DeltaCache::with_pages_max(8);
        let mut refused = 0;
        for turn in 0..20_000 {
            cache.begin(turn % 1000 == 0);
            let mut bytes: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(256) as u8).collect();
            // Few lines: a mask of many wants more bytes than there are.
            bytes.iter_mut().take(8).for_each(|byte| *byte &= 1 << (turn % 8));
            let Ok(changes) = PageDelta::new(&bytes) else { continue };
            let number = rng.below(64) as u64 * u64::from(u32::MAX);
            refused += u32::from(cache.decode(number, &PageBytes::Delta(changes)).is_err());
            let _same_or_refused = cache.vcpu.decode(&StateBytes::Delta(changes));
            assert!(cache.copies.len() <= 8);
        }
        assert!(refused > 0);
    }
}
