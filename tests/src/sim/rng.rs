//! The seeded random generator.
//!
//! It is implemented here and not taken from a crate, so that a seed gives the same numbers with every
//! future version: `tests/seeds` keeps the seeds that found bugs.

use std::fmt;
use std::ops::RangeInclusive;

/// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// The generator's output for state `state`.
pub const fn mix(state: u64) -> u64 {
    let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The increment of the generator's state per word.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A probability, in parts per million.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// Probability 0.
    pub const NEVER: Self = Self(0);

    /// `ppm` in a million.
    pub const fn ppm(ppm: u32) -> Self {
        Self(ppm)
    }

    /// `percent` in a hundred.
    pub const fn percent(percent: u32) -> Self {
        Self(percent * 10_000)
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04} %", self.0 / 10_000, self.0 % 10_000)
    }
}

impl Rng {
    /// Creates the generator of `seed`. Neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(STEP)))
    }

    /// Creates an independent generator: draws from one do not affect the other.
    pub fn fork(&mut self) -> Self {
        Self::new(self.word())
    }

    /// A uniformly distributed word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A uniformly distributed number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniformly distributed number in `range`.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        first + self.below(last - first + 1)
    }

    /// A number in `range` whose order of magnitude is uniformly distributed, because rare and frequent
    /// faults exercise different behaviour. The range must not begin with 0.
    pub fn magnitude(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        let octave = self.within(first.ilog2().into()..=last.ilog2().into());
        let floor = first.max(1 << octave);
        self.within(floor..=last.min((1 << octave) + ((1 << octave) - 1)))
    }

    /// Returns true with probability `chance`.
    pub fn chance(&mut self, chance: Chance) -> bool {
        // Always draws a number, so that runs with different probabilities stay comparable.
        self.below(1_000_000) < u64::from(chance.0)
    }

    /// A uniformly chosen element of `of`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Draws the probability of a fault in this run: with probability `present` of any magnitude in `ppm`,
    /// otherwise 0 (Groce et al., "Swarm testing", 2012: leaving out some faults uncovers bugs that they
    /// would hide).
    pub fn swarm(&mut self, present: Chance, ppm: RangeInclusive<u32>) -> Chance {
        let (least, most) = ppm.into_inner();
        let drawn = Chance(self.magnitude(u64::from(least)..=u64::from(most)) as u32);
        if self.chance(present) { drawn } else { Chance::NEVER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitude_stays_in_range_and_reaches_both_ends() {
        let mut rng = Rng::new(1);
        for (first, last) in [(1, 1), (1, 2), (3, 5), (7, 8), (100, 1000), (1, u64::MAX)] {
            let drawn: Vec<u64> = (0..5000).map(|_| rng.magnitude(first..=last)).collect();
            assert!(drawn.iter().all(|number| (first..=last).contains(number)));
            if last < 10 {
                assert!(drawn.contains(&first) && drawn.contains(&last), "{first}..={last}");
            }
        }
        let small = (0..1000).filter(|_| rng.magnitude(1..=1 << 20) < 1 << 10).count();
        assert!((350..650).contains(&small), "{small} of 1000 below the middle magnitude");
    }

    #[test]
    fn chance_happens_at_its_rate() {
        let mut rng = Rng::new(2);
        let hits = |rng: &mut Rng, chance| (0..100_000).filter(|_| rng.chance(chance)).count();
        assert_eq!(hits(&mut rng, Chance::NEVER), 0);
        assert_eq!(hits(&mut rng, Chance::percent(100)), 100_000);
        assert!((900..1100).contains(&hits(&mut rng, Chance::percent(1))));
    }

    #[test]
    fn seed_gives_the_same_numbers_in_every_version() {
        // The first two words of the reference implementation (Vigna) with seed 0.
        let reference = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4];
        assert_eq!([mix(STEP), mix(STEP.wrapping_mul(2))], reference);
        let mut rng = Rng::new(0);
        assert_eq!([rng.word(), rng.word()], [0xa706_dd2f_4d19_7e6f, 0xb382_a305_f441_4f5e]);
    }
}
