//! The event log of a process of a pair: one JSON object per line. `vmm/src/pair/event.rs` writes it and
//! describes the events. This module has the fields that its users read.

use serde::Deserialize;

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PairRecord {
    /// When it was written, CLOCK_BOOTTIME in nanoseconds.
    pub t_ns: u64,
    /// The term at that time.
    pub term: u64,
    /// The event.
    #[serde(flatten)]
    pub event: PairEvent,
}

/// An event.
#[expect(missing_docs, reason = "the program's own type describes them")]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PairEvent {
    Started,
    PeerMet,
    NobodyMet,
    PeerRefused {
        reason: String,
    },
    TermWon,
    WitnessUnreachable,
    LanLost,
    LanBack,
    BackupHealth {
        unfit: Option<String>,
    },
    WitnessLost,
    WitnessBack,
    ReleaseFailed,
    SyncBegun,
    SyncClosed {
        pause_ns: u64,
    },
    Protected,
    HandingOver {
        spoke_ns: Option<u64>,
    },
    HandoverFailed,
    BackupSilent {
        spoke_ns: Option<u64>,
    },
    SyncDelayed,
    SyncStalled,
    GuestSlowed,
    GuestSlowedForDisks,
    GuestNotSlowed,
    DisksCopied {
        size: u64,
        sent: u64,
        zero: u64,
        equal: u64,
    },
    SyncGivenUp {
        why: String,
    },
    BackupStalled {
        spoke_ns: Option<u64>,
    },
    BackupGone {
        spoke_ns: Option<u64>,
    },
    BackupLeft,
    Following,
    PrimarySilent {
        whole: bool,
    },
    PrimaryGone {
        whole: bool,
    },
    SupervisorLost {
        why: String,
    },
    WitnessFailed,
    HandoverRefused,
    StopRefused,
    GoesSilent,
    LogFinished,
    WentLive,
    Diverged {
        /// What the log expected.
        expected: String,
        /// What the machine did.
        found: String,
    },
    DiskFault {
        why: String,
    },
    Halted {
        why: Why,
        spoke_ns: Option<u64>,
    },
    Ended {
        hold: Spread,
    },
}

/// Why a process halted.
#[expect(missing_docs, reason = "the program's own type describes them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    AlreadyStarted,
    Replaced,
    HandedOver,
    Stopped,
    PrimaryStopped,
    Diverged,
}

/// Summary of how long outputs were held, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Spread {
    /// Number of outputs.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest value.
    pub max_ns: u64,
}
