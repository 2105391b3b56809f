//! Replay protection: which sequence numbers were accepted, as a sliding window in a ring of words (RFC
//! 6479).

/// Bits in a word of the bitmap.
const WORD_BITS: u64 = u64::BITS as u64;
/// Words in the bitmap; a power of two.
const WORDS: usize = 16;

/// How far behind the highest accepted number another number may be. The bitmap has one word more: the
/// word that the window moves into is cleared as a whole, so nothing is ever shifted.
pub const WINDOW_FRAMES: u64 = (WORDS as u64 - 1) * WORD_BITS;

const _: () = assert!(WORDS.is_power_of_two());

/// Why a sequence number is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It was accepted before.
    Seen,
    /// It is more than [`WINDOW_FRAMES`] behind, so whether it was accepted is not known.
    TooOld,
}

/// The sequence numbers accepted so far.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// Bit `n % 64` of word `n / 64 % WORDS` stands for number `n`.
    words: [u64; WORDS],
    /// One more than the highest number accepted.
    next: u64,
}

impl ReplayWindow {
    /// Returns a window in which no number was accepted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks whether `sequence` (below `u64::MAX`) may be accepted. Call this before the expensive
    /// check of the tag, and [`accept`](Self::accept) after it.
    ///
    /// # Errors
    ///
    /// When the number was accepted before, or may have been.
    pub fn check(&self, sequence: u64) -> Result<(), Replay> {
        if sequence >= self.next {
            Ok(())
        } else if self.next - sequence > WINDOW_FRAMES {
            Err(Replay::TooOld)
        } else if self.words[index(sequence)] & bit(sequence) != 0 {
            Err(Replay::Seen)
        } else {
            Ok(())
        }
    }

    /// Marks `sequence` as accepted.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) refuses the number.
    pub fn accept(&mut self, sequence: u64) {
        assert_eq!(self.check(sequence), Ok(()), "sequence {sequence} must not be accepted");
        if sequence >= self.next {
            // Keep the word of the highest number so far. All words after it, up to the new number's,
            // are for numbers not yet accepted.
            let highest_word = self.next.saturating_sub(1) / WORD_BITS;
            let skipped = sequence / WORD_BITS - highest_word;
            for step in 1..=skipped.min(WORDS as u64) {
                self.words[(highest_word + step) as usize % WORDS] = 0;
            }
            self.next = sequence + 1;
        }
        self.words[index(sequence)] |= bit(sequence);
    }
}

fn index(sequence: u64) -> usize {
    (sequence / WORD_BITS) as usize % WORDS
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD_BITS)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_in_order_are_accepted_once() {
        let mut window = ReplayWindow::new();
        for n in 0..5000 {
            window.accept(n);
            assert_eq!(window.check(n), Err(Replay::Seen));
        }
        assert_eq!(window.check(5000 - WINDOW_FRAMES), Err(Replay::Seen));
        assert_eq!(window.check(5000 - WINDOW_FRAMES - 1), Err(Replay::TooOld));
    }

    #[test]
    fn number_behind_is_accepted_within_the_window_only() {
        let mut window = ReplayWindow::new();
        window.accept(10_000);
        let oldest = 10_001 - WINDOW_FRAMES;
        assert_eq!(window.check(oldest - 1), Err(Replay::TooOld));
        for n in oldest..10_000 {
            window.accept(n);
        }
        for n in oldest..=10_000 {
            assert_eq!(window.check(n), Err(Replay::Seen));
        }
    }

    #[test]
    fn window_survives_the_largest_jump() {
        let mut window = ReplayWindow::new();
        window.accept(0);
        window.accept(u64::MAX - 1);
        assert_eq!(window.check(0), Err(Replay::TooOld));
        assert_eq!(window.check(u64::MAX - 1), Err(Replay::Seen));
        window.accept(u64::MAX - 2);
    }

    /// The window gives the same answers as a set of all accepted numbers, in any order of numbers.
    #[test]
    fn window_agrees_with_a_set_of_all_accepted_numbers() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut window = ReplayWindow::new();
        let (mut seen, mut top) = (BTreeSet::new(), 0_u64);
        for _ in 0..200_000 {
            let n = match random(20) {
                0 => top + random(3000),
                1..=9 => top + random(3),
                _ => top.saturating_sub(random(WINDOW_FRAMES + 100)),
            };
            let expected = if n + WINDOW_FRAMES < top {
                Err(Replay::TooOld)
            } else if seen.contains(&n) {
                Err(Replay::Seen)
            } else {
                Ok(())
            };
            assert_eq!(window.check(n), expected, "number {n}, next {top}");
            if expected.is_ok() {
                window.accept(n);
                seen.insert(n);
                top = top.max(n + 1);
            }
        }
    }

    /// Every sequence of four numbers at the edges of words, of the ring and of the window gives the answers of a
    /// set.
    #[test]
    fn every_short_sequence_of_numbers_at_an_edge_agrees_with_a_set() {
        let ring = WORDS as u64 * WORD_BITS;
        let edges =
            [0, 1, WORD_BITS - 1, WORD_BITS, WINDOW_FRAMES - 1, WINDOW_FRAMES, WINDOW_FRAMES + 1];
        let ring_edges =
            [ring - 1, ring, ring + 1, ring + WORD_BITS, 2 * ring - 1, 2 * ring, u64::MAX - 1];
        let numbers = [edges, ring_edges].concat();
        let count = numbers.len();
        for sequence in 0..count.pow(4) {
            let mut window = ReplayWindow::new();
            let (mut seen, mut top) = (BTreeSet::new(), 0_u64);
            for place in 0..4 {
                let n = numbers[sequence / count.pow(place) % count];
                let expected = if n < top && top - n > WINDOW_FRAMES {
                    Err(Replay::TooOld)
                } else if seen.contains(&n) {
                    Err(Replay::Seen)
                } else {
                    Ok(())
                };
                assert_eq!(window.check(n), expected, "number {n} of sequence {sequence}");
                if expected.is_ok() {
                    window.accept(n);
                    seen.insert(n);
                    top = top.max(n + 1);
                }
            }
        }
    }
}
