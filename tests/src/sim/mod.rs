//! The simulator: runs the code that ships on simulated hosts and links, in virtual time. One seed
//! determines everything, so every failure can be reproduced.
//!
//! | module | contents |
//! |---|---|
//! | [`rng`] | the seeded random generator, and how faults are drawn |
//! | [`clock`] | drifting clocks of the hosts |
//! | [`queue`] | the event queue |
//! | [`link`](mod@link), [`damage`] | one direction of a link, with its faults |
//! | [`frames`] | the store of all frames sent |
//! | [`supervisor`] | when the supervisors of dead processes send their notices |
//! | [`counts`] | counters of what happened |
//! | [`trace`] | a text log with one line per event |
//! | [`runner`] | runs many seeds; reports failures and how to reproduce them |
//! | [`channel`] | scenario: the logging channel, two endpoints on a bad link |
//! | [`system`] | scenario: the pair, two replication engines with their VM, a LAN with clients, a witness |
//! | [`driver`] | scenario: the pair with the driver that ships, whose processes block as real ones do |
//!
//! A scenario has two phases. In the first phase faults happen, and the checkers require *safety*. Then
//! everything heals, and the checkers require *progress*: what was begun must finish. The checkers stand
//! outside the code under test and do not trust what it reports about itself.
//!
//! Times of type `u64` are nanoseconds of virtual time, called *true* time. A
//! [`Time`](logchan::time::Time) is a reading of a host's clock.

pub mod channel;
pub mod clock;
pub mod counts;
pub mod damage;
pub mod driver;
pub mod frames;
pub mod link;
pub mod queue;
pub mod rng;
pub mod runner;
pub mod supervisor;
pub mod system;
pub mod trace;

/// A violated requirement, found by a checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// The result of a checker.
pub type Checked<T = ()> = Result<T, Violation>;

/// Ends the run with a [`Violation`] if `$holds` is false.
macro_rules! require {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::sim::Violation(format!($($what)+)));
        }
    };
}
use require;

/// Nanoseconds per microsecond.
pub const US: u64 = 1_000;

/// Nanoseconds per millisecond.
pub const MS: u64 = 1_000_000;
