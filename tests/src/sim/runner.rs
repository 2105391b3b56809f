//! Runs many seeds on all cores, and reports each failure with the command that reproduces it.
//!
//! Seeds are assigned to threads in no fixed order, and no result depends on the order: a run depends on
//! its seed only, counts are added, and failures are sorted.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::counts::{Counter, Counts};
use super::trace::Trace;
use super::{Checked, Violation};

/// A simulation that its seed determines completely.
pub trait Scenario: Sync {
    /// The counters of its runs.
    type Counter: Counter + Send;

    /// Runs one seed. Also counts what happened if the run fails.
    ///
    /// # Errors
    ///
    /// A violation found by a checker. The runner treats a panic as a violation.
    fn run(&self, seed: u64, counts: &mut Counts<Self::Counter>, trace: &mut Trace) -> Checked;

    /// The command that runs this one seed again.
    fn command(&self, seed: u64) -> String;
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The violation, or the place and message of the panic.
    pub what: String,
    /// The command that reproduces it.
    pub command: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, command } = self;
        write!(f, "FAILED seed {seed}: {what}\n  rerun: {command}")
    }
}

/// The result of a set of seeds.
#[derive(Debug)]
pub struct Report<K> {
    /// Number of seeds that ran.
    pub seeds: u64,
    /// The failures, sorted by seed.
    pub failures: Vec<Failure>,
    /// The sum of the counts of all runs.
    pub counts: Counts<K>,
    /// The elapsed time.
    pub took: Duration,
}

/// When to stop before the last seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the first seed that fails. All seeds before it have run by then.
    AtFirstFailure,
    /// After this many failures: further ones add no information.
    After(usize),
}

/// Runs `scenario` for `seeds` seeds from `first` on.
pub fn run<S: Scenario>(scenario: &S, first: u64, seeds: u64, stop: Stop) -> Report<S::Counter> {
    silence_panics();
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let limit = AtomicU64::new(seeds);
    let done = Mutex::new(Report {
        seeds: 0,
        failures: Vec::new(),
        counts: Counts::default(),
        took: Duration::ZERO,
    });
    let work = || {
        let mut counts = Counts::default();
        let mut ran = 0;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= limit.load(Ordering::Relaxed) {
                break;
            }
            let seed = first.wrapping_add(index);
            ran += 1;
            if let Err(what) = run_one(scenario, seed, &mut counts, &mut Trace::Off) {
                let command = scenario.command(seed);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.failures.push(Failure { seed, what: what.0, command });
                let is_last = match stop {
                    Stop::AtFirstFailure => true,
                    Stop::After(failures) => done.failures.len() >= failures,
                };
                if is_last {
                    limit.fetch_min(index, Ordering::Relaxed);
                }
            }
        }
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.counts.merge(&counts);
        done.seeds += ran;
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut report = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort_by_key(|failure| failure.seed.wrapping_sub(first));
    report.took = began.elapsed();
    report
}

/// Runs one seed, and turns a panic into a violation.
///
/// # Errors
///
/// The violation.
pub fn run_one<S: Scenario>(
    scenario: &S,
    seed: u64,
    counts: &mut Counts<S::Counter>,
    trace: &mut Trace,
) -> Checked {
    silence_panics();
    IS_SIMULATING.set(true);
    // Unwind safe: only counters and text survive a panic, the rest of the run's state is discarded.
    let result = panic::catch_unwind(AssertUnwindSafe(|| scenario.run(seed, counts, trace)));
    IS_SIMULATING.set(false);
    result.unwrap_or_else(|payload| Err(Violation(panic_text(&*payload))))
}

thread_local! {
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Installs a panic hook that stores the location of a panic in a run instead of printing it, because
/// the output of many parallel runs would be interleaved.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_SIMULATING.get() {
                let at = info.location().map_or_else(String::new, ToString::to_string);
                PANICKED_AT.set(at);
            } else {
                print(info);
            }
        }));
    });
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("?");
    format!("panic at {}: {text}", PANICKED_AT.take())
}

/// The commit of the working directory, or "unknown".
pub fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let output = output.ok().filter(|output| output.status.success());
    let commit = output.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.map_or_else(|| "unknown".to_string(), |commit| commit.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::counts::counters;

    counters! {
                /// Counters of a scenario that only counts its runs.
        enum Nothing { Runs = "runs", }
    }

    /// Fails for every seed that is a multiple of `bad`, and panics for every second of them.
    struct Divides {
        bad: u64,
    }

    impl Scenario for Divides {
        type Counter = Nothing;

        fn run(&self, seed: u64, counts: &mut Counts<Nothing>, _: &mut Trace) -> Checked {
            counts.count(Nothing::Runs);
            assert!(!seed.is_multiple_of(2 * self.bad), "an even {seed}");
            crate::sim::require!(!seed.is_multiple_of(self.bad), "an odd {seed}");
            Ok(())
        }

        fn command(&self, seed: u64) -> String {
            format!("run {seed}")
        }
    }

    #[test]
    fn run_reports_all_failures_with_their_seeds() {
        let report = run(&Divides { bad: 100 }, 1, 1000, Stop::After(1000));
        let seeds: Vec<u64> = report.failures.iter().map(|failure| failure.seed).collect();
        assert_eq!(seeds, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
        assert_eq!((report.seeds, report.counts.of(Nothing::Runs)), (1000, 1000));
        let texts = [&report.failures[0], &report.failures[1]].map(ToString::to_string);
        assert_eq!(texts[0], "FAILED seed 100: an odd 100\n  rerun: run 100");
        assert!(texts[1].contains("panic at") && texts[1].contains("an even 200"), "{}", texts[1]);
    }

    #[test]
    fn first_failure_is_independent_of_thread_scheduling() {
        for first in [1, 2, 77] {
            let report = run(&Divides { bad: 97 }, first, 100_000, Stop::AtFirstFailure);
            assert_eq!(report.failures[0].seed, 97);
            assert!(report.seeds < 100_000);
        }
    }
}
