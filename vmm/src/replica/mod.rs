//! Who may speak for the VM, what may leave, and when to take over.
//!
//! One [`Replica`] is one host's part. It is pure: frames, answers of the witness and the time come in,
//! frames and questions come out, and a machine asks it at every step what to do. The driver that
//! runs a real VM and the simulator that runs thousands of toy pairs use the same code.
//!
//! ```text
//!          claim won        a backup       the closing checkpoint
//! Starting ---------> Alone --------> Copying -----------> Protected        the VM runs here
//!    |               ^ ^  ^ <-------- silence, Bye            |  |
//!    | claim lost    | |  +----------------- Bye -------------+  | silence
//!    v               | | claim won                              v
//!  Halted <----------|-+-------------------------------------- Losing
//!    ^    claim lost |
//!    |               +-------------------------------------------------+ claim won: the VM is live
//!    |                                                                 |
//!    |  a primary          whole             silence           log's end
//! Seeking --------> Syncing -----> Following -------> Finishing -----> Claiming
//!    ^  ^             |             |    |                |               |
//!    |  +-- silence --+    diverged |    | Bye            | diverged      | claim lost
//!    |  +--------- Leaving <--------+    v                v               |
//!    +---(empty machine)--------------  Halted          Halted            |
//!    +------------------------------------------------------- ------------+
//! ```
//!
//! `stop` leads to `Halted` from everywhere; the primary's Bye does from `Syncing` and `Leaving`, too.
//! `Standalone` has no arrows.
//!
//! # Who may speak
//!
//! A primary of term *t* holds the witness's claim of *t*. That alone lets it speak as long as no
//! backup can take over. A backup can from the moment it holds the whole VM, and the primary cannot
//! know that moment: so from the *sending* of the closing checkpoint on, not from its
//! acknowledgement, an output leaves only when it is acknowledged and the lease is held. When such a
//! backup falls silent, it and the primary ask for the claim of *t + 1*; whoever wins it is the
//! primary of *t + 1*. A backup that said goodbye never asks, so after a Bye *t* is good again.
//!
//! # What may be lost
//!
//! Nothing that left. An output leaves after all that led to it is in the backup's memory
//! (`stretch`: all that does not follow from what is before it). The backup executes all it has before
//! it asks for the claim, and when it has gone live takes nothing in before it has made what may have left
//! beyond that. It makes the same outputs and keeps each until the primary reports that it has left; what
//! is kept at takeover is sent again.
//!
//! | file | holds |
//! |---|---|
//! | `config`, `role`, `event`, `step`, `stats` | what a replica is told, is, tells and counts |
//! | `engine` | frames, timeouts, events of the channel |
//! | `primary` | a backup comes, is given the memory, goes |
//! | `backup` | a primary comes, its memory arrives, it goes |
//! | `takeover` | the claim, and what follows from its answer |
//! | `commit` | which frame may leave now |
//! | `stretch` | what an output needs, and what a machine that goes live owes |
//! | `door` | what a machine asks: each question goes to the world or to the log |
//! | `recording`, `following` | the answers of a primary and of a backup |
//! | `copying`, `sending`, `staging`, `digest` | checkpoints on their way |
//! | `claim`, `guard`, `mutant` | asking the witness; why something is ignored; bugs to test with |

mod backup;
mod boundary;
mod checkpoint_receive;
mod checkpoint_send;
mod claim;
mod commit;
mod config;
mod digest;
mod engine;
mod event;
mod following;
mod guard;
mod mutant;
mod precopy;
mod primary;
mod recording;
mod role;
mod segment;
mod stats;
mod step;
mod takeover;

pub use claim::Answer;
pub use commit::TapFrame;
pub use config::{OnBackupLoss, ReplicaConfig, ReplicaConfigError, Start};
pub use engine::Replica;
pub use event::{Command, ReplicaEvent};
pub use guard::Ignored;
#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;
pub use mutant::Mutants;
pub use role::{Halt, RoleName};
pub use stats::ReplicaStats;
pub use step::{CheckpointImage, CopyRequest, Halted, NextRegion, Step, StopAdvice, World};

#[cfg(test)]
mod arrows_tests;
#[cfg(test)]
mod purity_tests;
