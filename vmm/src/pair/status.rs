//! Status of a host of a pair, as `understudy status` shows it.

use super::host::PairHost;
use super::observer::PairObserver;
use crate::disk::{CopyProgress, KeepState};
use crate::link::now;
use crate::replay::World;
use crate::replay::rate_limit::OverLimit;
use crate::stdio;
use crate::telemetry::TimeStatus;
use hdrhistogram::Histogram;
use logchan::channel::FrameVerdict;
use logchan::entry_kind::EntryKind;
use logchan::entry_stats::EntryStatsTable;
use logchan::ids::Role as End;
use logchan::time::{Duration as Span, Time};
use netpath::{FramePort, MacAddr};
use replication::Divergence;
use replication::driver::DriverView;
use replication::replica::{
    CopyProgress as MemoryProgress, Replica, RoleName, StallCause, WitnessState,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Interval between updates.
const UPDATE_INTERVAL: Span = Span::from_millis(100);

/// Shortest interval over which rates are computed.
const RATE_INTERVAL_MIN: Span = Span::from_millis(1000);

/// Version of the status; `docs/schema/status.schema.json` has the schema.
const STATUS_SCHEMA: u32 = 1;

/// Status of a host. The last word of a name is the unit; rates cover about the last second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Version of these fields; 0 until the VM runs.
    pub schema: u32,
    /// Role of this host: a state of [`replication::replica`].
    pub role: &'static str,
    /// Whether the other host could continue the VM: `yes`, or `no: ` and the reason.
    pub protected: String,
    /// The VM's way to the LAN on this host: `up`, or what is wrong and what to do.
    pub lan: String,
    /// The witness: `reachable`, `unknown`, or `unreachable: ` and the reason.
    pub witness: String,
    /// The primary's term; on a backup, the newest term that it knows of.
    pub term: u64,
    /// Time since the process started.
    pub uptime_s: f64,
    /// The process that tells the peer when this one is gone: "watching", "gone" or "off".
    pub supervisor: &'static str,
    /// The other host, while there is a channel to it.
    pub peer: Option<PeerStatus>,
    /// On a primary, log that the backup has not executed; on a backup, log that arrived and was not
    /// executed.
    pub lag_bytes: u64,
    /// Hold times of outputs.
    pub hold: HoldStatus,
    /// Stage latencies of sampled frames, while the VM runs live on this host.
    pub stages: BTreeMap<&'static str, TimeStatus>,
    /// The log of this session.
    pub log: LogStatus,
    /// The copy of the memory to a backup, while there is one.
    pub copy: Option<CopyStatus>,
    /// Checkpoints.
    pub checkpoints: CheckpointStatus,
    /// Times this host took over.
    pub takeovers: u64,
    /// Handovers begun on this host.
    pub handovers: u64,
    /// Handovers refused: no backup held the whole VM.
    pub handovers_refused: u64,
    /// Handovers after which this host continued the VM.
    pub handovers_failed: u64,
    /// Frames of this host's tap that were passed on after the VM had been handed over.
    pub frames_passed_on: u64,
    /// Frames that were passed on and that the VM received on this host.
    pub passed_frames_taken: u64,
    /// Frames that were passed on and dropped on this host.
    pub passed_frames_dropped: u64,
    /// Backups lost.
    pub backups_lost: u64,
    /// Divergences from the primary that were found.
    pub divergences: u64,
    /// The last of these: what was expected and what was found.
    pub last_divergence: Option<Divergence>,
    /// Times this host left as a backup because of a disk.
    pub disk_faults: u64,
    /// The last of these.
    pub last_disk_fault: Option<String>,
    /// The disks of this host, if the VM has any.
    pub disks: Option<DisksStatus>,
    /// What the guest wanted beyond the limits of rates, on this host.
    pub over_limit: OverLimit,
    /// Lines for standard output or standard error that could not be written.
    pub messages_dropped: u64,
}

/// Status of the disks of a host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DisksStatus {
    /// Failed requests of each disk.
    pub failed: Vec<u64>,
    /// What is known about the images, in the files beside them: `stored`, `pending`, or `failed`.
    pub superblocks: &'static str,
    /// On a primary, the copy to a new backup, in blocks of 64 KiB, while there is one.
    pub copy: Option<CopyProgress>,
    /// Why the last copy failed; there is none if both hosts have had the same contents since.
    pub copy_fault: Option<String>,
}

impl DisksStatus {
    fn of<P: FramePort>(world: &World<P>) -> Option<DisksStatus> {
        let disks = world.disks();
        let failed: Vec<_> = disks.status().iter().map(|disk| disk.failed).collect();
        (!failed.is_empty()).then(|| DisksStatus {
            failed,
            superblocks: match disks.keep_state() {
                KeepState::Pending => "pending",
                KeepState::Done => "stored",
                KeepState::Failed => "failed",
            },
            copy: disks.copy_progress(),
            copy_fault: world.copy_fault().map(|fault| fault.to_string()),
        })
    }
}

/// Status of the other host, and of the channel to it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerStatus {
    /// Its MAC address on the log link.
    pub mac: String,
    /// Its role: "primary" or "backup".
    pub role: &'static str,
    /// Time since it was last heard.
    pub heard_ms_ago: f64,
    /// Smoothed time from sending a frame to its acknowledgement.
    pub round_trip_us: Option<f64>,
    /// Frames retransmitted.
    pub resent: u64,
    /// Received frames that were not accepted: duplicates, frames of other sessions or terms, invalid frames.
    pub not_accepted: u64,
}

/// Hold times of outputs, from an output's creation until it was given to the LAN.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HoldStatus {
    /// Frames released so far.
    pub released: u64,
    /// Frames held now.
    pub waiting: usize,
    /// Median hold time.
    pub p50_us: f64,
    /// 99th percentile of the hold time.
    pub p99_us: f64,
    /// Longest hold time.
    pub max_us: f64,
}

/// Rates and sizes of the log.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogStatus {
    /// Entries per second.
    pub entries_per_s: f64,
    /// Encoded log, all entry kinds.
    pub mbit_per_s: f64,
    /// Encoded log by entry kind; kinds that did not occur are left out.
    pub mbit_per_s_by_kind: BTreeMap<&'static str, f64>,
    /// Bytes of this session so far, by entry kind; kinds that did not occur are left out.
    pub bytes_by_kind: BTreeMap<&'static str, u64>,
    /// All frames that this host sends on the log link, Ethernet headers included.
    pub wire_mbit_per_s: f64,
    /// Frames that this host sends on the log link.
    pub wire_frames_per_s: f64,
}

/// A copy of the memory to a backup.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyStatus {
    /// The pass over the memory; the first one copies all pages, each further one those that were written since.
    pub pass: u32,
    /// Pages that this pass has to copy still.
    pub pages_left: u64,
    /// The guest's share of time: 1 if it is not slowed.
    pub guest_share: f64,
    /// What the log link carried in the passes before.
    pub carried_kib_per_s: Option<u64>,
}

impl From<MemoryProgress> for CopyStatus {
    fn from(progress: MemoryProgress) -> CopyStatus {
        let MemoryProgress { pass, pages_left, share, carried_per_s } = progress;
        CopyStatus {
            pass,
            pages_left,
            guest_share: 1.0 / share.divisor() as f64,
            carried_kib_per_s: carried_per_s.map(|bytes| bytes / 1024),
        }
    }
}

/// Checkpoints of a primary and of a backup.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckpointStatus {
    /// Syncs completed.
    pub syncs: u64,
    /// Checkpoints sent, closing checkpoints of syncs included.
    pub sent: u64,
    /// Pages in the checkpoints sent.
    pub pages: u64,
    /// Bytes of log that checkpoints and syncs occupied.
    pub bytes: u64,
    /// Checkpoints applied.
    pub applied: u64,
    /// The VM's last pause for the closing checkpoint of a sync.
    pub last_sync_pause_ms: Option<f64>,
    /// Pages per checkpoint sent. Closing checkpoints of syncs are left out here and below.
    pub pages_each: PagesStatus,
    /// Sent checkpoints: from the vCPU's stop until machine state and dirty page list were read.
    pub capture: TimeStatus,
    /// Sent checkpoints: the guest's pause.
    pub still: TimeStatus,
    /// Applied checkpoints: time until the machine was in the checkpoint's state.
    pub apply: TimeStatus,
}

/// Page counts since the process started.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PagesStatus {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest count.
    pub max: u64,
}

/// The published status, shared with the status server.
pub type StatusBoard = Arc<Mutex<Status>>;

/// Counters at the start of the interval that rates are computed over.
#[derive(Debug)]
struct RateBaseline {
    at: Time,
    entries: EntryStatsTable,
    wire_frames: u64,
    wire_bytes: u64,
}

/// Updates a status board periodically.
pub(super) struct Publisher {
    board: StatusBoard,
    started: Time,
    next: Time,
    baseline: RateBaseline,
    log: LogStatus,
}

impl Publisher {
    pub(super) fn new(board: StatusBoard) -> Publisher {
        let now = now();
        let entries = EntryStatsTable::default();
        let baseline = RateBaseline { at: now, entries, wire_frames: 0, wire_bytes: 0 };
        Publisher { board, started: now, next: now, baseline, log: LogStatus::default() }
    }

    /// Returns whether an update is due.
    pub(super) fn is_due(&self, now: Time) -> bool {
        now >= self.next
    }

    /// Recomputes the rates if the interval is over. `wire`: frames and bytes sent on the log link so far.
    fn update_rates(&mut self, now: Time, replica: &Replica, wire: (u64, u64)) {
        let interval = now.since(self.baseline.at);
        if interval < RATE_INTERVAL_MIN {
            return;
        }
        let seconds = interval.as_nanos() as f64 / 1e9;
        let entries = *replica.log_stats();
        let mbit = |bytes: u64| bytes as f64 * 8.0 / 1e6 / seconds;
        let (mut count, mut bytes) = (0, 0);
        let mut by_kind = BTreeMap::new();
        for (kind, stats) in entries.iter() {
            let before = self.baseline.entries.get(kind);
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
            wire_mbit_per_s: mbit(wire.1 - self.baseline.wire_bytes),
            wire_frames_per_s: (wire.0 - self.baseline.wire_frames) as f64 / seconds,
        };
        self.baseline = RateBaseline { at: now, entries, wire_frames: wire.0, wire_bytes: wire.1 };
    }
}

impl PairObserver {
    /// Updates the board if an update is due. Skips the update while the board is being read, because the
    /// vCPU thread must not wait.
    pub(super) fn publish<P: FramePort>(&mut self, now: Time, driver: DriverView<'_, PairHost<P>>) {
        let publisher = self.publisher_mut();
        if !publisher.is_due(now) {
            return;
        }
        let DriverView { replica, link, world } = driver;
        publisher.next = now + UPDATE_INTERVAL;
        let port = link.port_stats();
        publisher.update_rates(now, replica, (port.tx_frames, port.tx_bytes));
        let (board, log) = (Arc::clone(&publisher.board), publisher.log.clone());
        let uptime_s = now.since(publisher.started).as_nanos() as f64 / 1e9;
        if let Ok(mut status) = board.try_lock() {
            *status = Status {
                uptime_s,
                stages: world.stages().status(),
                over_limit: world.over_limit(),
                disks: DisksStatus::of(world),
                log: LogStatus { bytes_by_kind: bytes_by_kind(replica.log_stats()), ..log },
                ..self.status(now, replica, link.peer())
            };
        }
        self.publish_metrics(now, replica, (port, world));
    }

    fn status(&self, now: Time, replica: &Replica, peer: MacAddr) -> Status {
        let stats = replica.stats();
        let peer = replica.channel().map(|channel| {
            let counted = channel.stats();
            let accepted = counted.received(FrameVerdict::Accepted);
            PeerStatus {
                mac: peer.to_string(),
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
            schema: STATUS_SCHEMA,
            role: replica.role().as_str(),
            protected: protection_text(now, replica),
            lan: self.lan_fault().unwrap_or_else(|| "up".into()),
            witness: self.witness(replica),
            supervisor: self.supervisor().as_str(),
            term: replica.term().0,
            peer,
            lag_bytes: replica.lag_bytes(),
            hold: hold_status(self.hold_ns(), replica.hold().len()),
            copy: replica.copy_progress().map(CopyStatus::from),
            checkpoints: self.checkpoint_status(replica),
            takeovers: stats.takeovers,
            handovers: stats.handovers,
            handovers_refused: stats.handovers_refused,
            handovers_failed: stats.handovers_failed,
            frames_passed_on: stats.frames_passed_on,
            passed_frames_taken: stats.passed_frames_taken,
            passed_frames_dropped: stats.passed_frames_dropped,
            backups_lost: stats.backups_lost,
            divergences: stats.divergences,
            last_divergence: replica.divergence().cloned(),
            disk_faults: stats.disk_faults,
            last_disk_fault: replica.disk_fault().map(|fault| fault.to_string()),
            messages_dropped: stdio::messages_dropped(),
            ..Status::default()
        }
    }

    fn witness(&self, replica: &Replica) -> String {
        let state = replica.witness_state();
        match (state, self.witness_error()) {
            (WitnessState::Unreachable, Some(error)) => format!("{}: {error}", state.as_str()),
            (WitnessState::Unknown | WitnessState::Reachable | WitnessState::Unreachable, _) => {
                state.as_str().into()
            }
        }
    }

    fn checkpoint_status(&self, replica: &Replica) -> CheckpointStatus {
        let (stats, times) = (replica.stats(), self.checkpoint_times());
        let log = replica.log_stats();
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
            still: TimeStatus::of(&times.pause_ns),
            apply: TimeStatus::of(&times.apply_ns),
        }
    }
}

fn bytes_by_kind(entries: &EntryStatsTable) -> BTreeMap<&'static str, u64> {
    let occurred = entries.iter().filter(|(_, stats)| stats.bytes > 0);
    occurred.map(|(kind, stats)| (kind.name(), stats.bytes)).collect()
}

/// Returns the status in one line: what this host is to the VM, and whether the VM is protected.
pub(super) fn summary(now: Time, replica: &Replica) -> String {
    let role = replica.role();
    let part = match role {
        RoleName::Standalone
        | RoleName::Starting
        | RoleName::Alone
        | RoleName::Copying
        | RoleName::Closing
        | RoleName::Protected
        | RoleName::HandingOver
        | RoleName::Losing => "primary",
        RoleName::Seeking
        | RoleName::Syncing
        | RoleName::Following
        | RoleName::Finishing
        | RoleName::Claiming
        | RoleName::Leaving => "backup",
        RoleName::Halted => "ended",
    };
    let (role, term) = (role.as_str(), replica.term());
    format!("{part} ({role}), term {term}; protected: {}", protection_text(now, replica))
}

/// Returns `yes`, or `no` with the reason.
fn protection_text(now: Time, replica: &Replica) -> String {
    match protection(now, replica) {
        Ok(()) => "yes".into(),
        Err(why) => format!("no: {why}"),
    }
}

/// Returns whether the other host could continue the VM, and otherwise why not.
pub(super) fn protection(now: Time, replica: &Replica) -> Result<(), String> {
    let stall = match replica.sync_stall() {
        None => None,
        Some(StallCause::LongFramesLost) => Some("does the log link lose long frames (its MTU)?"),
        Some(StallCause::Slow) => Some("the other host's answers take longer than the lease"),
    };
    if let Some(why) = stall {
        return Err(format!("the sync stands still: {why}"));
    }
    if let Some(delay) = replica.sync_delay() {
        let wait_s = delay.until.since(now).as_nanos() / 1_000_000_000;
        let (failures, why) = (delay.failures, delay.cause);
        return Err(format!(
            "the next sync begins in {wait_s} s: {failures} in a row did not last, the last one because {why}"
        ));
    }
    let (unfit, of) = match replica.role() {
        RoleName::Protected => (replica.peer_unfit(), "the backup is unfit"),
        RoleName::Following => (replica.unfit(), "this host is unfit"),
        RoleName::Standalone
        | RoleName::Starting
        | RoleName::Alone
        | RoleName::Copying
        | RoleName::Closing
        | RoleName::HandingOver
        | RoleName::Losing
        | RoleName::Seeking
        | RoleName::Syncing
        | RoleName::Finishing
        | RoleName::Claiming
        | RoleName::Leaving
        | RoleName::Halted => return Err("there is no synced backup".into()),
    };
    match unfit.is_fit() {
        true => Ok(()),
        false => Err(format!("{of}: {unfit}")),
    }
}

fn hold_status(hold_ns: &Histogram<u64>, waiting: usize) -> HoldStatus {
    let TimeStatus { count, p50_us, p99_us, max_us } = TimeStatus::of(hold_ns);
    HoldStatus { released: count, waiting, p50_us, p99_us, max_us }
}
