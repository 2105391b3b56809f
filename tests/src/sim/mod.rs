//! The simulator: code that ships, on hosts and links that do not exist, in a time that does not
//! pass. One seed decides everything, so whatever it finds it finds again.
//!
//! | module | holds |
//! |---|---|
//! | [`rng`] | randomness from a seed, and how faults are drawn |
//! | [`clock`] | hosts' clocks, which drift |
//! | [`queue`] | what happens next |
//! | [`link`](mod@link), [`damage`] | one direction of a link, with its faults |
//! | [`frames`] | every frame that was ever sent |
//! | [`counts`] | what happened, counted |
//! | [`trace`] | one line for each event |
//! | [`runner`] | seed after seed; what failed and how to repeat it |
//! | [`channel`] | the logging channel: two endpoints on a bad link |
//! | [`system`] | the pair: two engines, their VM, a LAN with clients, a witness |
//!
//! A scenario has two phases. In the first there are faults, and whatever happens must be *safe*. Then
//! everything is healed, and what was begun must be *finished*. What is checked is checked from
//! outside: no checker believes what the code says about itself.
//!
//! Times without a type are nanoseconds of the simulated world, the *true* time; a
//! [`Time`](logchan::time::Time) is what some host's clock shows.

pub mod channel;
pub mod clock;
pub mod counts;
pub mod damage;
pub mod frames;
pub mod link;
pub mod queue;
pub mod rng;
pub mod runner;
pub mod system;
pub mod trace;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// What a checker returns.
pub type Checked<T = ()> = Result<T, Violation>;

/// Ends the run if `$holds` is false.
macro_rules! require {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::sim::Violation(format!($($what)+)));
        }
    };
}
use require;

/// Nanoseconds of a microsecond.
pub const US: u64 = 1_000;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;
