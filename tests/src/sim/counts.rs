//! What happened, counted: so that a reader sees that the scenarios that were meant took place.

use std::fmt;
use std::marker::PhantomData;

/// What is counted; made by the macro `counters`.
pub trait Counter: Copy {
    /// What each one is called, by its number.
    const LABELS: &'static [&'static str];

    /// Its number.
    fn index(self) -> usize;
}

/// An enum of counters, each with the words that a table shows for it.
macro_rules! counters {
    ($(#[$meta:meta])* $seen:vis enum $name:ident { $($counter:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $seen enum $name { $(#[doc = $label] $counter,)* }

        impl $crate::sim::counts::Counter for $name {
            const LABELS: &'static [&'static str] = &[$($label,)*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use counters;

/// A number for each counter of `K`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts<K> {
    numbers: Vec<u64>,
    of: PhantomData<K>,
}

impl<K: Counter> Default for Counts<K> {
    fn default() -> Self {
        Self { numbers: vec![0; K::LABELS.len()], of: PhantomData }
    }
}

impl<K: Counter> Counts<K> {
    /// One more.
    pub fn count(&mut self, counter: K) {
        self.add(counter, 1);
    }

    /// As many more.
    pub fn add(&mut self, counter: K, number: u64) {
        self.numbers[counter.index()] += number;
    }

    /// How many there were.
    pub fn of(&self, counter: K) -> u64 {
        self.numbers[counter.index()]
    }

    /// All of them, in the order of [`Counter::LABELS`].
    pub fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// Takes in those of another run; the order of runs does not matter.
    pub fn merge(&mut self, other: &Self) {
        for (sum, number) in self.numbers.iter_mut().zip(&other.numbers) {
            *sum += number;
        }
    }
}

/// A table of two columns.
impl<K: Counter> fmt::Display for Counts<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, number) in K::LABELS.iter().zip(&self.numbers) {
            writeln!(f, "  {label:<44} {number:>14}")?;
        }
        Ok(())
    }
}
