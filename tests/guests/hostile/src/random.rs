//! The guest's random sequence. Whatever the guest reads is mixed into it, so that after a wrong answer of
//! the machine everything that follows differs.

/// A xorshift generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.0 = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for _ in 0..8 {
            self.next();
        }
    }

    /// Mixes in what the machine answered.
    pub(crate) fn fold(&mut self, value: u64) {
        // Zero is the one state that the sequence does not leave.
        self.0 = (self.0 ^ value.rotate_left(23).wrapping_mul(0x2545_F491_4F6C_DD1D)).max(1);
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// Returns true once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64) as usize;
        from.get(index).copied().unwrap_or(from[0])
    }

    /// Returns a small number, a power of two, a number near the end of a range, or any.
    pub(crate) fn value(&mut self) -> u64 {
        match self.below(6) {
            0 | 1 => self.below(20),
            2 => 1 << self.below(64),
            3 => (1u64 << self.pick(&[8, 16, 31, 32, 63])).wrapping_sub(self.below(3)),
            4 => u64::MAX - self.below(16),
            _ => self.next(),
        }
    }
}
