//! The event log of a process of a pair: what happened, when, and in which term. It is read by users' tools
//! and by the demonstration.
//!
//! It consists of one JSON object per line: `{"t_ns":...,"term":...,"event":"...",...}`. `t_ns` is
//! CLOCK_BOOTTIME, so that event logs of processes on one machine can be compared. The first record is
//! [`PairEvent::Started`]. The last record of a process that stops in an orderly way is
//! [`PairEvent::Ended`].

use hdrhistogram::Histogram;
use logchan::time::Time;
use replication::Divergence;
use replication::driver::Notice;
use replication::replica::{DisksCopied, Halt, ReplicaEvent, ReplicaStats, RoleName, SyncDelay};
use serde::Serialize;

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairRecord {
    /// When it was written, CLOCK_BOOTTIME in nanoseconds.
    pub t_ns: u64,
    /// The term at that time: the primary's, or the newest that a backup knew of.
    pub term: u64,
    /// The event.
    #[serde(flatten)]
    pub event: PairEvent,
}

/// An event, with its fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PairEvent {
    /// The process is ready.
    Started {
        /// Name of its role.
        role: String,
    },
    /// See [`ReplicaEvent::PeerMet`].
    PeerMet {
        /// Identifies the session; equal on both hosts.
        session: u64,
    },
    /// See [`Notice::NobodyMet`].
    NobodyMet {
        /// The likeliest reason.
        why: String,
    },
    /// See [`ReplicaEvent::PeerRefused`].
    PeerRefused {
        /// The difference.
        reason: String,
    },
    /// See [`ReplicaEvent::TermWon`]; the record's term is the one won.
    TermWon,
    /// See [`ReplicaEvent::WitnessUnreachable`]; the record's term is the one claimed.
    WitnessUnreachable,
    /// See [`ReplicaEvent::LanLost`].
    LanLost,
    /// See [`ReplicaEvent::LanBack`].
    LanBack,
    /// See [`ReplicaEvent::BackupHealth`].
    BackupHealth {
        /// What it lacks; `None` if it is fit.
        unfit: Option<String>,
    },
    /// See [`ReplicaEvent::WitnessLost`].
    WitnessLost,
    /// See [`ReplicaEvent::WitnessBack`].
    WitnessBack,
    /// See [`ReplicaEvent::ReleaseFailed`].
    ReleaseFailed,
    /// See [`ReplicaEvent::SyncBegun`].
    SyncBegun,
    /// See [`Notice::SyncClosed`].
    SyncClosed {
        /// How long the guest was paused, nanoseconds.
        pause_ns: u64,
        /// Pages of the closing checkpoint.
        pages: u64,
    },
    /// See [`ReplicaEvent::Protected`].
    Protected {
        /// Pages copied while guests ran (precopy), over all syncs of this process.
        pages_copied: u64,
    },
    /// See [`ReplicaEvent::HandingOver`].
    HandingOver {
        /// When this host last sent a frame to the LAN.
        spoke_ns: Option<u64>,
    },
    /// See [`ReplicaEvent::HandoverFailed`].
    HandoverFailed,
    /// See [`ReplicaEvent::BackupSilent`].
    BackupSilent {
        /// When it was last heard.
        heard_ns: u64,
        /// When this host last sent a frame to the LAN. The lease may have ended long before this record.
        spoke_ns: Option<u64>,
    },
    /// See [`ReplicaEvent::SyncDelayed`].
    SyncDelayed {
        /// When the sync begins.
        until_ns: u64,
        /// Syncs in a row that did not last.
        failures: u32,
    },
    /// See [`ReplicaEvent::SyncStalled`].
    SyncStalled {
        /// Since when nothing is acknowledged.
        since_ns: u64,
    },
    /// See [`ReplicaEvent::GuestSlowed`].
    GuestSlowed {
        /// Pages that were written while as many were sent.
        pages: u64,
        /// What the log link carries, bytes per second.
        carried_per_s: u64,
    },
    /// See [`ReplicaEvent::GuestSlowedForDisks`].
    GuestSlowedForDisks {
        /// Bytes that are left to copy.
        bytes_left: u64,
    },
    /// See [`ReplicaEvent::GuestNotSlowed`].
    GuestNotSlowed,
    /// See [`ReplicaEvent::DisksCopied`].
    DisksCopied {
        /// Size of the disks, bytes.
        size: u64,
        /// Bytes that were sent.
        sent: u64,
        /// Bytes that are zero, and were not sent therefore.
        zero: u64,
        /// Bytes that the backup had already.
        equal: u64,
    },
    /// See [`ReplicaEvent::SyncGivenUp`].
    SyncGivenUp {
        /// The reason.
        why: String,
    },
    /// See [`ReplicaEvent::BackupStalled`].
    BackupStalled {
        /// Since when nothing is acknowledged.
        since_ns: u64,
        /// When this host last sent a frame to the LAN.
        spoke_ns: Option<u64>,
    },
    /// See [`ReplicaEvent::BackupGone`].
    BackupGone {
        /// When this host last sent a frame to the LAN.
        spoke_ns: Option<u64>,
    },
    /// See [`ReplicaEvent::BackupLeft`].
    BackupLeft,
    /// See [`ReplicaEvent::Following`].
    Following,
    /// See [`ReplicaEvent::PrimarySilent`].
    PrimarySilent {
        /// When it was last heard.
        heard_ns: u64,
        /// This backup holds the whole VM.
        whole: bool,
    },
    /// See [`ReplicaEvent::PrimaryGone`].
    PrimaryGone {
        /// This backup holds the whole VM.
        whole: bool,
    },
    /// See [`ReplicaEvent::LogFinished`].
    LogFinished,
    /// See [`ReplicaEvent::WentLive`]; the record's term is the new one.
    WentLive {
        /// Outputs that the dead primary may not have released, and that are sent again.
        sent_again: u64,
    },
    /// See [`ReplicaEvent::Diverged`].
    Diverged(Box<Divergence>),
    /// See [`ReplicaEvent::DiskFault`].
    DiskFault {
        /// The reason.
        why: String,
    },
    /// See [`ReplicaEvent::Halted`].
    Halted {
        /// The reason.
        why: Why,
        /// When this host last sent a frame to the LAN.
        spoke_ns: Option<u64>,
    },
    /// See [`Notice::SupervisorLost`].
    SupervisorLost {
        /// How it ended.
        why: String,
    },
    /// See [`Notice::WitnessFailed`].
    WitnessFailed {
        /// The error.
        why: String,
    },
    /// See [`Notice::HandoverRefused`].
    HandoverRefused,
    /// See [`Notice::StopRefused`].
    StopRefused,
    /// See [`Notice::GoesSilent`].
    GoesSilent,
    /// The process ends in an orderly way.
    Ended {
        /// Its counters.
        stats: Box<ReplicaStats>,
        /// How long outputs were held.
        hold: Spread,
    },
}

/// Why a host's part is over: [`Halt`] without its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// See [`Halt::AlreadyStarted`].
    AlreadyStarted,
    /// See [`Halt::Replaced`].
    Replaced,
    /// See [`Halt::HandedOver`].
    HandedOver,
    /// See [`Halt::Stopped`].
    Stopped,
    /// See [`Halt::PrimaryStopped`].
    PrimaryStopped,
    /// See [`Halt::Diverged`].
    Diverged,
}

/// Summary of a histogram of times, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Number of values.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest value.
    pub max_ns: u64,
}

impl PairRecord {
    /// Returns the first record of a process that starts as `role`.
    pub fn started(now: Time, role: RoleName) -> PairRecord {
        let event = PairEvent::Started { role: role.as_str().into() };
        PairRecord { t_ns: now.as_nanos(), term: 0, event }
    }

    /// Returns the record of `notice`, reported at `now` by a process in `term` with counters `stats`.
    pub fn of(now: Time, term: u64, stats: &ReplicaStats, notice: &Notice) -> PairRecord {
        let (term_named, event) = match notice {
            &Notice::SyncClosed { pause, pages } => {
                (None, PairEvent::SyncClosed { pause_ns: pause.as_nanos(), pages })
            }
            Notice::Diverged(divergence) => (None, PairEvent::Diverged(divergence.clone())),
            Notice::NobodyMet { why } => (None, PairEvent::NobodyMet { why: why.clone() }),
            &Notice::Replica { event, spoke_at } => named(event, stats, spoke_at),
            Notice::SupervisorLost { why } => {
                (None, PairEvent::SupervisorLost { why: why.clone() })
            }
            Notice::WitnessFailed { error } => {
                (None, PairEvent::WitnessFailed { why: error.clone() })
            }
            Notice::HandoverRefused => (None, PairEvent::HandoverRefused),
            Notice::StopRefused => (None, PairEvent::StopRefused),
            Notice::GoesSilent => (None, PairEvent::GoesSilent),
        };
        PairRecord { t_ns: now.as_nanos(), term: term_named.unwrap_or(term), event }
    }

    /// Returns the last record of a process in `term`.
    pub fn ended(
        now: Time,
        term: u64,
        stats: &ReplicaStats,
        hold_ns: &Histogram<u64>,
    ) -> PairRecord {
        let hold = Spread {
            count: hold_ns.len(),
            p50_ns: hold_ns.value_at_quantile(0.5),
            p99_ns: hold_ns.value_at_quantile(0.99),
            max_ns: hold_ns.max(),
        };
        let event = PairEvent::Ended { stats: Box::new(*stats), hold };
        PairRecord { t_ns: now.as_nanos(), term, event }
    }
}

/// Converts an event of the engine. Returns the term that the event names as well; `None` if the record shall
/// have the engine's current term.
fn named(
    event: ReplicaEvent,
    stats: &ReplicaStats,
    spoke_at: Option<Time>,
) -> (Option<u64>, PairEvent) {
    let spoke_ns = spoke_at.map(Time::as_nanos);
    match event {
        ReplicaEvent::PeerMet { peer, term } => {
            (Some(term.0), PairEvent::PeerMet { session: peer.session.0 })
        }
        ReplicaEvent::PeerRefused { mismatch, proven: _ } => {
            (None, PairEvent::PeerRefused { reason: mismatch.to_string() })
        }
        ReplicaEvent::TermWon { term } => (Some(term.0), PairEvent::TermWon),
        ReplicaEvent::WitnessUnreachable { term } => (Some(term.0), PairEvent::WitnessUnreachable),
        ReplicaEvent::LanLost => (None, PairEvent::LanLost),
        ReplicaEvent::LanBack => (None, PairEvent::LanBack),
        ReplicaEvent::BackupHealth { unfit } => {
            let unfit = (!unfit.is_fit()).then(|| unfit.to_string());
            (None, PairEvent::BackupHealth { unfit })
        }
        ReplicaEvent::WitnessLost => (None, PairEvent::WitnessLost),
        ReplicaEvent::WitnessBack => (None, PairEvent::WitnessBack),
        ReplicaEvent::ReleaseFailed => (None, PairEvent::ReleaseFailed),
        ReplicaEvent::SyncBegun => (None, PairEvent::SyncBegun),
        ReplicaEvent::Protected => {
            (None, PairEvent::Protected { pages_copied: stats.pages_copied })
        }
        ReplicaEvent::HandingOver => (None, PairEvent::HandingOver { spoke_ns }),
        ReplicaEvent::HandoverFailed => (None, PairEvent::HandoverFailed),
        ReplicaEvent::BackupSilent { heard_at } => {
            (None, PairEvent::BackupSilent { heard_ns: heard_at.as_nanos(), spoke_ns })
        }
        ReplicaEvent::SyncDelayed(SyncDelay { until, failures, cause: _ }) => {
            (None, PairEvent::SyncDelayed { until_ns: until.as_nanos(), failures })
        }
        ReplicaEvent::SyncStalled { since, cause: _ } => {
            (None, PairEvent::SyncStalled { since_ns: since.as_nanos() })
        }
        ReplicaEvent::GuestSlowed { pages, carried_per_s } => {
            (None, PairEvent::GuestSlowed { pages, carried_per_s })
        }
        ReplicaEvent::GuestSlowedForDisks { bytes_left } => {
            (None, PairEvent::GuestSlowedForDisks { bytes_left })
        }
        ReplicaEvent::GuestNotSlowed => (None, PairEvent::GuestNotSlowed),
        ReplicaEvent::DisksCopied(DisksCopied { size, sent, zero, equal }) => {
            (None, PairEvent::DisksCopied { size, sent, zero, equal })
        }
        ReplicaEvent::SyncGivenUp(cause) => {
            (None, PairEvent::SyncGivenUp { why: cause.to_string() })
        }
        ReplicaEvent::BackupStalled { since, cause: _ } => {
            (None, PairEvent::BackupStalled { since_ns: since.as_nanos(), spoke_ns })
        }
        ReplicaEvent::BackupGone => (None, PairEvent::BackupGone { spoke_ns }),
        ReplicaEvent::BackupLeft => (None, PairEvent::BackupLeft),
        ReplicaEvent::Following => (None, PairEvent::Following),
        ReplicaEvent::PrimarySilent { heard_at, whole } => {
            (None, PairEvent::PrimarySilent { heard_ns: heard_at.as_nanos(), whole })
        }
        ReplicaEvent::PrimaryGone { whole } => (None, PairEvent::PrimaryGone { whole }),
        ReplicaEvent::LogFinished => (None, PairEvent::LogFinished),
        ReplicaEvent::WentLive { term } => {
            (Some(term.0), PairEvent::WentLive { sent_again: stats.sent_again })
        }
        ReplicaEvent::Diverged => unreachable!("reported as Notice::Diverged"),
        ReplicaEvent::DiskFault(fault) => (None, PairEvent::DiskFault { why: fault.to_string() }),
        ReplicaEvent::Halted(halt) => {
            let (term, why) = match halt {
                Halt::AlreadyStarted { term } => (Some(term.0), Why::AlreadyStarted),
                Halt::Replaced { term } => (Some(term.0), Why::Replaced),
                Halt::HandedOver { term } => (Some(term.0), Why::HandedOver),
                Halt::Stopped => (None, Why::Stopped),
                Halt::PrimaryStopped => (None, Why::PrimaryStopped),
                Halt::Diverged => (None, Why::Diverged),
            };
            (term, PairEvent::Halted { why, spoke_ns })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::ids::Term;
    use logchan::time::Duration;
    use replication::divergence::Registers;
    use testbed::pair as read;

    /// Returns what the testbed reads of `event`. Every event has to be added there, too.
    fn as_read(event: &PairEvent) -> read::PairEvent {
        match event.clone() {
            PairEvent::Started { .. } => read::PairEvent::Started,
            PairEvent::PeerMet { .. } => read::PairEvent::PeerMet,
            PairEvent::NobodyMet { .. } => read::PairEvent::NobodyMet,
            PairEvent::PeerRefused { reason } => read::PairEvent::PeerRefused { reason },
            PairEvent::TermWon => read::PairEvent::TermWon,
            PairEvent::WitnessUnreachable => read::PairEvent::WitnessUnreachable,
            PairEvent::LanLost => read::PairEvent::LanLost,
            PairEvent::LanBack => read::PairEvent::LanBack,
            PairEvent::BackupHealth { unfit } => read::PairEvent::BackupHealth { unfit },
            PairEvent::WitnessLost => read::PairEvent::WitnessLost,
            PairEvent::WitnessBack => read::PairEvent::WitnessBack,
            PairEvent::ReleaseFailed => read::PairEvent::ReleaseFailed,
            PairEvent::SyncBegun => read::PairEvent::SyncBegun,
            PairEvent::SyncClosed { pause_ns, .. } => read::PairEvent::SyncClosed { pause_ns },
            PairEvent::Protected { .. } => read::PairEvent::Protected,
            PairEvent::HandingOver { spoke_ns } => read::PairEvent::HandingOver { spoke_ns },
            PairEvent::HandoverFailed => read::PairEvent::HandoverFailed,
            PairEvent::BackupSilent { spoke_ns, .. } => read::PairEvent::BackupSilent { spoke_ns },
            PairEvent::SyncDelayed { .. } => read::PairEvent::SyncDelayed,
            PairEvent::SyncStalled { .. } => read::PairEvent::SyncStalled,
            PairEvent::GuestSlowed { .. } => read::PairEvent::GuestSlowed,
            PairEvent::GuestSlowedForDisks { .. } => read::PairEvent::GuestSlowedForDisks,
            PairEvent::GuestNotSlowed => read::PairEvent::GuestNotSlowed,
            PairEvent::DisksCopied { size, sent, zero, equal } => {
                read::PairEvent::DisksCopied { size, sent, zero, equal }
            }
            PairEvent::SyncGivenUp { why } => read::PairEvent::SyncGivenUp { why },
            PairEvent::BackupStalled { spoke_ns, .. } => {
                read::PairEvent::BackupStalled { spoke_ns }
            }
            PairEvent::BackupGone { spoke_ns } => read::PairEvent::BackupGone { spoke_ns },
            PairEvent::BackupLeft => read::PairEvent::BackupLeft,
            PairEvent::Following => read::PairEvent::Following,
            PairEvent::PrimarySilent { whole, .. } => read::PairEvent::PrimarySilent { whole },
            PairEvent::PrimaryGone { whole } => read::PairEvent::PrimaryGone { whole },
            PairEvent::SupervisorLost { why } => read::PairEvent::SupervisorLost { why },
            PairEvent::WitnessFailed { .. } => read::PairEvent::WitnessFailed,
            PairEvent::HandoverRefused => read::PairEvent::HandoverRefused,
            PairEvent::StopRefused => read::PairEvent::StopRefused,
            PairEvent::GoesSilent => read::PairEvent::GoesSilent,
            PairEvent::LogFinished => read::PairEvent::LogFinished,
            PairEvent::WentLive { .. } => read::PairEvent::WentLive,
            PairEvent::Diverged(divergence) => {
                let Divergence { expected, found, .. } = *divergence;
                read::PairEvent::Diverged { expected, found }
            }
            PairEvent::DiskFault { why } => read::PairEvent::DiskFault { why },
            PairEvent::Halted { why, spoke_ns } => {
                let why = match why {
                    Why::AlreadyStarted => read::Why::AlreadyStarted,
                    Why::Replaced => read::Why::Replaced,
                    Why::HandedOver => read::Why::HandedOver,
                    Why::Stopped => read::Why::Stopped,
                    Why::PrimaryStopped => read::Why::PrimaryStopped,
                    Why::Diverged => read::Why::Diverged,
                };
                read::PairEvent::Halted { why, spoke_ns }
            }
            PairEvent::Ended { hold: Spread { count, p50_ns, p99_ns, max_ns }, .. } => {
                read::PairEvent::Ended { hold: read::Spread { count, p50_ns, p99_ns, max_ns } }
            }
        }
    }

    /// Serializes a record, checks that the testbed reads it, and returns the line.
    fn line(record: &PairRecord) -> String {
        let line = serde_json::to_string(record).unwrap();
        let &PairRecord { t_ns, term, ref event } = record;
        let expected = read::PairRecord { t_ns, term, event: as_read(event) };
        assert_eq!(serde_json::from_str::<read::PairRecord>(&line).unwrap(), expected);
        line
    }

    #[test]
    fn record_serialized_names_event_and_fields() {
        let stats = ReplicaStats { sent_again: 3, ..ReplicaStats::default() };
        let now = Time::from_nanos(12_345);
        let mut hold_ns = Histogram::new(3).unwrap();
        hold_ns.record(7).unwrap();
        let spoke_at = Some(Time::from_nanos(77));
        let notice = |event| Notice::Replica { event, spoke_at };
        let live = notice(ReplicaEvent::WentLive { term: Term(4) });
        let closed = Notice::SyncClosed { pause: Duration::from_micros(5), pages: 9 };
        let halted = notice(ReplicaEvent::Halted(Halt::Replaced { term: Term(5) }));
        let lines = [
            (PairRecord::started(now, RoleName::Seeking), r#""event":"started","role":"seeking""#),
            (
                PairRecord::of(now, 3, &stats, &live),
                r#""term":4,"event":"went_live","sent_again":3"#,
            ),
            (
                PairRecord::of(now, 3, &stats, &closed),
                r#""term":3,"event":"sync_closed","pause_ns":5000,"pages":9"#,
            ),
            (
                PairRecord::of(now, 3, &stats, &halted),
                r#""term":5,"event":"halted","why":"replaced","spoke_ns":77"#,
            ),
            (PairRecord::ended(now, 4, &stats, &hold_ns), r#""hold":{"count":1,"p50_ns":7"#),
        ];
        for (record, part) in lines {
            let line = line(&record);
            assert!(line.contains(part) && line.contains(r#""t_ns":12345"#), "{line}");
        }
    }

    #[test]
    fn other_records_are_read_by_the_testbed() {
        let whys = [
            Why::AlreadyStarted,
            Why::HandedOver,
            Why::Stopped,
            Why::PrimaryStopped,
            Why::Diverged,
        ];
        let halts = whys.map(|why| PairEvent::Halted { why, spoke_ns: None });
        let others = [
            PairEvent::PeerMet { session: 1 },
            PairEvent::NobodyMet { why: "nobody".into() },
            PairEvent::PeerRefused { reason: "another".into() },
            PairEvent::TermWon,
            PairEvent::WitnessUnreachable,
            PairEvent::LanLost,
            PairEvent::LanBack,
            PairEvent::BackupHealth { unfit: Some("it".into()) },
            PairEvent::WitnessLost,
            PairEvent::WitnessBack,
            PairEvent::ReleaseFailed,
            PairEvent::SyncBegun,
            PairEvent::Protected { pages_copied: 2 },
            PairEvent::HandingOver { spoke_ns: Some(3) },
            PairEvent::HandoverFailed,
            PairEvent::BackupSilent { heard_ns: 3, spoke_ns: Some(4) },
            PairEvent::SyncDelayed { until_ns: 5, failures: 4 },
            PairEvent::SyncStalled { since_ns: 5 },
            PairEvent::GuestSlowed { pages: 5, carried_per_s: 6 },
            PairEvent::GuestSlowedForDisks { bytes_left: 5 },
            PairEvent::GuestNotSlowed,
            PairEvent::DisksCopied { size: 4, sent: 3, zero: 2, equal: 1 },
            PairEvent::SyncGivenUp { why: "the link is slow".into() },
            PairEvent::BackupStalled { since_ns: 3, spoke_ns: Some(4) },
            PairEvent::BackupGone { spoke_ns: None },
            PairEvent::BackupLeft,
            PairEvent::Following,
            PairEvent::PrimarySilent { heard_ns: 5, whole: true },
            PairEvent::PrimaryGone { whole: true },
            PairEvent::SupervisorLost { why: "signal: 9".into() },
            PairEvent::WitnessFailed { why: "unreachable".into() },
            PairEvent::HandoverRefused,
            PairEvent::StopRefused,
            PairEvent::GoesSilent,
            PairEvent::LogFinished,
            PairEvent::DiskFault { why: "disk 0 failed".into() },
            PairEvent::Diverged(Box::new(Divergence {
                natural_exits: 8,
                log_position: 9,
                expected: "exit".into(),
                found: "reached hlt".into(),
                registers: Some(Registers { expected: Some([u64::MAX; 18]), found: [0; 18] }),
                recent: Vec::new(),
            })),
        ];
        for event in others.into_iter().chain(halts) {
            line(&PairRecord { t_ns: 6, term: 7, event });
        }
    }
}
