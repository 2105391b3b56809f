//! What a host of a pair says about itself when it is asked.

use super::source::PairSource;
use crate::link::now;
use crate::replica::Replica;
use crate::stdio;
use crate::telemetry::TimeStatus;
use hdrhistogram::Histogram;
use logchan::channel::FrameVerdict;
use logchan::entry_kind::EntryKind;
use logchan::entry_stats::EntryStatsTable;
use logchan::ids::Role as End;
use logchan::time::{Duration as Span, Time};
use netpath::FramePort;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How often it is brought up to date.
pub(super) const INTERVAL: Span = Span::from_millis(100);

/// The time over which rates are computed, at least.
const RATES_OVER: Span = Span::from_millis(1000);

/// A host's status. Times are in the unit of a name's last word; rates are of the last second or so.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// What this host is for the VM: a state of [`crate::replica`].
    pub role: &'static str,
    /// The term it speaks in; of a backup, the newest it knows of.
    pub term: u64,
    /// Since the process began.
    pub uptime_s: f64,
    /// The other host, while there is a channel to it.
    pub peer: Option<PeerStatus>,
    /// Log that was made and not executed by the backup; on a backup, that is here and not executed.
    pub lag_bytes: u64,
    /// Frames of the VM from made to given to the LAN.
    pub hold: HoldStatus,
    /// Stages of frames that were followed through the machine, as long as the VM lives here.
    pub stages: BTreeMap<&'static str, TimeStatus>,
    /// The log of this session.
    pub log: LogStatus,
    /// Checkpoints.
    pub checkpoints: CheckpointStatus,
    /// Times this host took over.
    pub takeovers: u64,
    /// Backups lost.
    pub backups_lost: u64,
    /// Differences from the primary that were found.
    pub divergences: u64,
    /// Lines for standard output or standard error that could not be written.
    pub messages_dropped: u64,
}

/// The other host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerStatus {
    /// Its address on the log link.
    pub mac: String,
    /// What it is: "primary" or "backup".
    pub role: &'static str,
    /// Since it was last heard.
    pub heard_ms_ago: f64,
    /// Smoothed time from a frame to its acknowledgement.
    pub round_trip_us: Option<f64>,
    /// Frames sent again.
    pub resent: u64,
    /// Frames of it that did not arrive in order or at all, as far as seen, or were not its own.
    pub not_accepted: u64,
}

/// Output that waits.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HoldStatus {
    /// Frames released so far.
    pub released: u64,
    /// Frames that wait now.
    pub waiting: usize,
    /// Median of the wait.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
}

/// The log.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogStatus {
    /// Entries a second.
    pub entries_per_s: f64,
    /// Log as it is encoded, all kinds.
    pub mbit_per_s: f64,
    /// By kind, those that occurred.
    pub mbit_per_s_by_kind: BTreeMap<&'static str, f64>,
    /// Bytes of this session so far, by kind, those that occurred.
    pub bytes_by_kind: BTreeMap<&'static str, u64>,
    /// Everything this host sends on the log link, Ethernet headers included.
    pub wire_mbit_per_s: f64,
    /// Frames this host sends on the log link.
    pub wire_frames_per_s: f64,
}

/// Checkpoints of a primary and of a backup.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckpointStatus {
    /// Backups that were given the whole memory.
    pub syncs: u64,
    /// Sent, those that closed a sync included.
    pub sent: u64,
    /// Pages in those.
    pub pages: u64,
    /// What they took of the log, that of syncs included.
    pub bytes: u64,
    /// Applied.
    pub applied: u64,
    /// The VM's last pause for the closing checkpoint of a sync.
    pub last_sync_pause_ms: Option<f64>,
    /// Pages of each that was sent, those of syncs left out here and below.
    pub pages_each: PagesStatus,
    /// Sent: until the state of the machine and the list of its changed pages were read.
    pub capture: TimeStatus,
    /// Sent: until the guest ran on.
    pub still: TimeStatus,
    /// Applied: until the machine was in its state.
    pub apply: TimeStatus,
}

/// Numbers of pages since the process began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PagesStatus {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Most.
    pub max: u64,
}

/// Where a status can be read by others.
pub type StatusBoard = Arc<Mutex<Status>>;

/// Numbers at the beginning of the interval that rates are computed over.
#[derive(Debug)]
struct Mark {
    at: Time,
    entries: EntryStatsTable,
    wire_frames: u64,
    wire_bytes: u64,
}

/// Keeps a board up to date.
pub(super) struct Publisher {
    board: StatusBoard,
    started: Time,
    next: Time,
    mark: Mark,
    log: LogStatus,
}

impl Publisher {
    pub(super) fn new(board: StatusBoard) -> Publisher {
        let now = now();
        let entries = EntryStatsTable::default();
        let mark = Mark { at: now, entries, wire_frames: 0, wire_bytes: 0 };
        Publisher { board, started: now, next: now, mark, log: LogStatus::default() }
    }

    /// Whether it is time.
    pub(super) fn is_due(&self, now: Time) -> bool {
        now >= self.next
    }

    fn rates(&mut self, now: Time, replica: &Replica, wire: (u64, u64)) {
        let over = now.since(self.mark.at);
        if over < RATES_OVER {
            return;
        }
        let seconds = over.as_nanos() as f64 / 1e9;
        let entries = *replica.log_stats();
        let mbit = |bytes: u64| bytes as f64 * 8.0 / 1e6 / seconds;
        let (mut count, mut bytes) = (0, 0);
        let mut by_kind = BTreeMap::new();
        for (kind, stats) in entries.iter() {
            let before = self.mark.entries.get(kind);
            let added = stats.bytes - before.bytes;
            count += stats.count - before.count;
            bytes += added;
            if added > 0 {
                by_kind.insert(kind.name(), mbit(added));
            }
        }
        self.log = LogStatus {
            entries_per_s: count as f64 / seconds,
            mbit_per_s: mbit(bytes),
            mbit_per_s_by_kind: by_kind,
            bytes_by_kind: BTreeMap::new(),
            wire_mbit_per_s: mbit(wire.1 - self.mark.wire_bytes),
            wire_frames_per_s: (wire.0 - self.mark.wire_frames) as f64 / seconds,
        };
        self.mark = Mark { at: now, entries, wire_frames: wire.0, wire_bytes: wire.1 };
    }
}

impl<P: FramePort> PairSource<P> {
    /// Brings the board up to date, if it is time and nobody is reading it.
    pub(super) fn publish(&mut self, now: Time) {
        let Some(mut publisher) = self.take_publisher(now) else { return };
        publisher.next = now + INTERVAL;
        let port = self.wire_mut().port_mut().stats();
        publisher.rates(now, self.replica(), (port.tx_frames, port.tx_bytes));
        if let Ok(mut status) = publisher.board.try_lock() {
            let uptime_s = now.since(publisher.started).as_nanos() as f64 / 1e9;
            *status = self.status(now, uptime_s, publisher.log.clone());
        }
        self.put_publisher(publisher);
    }

    fn status(&self, now: Time, uptime_s: f64, log: LogStatus) -> Status {
        let replica = self.replica();
        let stats = replica.stats();
        let peer = replica.channel().map(|channel| {
            let counted = channel.stats();
            let accepted = counted.received(FrameVerdict::Accepted);
            PeerStatus {
                mac: self.peer_mac().to_string(),
                role: match channel.role() {
                    End::Primary => "backup",
                    End::Backup => "primary",
                },
                heard_ms_ago: now.since(channel.heard_at()).as_nanos() as f64 / 1e6,
                round_trip_us: channel.round_trip().map(|time| time.as_nanos() as f64 / 1e3),
                resent: counted.resent,
                not_accepted: counted.verdicts.iter().sum::<u64>() - accepted,
            }
        });
        Status {
            role: replica.role().as_str(),
            term: replica.term().0,
            uptime_s,
            peer,
            lag_bytes: replica.lag_bytes(),
            hold: hold_status(self.hold_ns(), replica.hold().len()),
            stages: self.stages().status(),
            log: LogStatus { bytes_by_kind: bytes_by_kind(replica.log_stats()), ..log },
            checkpoints: self.checkpoint_status(),
            takeovers: stats.takeovers,
            backups_lost: stats.backups_lost,
            divergences: stats.divergences,
            messages_dropped: stdio::messages_dropped(),
        }
    }
}

impl<P: FramePort> PairSource<P> {
    fn checkpoint_status(&self) -> CheckpointStatus {
        let (stats, times) = (self.replica().stats(), self.checkpoint_times());
        let log = self.replica().log_stats();
        let kinds = [EntryKind::CheckpointBegin, EntryKind::Page, EntryKind::CheckpointEnd];
        CheckpointStatus {
            syncs: stats.syncs,
            sent: stats.checkpoints_sent,
            pages: stats.checkpoint_pages,
            bytes: kinds.iter().map(|&kind| log.get(kind).bytes).sum(),
            applied: stats.checkpoints_applied,
            last_sync_pause_ms: self.last_sync_pause().map(|t| t.as_nanos() as f64 / 1e6),
            pages_each: PagesStatus {
                p50: times.pages.value_at_quantile(0.5),
                p99: times.pages.value_at_quantile(0.99),
                max: times.pages.max(),
            },
            capture: TimeStatus::of(&times.capture_ns),
            still: TimeStatus::of(&times.still_ns),
            apply: TimeStatus::of(&times.apply_ns),
        }
    }
}

fn bytes_by_kind(entries: &EntryStatsTable) -> BTreeMap<&'static str, u64> {
    let occurred = entries.iter().filter(|(_, stats)| stats.bytes > 0);
    occurred.map(|(kind, stats)| (kind.name(), stats.bytes)).collect()
}

fn hold_status(hold_ns: &Histogram<u64>, waiting: usize) -> HoldStatus {
    let TimeStatus { count, p50_us, p99_us, max_us } = TimeStatus::of(hold_ns);
    HoldStatus { released: count, waiting, p50_us, p99_us, max_us }
}
