//! The driver: the loop that runs a host of a pair.
//!
//! The [`Driver`] is the nondeterminism boundary of a machine of a pair. It asks the
//! [engine](crate::replica) at every step. While the answer is `Pending`, it drives the log link: it receives,
//! sends and releases frames until the engine has an answer. The link is also driven when a frame has arrived
//! at a position, and at every kick of the vCPU; there is at least one kick per deadline. Everything runs on
//! the vCPU thread.
//!
//! What a host provides (clocks, interfaces, the witness's thread, the operator's terminal) comes through the
//! traits of [`host`], so that a simulator runs the same driver.
//!
//! | file | contents |
//! |---|---|
//! | [`host`] | what a host provides |
//! | `wire` | frames of the log link: what is sent when, and with which clock reading a frame is handled |
//! | `witness` | which answer of the witness counts, and for how long to wait for it |
//! | `drive` | one round: receive, send, release |
//! | `boundary` | the machine's questions |
//! | `throttle` | slows the guest while its memory is copied |
//! | `console` | which host shows the VM's console output |
//! | `run` | one machine after the other, until this host's part is over |
//! | `peer_absence` | when to report that no peer is met |

mod boundary;
mod console;
mod drive;
pub mod host;
mod peer_absence;
mod run;
mod throttle;
mod wire;
mod witness;

pub use drive::{Driver, DriverParts};
pub use host::{
    CheckpointMoment, Clock, DriverView, Heard, Host, LINK_HEADER_BYTES, LinkPort, LiveWorld,
    Moment, Observer, Order, SupervisorPort, WitnessPort,
};
pub use run::{MachineEnd, PairEnd, run};
pub use throttle::PAUSE_MAX;
pub use wire::{Transport, Wire};
pub use witness::{ANSWER_MAX, Answered, WitnessClient};

use crate::divergence::Divergence;
use crate::replica::ReplicaEvent;
use alloc::boxed::Box;
use alloc::string::String;
use logchan::time::{Duration, Time};

/// A change that the driver reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An event of the engine.
    Replica {
        /// The event.
        event: ReplicaEvent,
        /// When this host last sent a frame to the LAN.
        spoke_at: Option<Time>,
    },
    /// This host's VM diverged from the primary's. Takes the place of [`ReplicaEvent::Diverged`].
    Diverged(Box<Divergence>),
    /// The closing checkpoint of a sync was sent, and the guest continues.
    SyncClosed {
        /// How long the guest was paused for it.
        pause: Duration,
        /// Pages of the checkpoint.
        pages: u64,
    },
    /// This host waits for a peer and has met none.
    NobodyMet {
        /// What this host waits for, and the likeliest reason why it meets no peer.
        why: String,
    },
    /// The witness gave no answer.
    WitnessFailed {
        /// The error.
        error: String,
    },
    /// The VM can't be handed over: no backup holds the whole VM, or it can't serve it.
    HandoverRefused,
    /// This backup can't be stopped now: the VM is being handed over to it.
    StopRefused,
    /// A primary's host has failed: it goes silent, and the backup takes over.
    GoesSilent,
    /// The supervisor of this process is gone: the peer notices a death by silence only.
    SupervisorLost {
        /// How it ended.
        why: String,
    },
}
