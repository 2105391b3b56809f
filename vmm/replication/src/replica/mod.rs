//! The replication engine: which host may send output for the VM, which outputs may leave, and when to
//! take over.
//!
//! A [`Replica`] is one host's half of a pair. It is a pure state machine: received frames, answers of
//! the witness and the current time go in; frames to send and claims to make come out. The machine (the
//! vCPU loop and its devices) asks the engine at every step what to do. The driver of a real VM and the
//! simulator, which runs thousands of pairs of toy machines, use the same code.
//!
//! ```text
//!          claim won      backup met   closing checkpoint sent
//! Starting ---------> Alone --------> Copying -----------> Protected        the VM runs here
//!    |               ^ ^  ^ <-------- silence, Bye            |  |
//!    | claim lost    | |  +----------------- Bye -------------+  | silence
//!    v               | | claim won                              v
//!  Halted <----------|-+-------------------------------------- Losing
//!    ^    claim lost |
//!    |               +-------------------------------------------------+ claim won: go live
//!    |                                                                 |
//!    |    primary met       synced           silence           log ends
//! Seeking --------> Syncing -----> Following -------> Finishing -----> Claiming
//!    ^  ^             |             |    |                |               |
//!    |  +-- silence --+    diverged |    | Bye            | diverged      | claim lost
//!    |  +--------- Leaving <--------+    v                v               |
//!    +---(empty machine)--------------  Halted          Halted            |
//!    +------------------------------------------------------- ------------+
//! ```
//!
//! A planned switchover:
//!
//! ```text
//!            hand_over                Bye, silence          claim lost
//! Protected ----------> HandingOver --------------> Losing ------------> Seeking or Halted
//! Following ----------> Claiming                      +----------------> Alone
//!            log ends                                      claim won
//! ```
//!
//! The backup that has gone live takes frames of the old primary's tap for a while (see `passed`), and then sends Bye.
//!
//! `stop` leads to `Halted` from every state but `Claiming` in a handover. The primary's Bye leads to `Halted`
//! from `Syncing` and `Leaving`, too. A primary that finds a newer term at the witness halts (see `watch`).
//! `Standalone` has no transitions.
//!
//! # Who may send output
//!
//! The primary of term *t* holds the witness's claim of *t*. While no backup can take over, that claim
//! alone entitles it to release output. A backup can take over as soon as it holds the whole VM, and the
//! primary cannot observe that moment. So from the moment at which the primary *sends* the closing
//! checkpoint of the sync, not from its acknowledgement, it releases an output only when the backup has
//! acknowledged the log that the output needs, and while the lease is held. When the two hosts no longer
//! hear each other, both claim term *t + 1* at the witness; the winner is the primary of *t + 1*. A backup
//! that has sent Bye never makes a claim, so after a Bye the claim of *t* is sufficient again.
//!
//! A death notice is treated as silence that has lasted long enough. The primary's lease may not have ended
//! then, but the primary has: its supervisor sends the notice when the process and everything that it had
//! open is gone, so no output of it can leave any more.
//!
//! # What a takeover may lose
//!
//! No output that has left. An output leaves only after the log that determines it is in the backup's
//! memory: the log up to the last nondeterministic entry before the output (see `segment`). The backup
//! executes all of the log that it has before it makes its claim. After it has gone live, it accepts no
//! input before it has reproduced the outputs that the dead primary may have released beyond that log
//! (replay-out). The backup produces the same outputs as the primary and keeps each of them until the
//! primary reports that it was released; those that it still keeps at takeover are sent again.
//!
//! | file | contents |
//! |---|---|
//! | `config`, `role`, `event`, `step`, `stats` | configuration, states, events, answers, counters |
//! | `engine` | the [`Replica`]: frames, timeouts and channel events |
//! | `primary` | a backup attaches, receives the memory, is lost |
//! | `backup` | a primary is met, its memory arrives, it is lost |
//! | `takeover` | answers of the witness; going live |
//! | `commit` | output commit: which frame may leave now |
//! | `segment` | deterministic segments: an output's `release_at`; replay-out after a takeover |
//! | `boundary` | the machine's questions, each answered from the world or from the log |
//! | `recording`, `following` | the answers on a primary and on a backup |
//! | `precopy`, `checkpoint_send`, `checkpoint_receive`, `digest` | memory and checkpoints in transit |
//! | `converge` | how often memory is copied again, and how much the guest is slowed |
//! | `disk` | mirrored disks: requests, their completions, the copy of a disk |
//! | `shared` | shared disks: when a request may be begun, and by which host |
//! | `disk_pace` | whether that copy comes to an end, how much the guest is slowed for it, and how fast it may be |
//! | `stall` | a log link on which the other host is heard, and no output may leave |
//! | `claim`, `watch` | a question to the witness in progress; the one that is repeated |
//! | `passed` | frames that reach the old primary's tap during a handover |
//! | `health` | what a host lacks to run the VM, and what follows from that |
//! | `guard`, `mutant` | reasons to ignore an input; planted bugs |

mod announcements;
mod backup;
mod boundary;
mod checkpoint_send;
mod claim;
mod commit;
mod config;
mod converge;
mod disk;
mod disk_pace;
mod engine;
mod event;
mod following;
mod guard;
mod health;
mod passed;
mod precopy;
mod primary;
mod recording;
mod resync;
mod role;
mod segment;
mod session;
mod shared;
mod stall;
mod stats;
mod step;
mod takeover;
mod watch;

pub use commit::TapFrame;
pub use config::{CommitPolicy, OnBackupLoss, ReplicaConfig, ReplicaConfigError, Start};
pub use converge::{CopyProgress, GuestShare};
pub use disk::{
    CopyEnd, CopyState, DiskCopier, DiskFault, DiskFaultKind, DisksCopied, FailedRequests,
    FlushPolicy, LocalDisks, SharedUse, UnexpectedMessage,
};
pub use engine::Replica;
pub use event::{Command, ReplicaEvent};
pub use guard::Ignored;
pub use resync::{ResyncPace, SyncDelay, SyncLoss};
pub use role::{AfterHandover, Halt, RoleName};
pub use stall::StallCause;
pub use stats::ReplicaStats;
pub use step::{CopyRequest, LiveInputs, NextRegion, Step, StopAdvice, WaitFor};
pub use watch::WitnessState;

#[cfg(test)]
mod transition_tests;
