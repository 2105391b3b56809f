//! The order of the faults.

use super::kind::Kind;
use fastrand::Rng;

/// Draws kinds of faults like cards from a deck, which is shuffled whenever it is empty: each kind comes equally
/// often.
#[derive(Clone, Debug)]
pub(super) struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    random: Rng,
}

impl Deck {
    /// Creates a deck of `kinds`, of which there must be one at least.
    pub(super) fn new(kinds: Vec<Kind>, seed: u64) -> Deck {
        Deck { kinds, left: Vec::new(), random: Rng::with_seed(seed) }
    }

    /// Draws a kind, and the random numbers of the fault. They do not depend on how many numbers the faults
    /// before used.
    pub(super) fn draw(&mut self) -> (Kind, Rng) {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.random.shuffle(&mut self.left);
        }
        let kind = self.left.pop().expect("a deck has a kind");
        (kind, self.random.fork())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, count: usize) -> Vec<(Kind, u64)> {
        let mut deck = Deck::new(Kind::ALL.to_vec(), seed);
        let draws = std::iter::repeat_with(|| deck.draw()).take(count);
        draws.map(|(kind, mut random)| (kind, random.u64(..))).collect()
    }

    #[test]
    fn every_kind_comes_equally_often_in_an_order_of_the_seed() {
        let rounds = 5;
        let first = draws(1, rounds * Kind::ALL.len());
        for kind in Kind::ALL {
            let count = first.iter().filter(|(drawn, _)| *drawn == kind).count();
            assert_eq!(count, rounds, "{}", kind.name());
        }
        assert_eq!(first, draws(1, first.len()));
        assert_ne!(first, draws(2, first.len()));
    }
}
