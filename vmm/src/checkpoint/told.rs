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

use logchan::changes::Changes;
use logchan::entry::{PageBytes, StateBytes};
use logchan::error::FieldError;
use logchan::limits::{PAGE_BYTES, PAGE_CHANGES_BYTES_MAX, told_pages_max};
use std::collections::HashMap;

type Page = [u8; PAGE_BYTES];

const ZERO: Page = [0; PAGE_BYTES];

/// Copies of pages and states, no more than [`told_pages_max`] of the former. A copy that has to make room
/// is one that was not told of for a while (the clock algorithm).
pub struct Told {
    copies: Vec<Copy>,
    /// Where the copy of a page is.
    places: HashMap<u64, usize>,
    /// The next copy to be looked at when there must be room.
    hand: usize,
    pages_max: usize,
    /// A full checkpoint is being told: its pages are whole, and no copies are kept of them.
    full: bool,
    /// vCPU state.
    pub vcpu: ToldState,
    /// Device state.
    pub devices: ToldState,
    /// For changes that are about to be told.
    room: Box<Page>,
}

struct Copy {
    number: u64,
    bytes: Box<Page>,
    /// It was told of since the hand passed by.
    recent: bool,
}

impl Told {
    /// Nothing was told yet of a machine with `memory_pages` pages: a full checkpoint comes first.
    pub fn new(memory_pages: u64) -> Told {
        Told::with_pages_max(told_pages_max(memory_pages))
    }

    /// The same with a bound of the caller's, which must be the other side's, too.
    ///
    /// # Panics
    ///
    /// When that is zero.
    pub fn with_pages_max(pages_max: usize) -> Told {
        assert!(pages_max > 0, "a page that is told of has a copy");
        Told {
            full: true,
            copies: Vec::new(),
            places: HashMap::new(),
            hand: 0,
            pages_max,
            vcpu: ToldState::default(),
            devices: ToldState::default(),
            room: Box::new(ZERO),
        }
    }

    /// A checkpoint begins. A full one depends on nothing that was told before.
    pub fn begin(&mut self, full: bool) {
        if full {
            *self = Told::with_pages_max(self.pages_max);
        }
        self.full = full;
    }

    /// How the log tells that page `number` now is `page`. From here on it has.
    pub fn tell<'a>(&'a mut self, number: u64, page: &'a Page) -> PageBytes<'a> {
        if self.full {
            return whole(page);
        }
        if is_zero(page) {
            self.told_zero(number);
            return PageBytes::Zero;
        }
        let place = self.place(number);
        let copy = &mut self.copies[place].bytes;
        let room = &mut self.room[..PAGE_CHANGES_BYTES_MAX];
        let changes = Changes::between(&copy[..], page, room);
        copy.copy_from_slice(page);
        changes.map_or(PageBytes::Raw(page), PageBytes::Changed)
    }

    /// The contents of page `number` that the log tells in this way; `None` are zeros.
    ///
    /// # Errors
    ///
    /// Those are no changes of a page, or are in a full checkpoint.
    pub fn hear<'a>(
        &'a mut self,
        number: u64,
        bytes: &PageBytes<'a>,
    ) -> Result<Option<&'a Page>, FieldError> {
        let place = match *bytes {
            PageBytes::Zero => {
                self.told_zero(number);
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
            PageBytes::Changed(_) if self.full => {
                return Err(FieldError::OutOfBounds { field: "form", value: 3, min: 1, max: 2 });
            }
            PageBytes::Changed(changes) => {
                let place = self.place(number);
                changes.apply(&mut self.copies[place].bytes[..])?;
                place
            }
        };
        Ok(Some(&self.copies[place].bytes))
    }

    fn told_zero(&mut self, number: u64) {
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

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("pages", &self.copies.len()).finish_non_exhaustive()
    }
}

/// A state as it was told last; of no bytes, if it was not.
#[derive(Debug, Default)]
pub struct ToldState {
    told: Vec<u8>,
    /// For changes that are about to be told.
    room: Vec<u8>,
}

impl ToldState {
    /// How the log tells that the state now is `state`. It has when [`keep`](Self::keep) is told so.
    pub fn tell<'a>(&'a mut self, state: &'a [u8]) -> StateBytes<'a> {
        if self.told.len() != state.len() || state.is_empty() {
            return StateBytes::Whole(state);
        }
        self.room.resize(state.len(), 0);
        let changes = Changes::between(&self.told, state, &mut self.room);
        changes.map_or(StateBytes::Whole(state), StateBytes::Changed)
    }

    /// The log has told of `state`.
    pub fn keep(&mut self, state: &[u8]) {
        self.told.clear();
        self.told.extend_from_slice(state);
    }

    /// The state that the log tells in this way.
    ///
    /// # Errors
    ///
    /// Those are no changes, or not of a state of that length.
    pub fn hear(&mut self, bytes: &StateBytes<'_>) -> Result<&[u8], FieldError> {
        match *bytes {
            StateBytes::Whole(state) => self.keep(state),
            StateBytes::Changed(changes) => changes.apply(&mut self.told)?,
        }
        Ok(&self.told)
    }
}

fn is_zero(page: &Page) -> bool {
    *page == ZERO
}

/// A page as a full checkpoint has it.
pub fn whole(page: &Page) -> PageBytes<'_> {
    if is_zero(page) { PageBytes::Zero } else { PageBytes::Raw(page) }
}
