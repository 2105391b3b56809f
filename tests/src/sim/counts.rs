//! Counters of what happened in the runs. They show that the intended scenarios really took place.

use std::fmt;
use std::marker::PhantomData;

/// An enum of counters, defined by the macro `counters`.
pub trait Counter: Copy {
    /// The label of each counter, by its index.
    const LABELS: &'static [&'static str];

    /// The index of this counter.
    fn index(self) -> usize;
}

/// Defines an enum of counters, each with its label in the table.
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

/// The value of each counter of `K`.
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
    /// Adds one to a counter.
    pub fn count(&mut self, counter: K) {
        self.add(counter, 1);
    }

    /// Adds `number` to a counter.
    pub fn add(&mut self, counter: K, number: u64) {
        self.numbers[counter.index()] += number;
    }

    /// The value of a counter.
    pub fn of(&self, counter: K) -> u64 {
        self.numbers[counter.index()]
    }

    /// All values, in the order of [`Counter::LABELS`].
    pub fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// Adds the counts of another run. The order of merges does not matter.
    pub fn merge(&mut self, other: &Self) {
        for (sum, number) in self.numbers.iter_mut().zip(&other.numbers) {
            *sum += number;
        }
    }
}

/// Formats a table with a line for each counter.
impl<K: Counter> fmt::Display for Counts<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, number) in K::LABELS.iter().zip(&self.numbers) {
            writeln!(f, "  {label:<44} {number:>14}")?;
        }
        Ok(())
    }
}
