//! Interleaved rounds. Every subject is measured once per round, so that a temporary disturbance of the
//! machine affects all subjects alike. Ratios between subjects are then valid even where absolute times
//! are not.

use crate::error::BenchError;
use crate::interrupt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// The rounds of a measurement of several subjects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    /// Number of rounds.
    pub(crate) count: u32,
    /// Seed of the order of subjects in each round.
    pub(crate) seed: u64,
}

/// One of the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    number: u32,
    count: u32,
    /// A seed for this round.
    pub(crate) seed: u64,
}

impl Round {
    /// Returns the part of `total` that is measured in this round. The parts of all rounds add up to
    /// `total`.
    pub(crate) fn share(&self, total: u64) -> u64 {
        let until = |number: u32| total * u64::from(number) / u64::from(self.count);
        until(self.number + 1) - until(self.number)
    }
}

impl Rounds {
    fn round(&self, number: u32) -> Round {
        Round { number, count: self.count, seed: self.seed.wrapping_add(u64::from(number)) }
    }

    /// Calls `run_round` once per round for each of `subjects`, with the round and the subject, in an
    /// order that is drawn anew for each round. Stops after Ctrl-C.
    pub(crate) fn run<S>(
        &self,
        title: &'static str,
        subjects: &mut [S],
        mut run_round: impl FnMut(Round, &mut S) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        let progress = progress(title, u64::from(self.count) * subjects.len() as u64);
        for number in 0..self.count {
            random.shuffle(&mut order);
            for &subject in &order {
                interrupt::check()?;
                run_round(self.round(number), &mut subjects[subject])?;
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        Ok(())
    }
}

/// Returns a progress bar on standard error, hidden unless that is a terminal. It is drawn only between
/// measurements.
fn progress(title: &'static str, turns: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(turns), ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template("{msg:<24} {wide_bar} {pos}/{len} measurements, {eta} left");
    let style = style.expect("a template of known keys");
    ProgressBar::new(turns).with_style(style).with_message(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_measures_every_subject_once_per_round_in_changing_orders() {
        let mut subjects = [0_u32; 5];
        for (index, subject) in subjects.iter_mut().enumerate() {
            *subject = index as u32;
        }
        let mut turns = Vec::new();
        let rounds = Rounds { count: 40, seed: 1 };
        let run = rounds.run("test", &mut subjects, |round, subject| {
            turns.push((round.number, *subject));
            Ok(())
        });
        run.unwrap();
        let mut orders: Vec<Vec<u32>> =
            turns.chunks(5).map(|round| round.iter().map(|turn| turn.1).collect()).collect();
        for (number, order) in orders.iter().enumerate() {
            assert!(turns[5 * number..][..5].iter().all(|turn| turn.0 == number as u32));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        orders.sort_unstable();
        orders.dedup();
        assert!(orders.len() > 20, "{} different orders in 40 rounds", orders.len());
    }

    #[test]
    fn shares_of_all_rounds_add_up_to_the_total() {
        for (total, count) in [(20_000, 20), (7, 3), (2, 5), (0, 4)] {
            let rounds = Rounds { count, seed: 1 };
            let shares: Vec<u64> =
                (0..count).map(|number| rounds.round(number).share(total)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
