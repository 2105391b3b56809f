//! [`Sample`], and what takes it on `vcpu0`.

use super::super::observer::PairObserver;
use super::super::status;
use super::board::MetricsBoard;
use crate::replay::rate_limit::OverLimit;
use crate::replay::world::World;
use crate::telemetry::{Buckets, PAGE_BOUNDS, PageBuckets, Stage, TIME_BOUNDS_NS, TimeBuckets};
use logchan::entry_stats::EntryStatsTable;
use logchan::handshake::LinkStats;
use logchan::health::Unfit;
use logchan::stats::Stats;
use logchan::time::{Duration as Span, Time};
use netpath::{FramePort, PacketStats};
use replication::replica::{CopyProgress, Replica, ReplicaStats, RoleName, WitnessState};
use std::sync::Arc;

/// What `vcpu0` knows of this host and its VM, at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was taken.
    pub taken_at: Time,
    /// Role of this host.
    pub role: RoleName,
    /// The primary's term; on a backup, the newest term that it knows of.
    pub term: u64,
    /// For how long the VM was protected.
    pub protection: ProtectionTime,
    /// How this host stands with its witness.
    pub witness: WitnessState,
    /// What this host lacks to run the VM.
    pub unfit: Unfit,
    /// The state of the supervisor: one of `SUPERVISOR_STATES`.
    pub supervisor: &'static str,
    /// The other host, while there is a channel to it.
    pub peer: Option<PeerSample>,
    /// Counters of the engine.
    pub stats: ReplicaStats,
    /// The log: on a primary, entries sent; on a backup, entries executed.
    pub log: EntryStatsTable,
    /// See [`Replica::lag_bytes`].
    pub lag_bytes: u64,
    /// Outputs that wait for an acknowledgement.
    pub held: usize,
    /// Counters of handshakes and seals.
    pub link: LinkStats,
    /// Counters of the log interface.
    pub port: PacketStats,
    /// Times of the stages, in the order of [`Stage::ALL`].
    pub stages: [TimeBuckets; Stage::ALL.len()],
    /// Hold times of outputs.
    pub hold: TimeBuckets,
    /// See `CheckpointTimes`.
    pub capture: TimeBuckets,
    /// See there.
    pub pause: TimeBuckets,
    /// See there.
    pub apply: TimeBuckets,
    /// See there.
    pub pages: PageBuckets,
    /// The VM's last pause for the closing checkpoint of a sync.
    pub last_sync_pause: Option<Span>,
    /// The copy of the memory to a backup, while there is one.
    pub copy: Option<CopyProgress>,
    /// What the guest wanted beyond the limits of rates.
    pub over_limit: OverLimit,
}

/// States of a supervisor, as [`SupervisorState::as_str`](crate::supervisor::SupervisorState::as_str) names them.
pub(super) const SUPERVISOR_STATES: [&str; 3] = ["off", "watching", "gone"];

/// The other host and the channel to it.
#[derive(Clone, Debug)]
pub struct PeerSample {
    /// Time since it was last heard.
    pub silence: Span,
    /// Smoothed time from sending a frame to its acknowledgement.
    pub round_trip: Option<Span>,
    /// What it lacks to run the VM.
    pub unfit: Unfit,
    /// Counters of the channel.
    pub stats: Stats,
}

/// For how long the other host could have continued the VM, and for how long not. It is looked at every 100 ms.
#[derive(Clone, Copy, Debug)]
pub struct ProtectionTime {
    looked_at: Time,
    /// Whether it could when this was looked at last.
    pub is_protected: bool,
    /// How long it could.
    pub protected: Span,
    /// How long it could not.
    pub unprotected: Span,
}

impl ProtectionTime {
    fn new(now: Time) -> ProtectionTime {
        let (protected, unprotected) = (Span::ZERO, Span::ZERO);
        ProtectionTime { looked_at: now, is_protected: false, protected, unprotected }
    }

    /// Adds the time since the last look to what the VM was then.
    fn look(&mut self, now: Time, is_protected: bool) {
        let passed = now.since(self.looked_at);
        let sum = if self.is_protected { &mut self.protected } else { &mut self.unprotected };
        *sum = *sum + passed;
        (self.looked_at, self.is_protected) = (now, is_protected);
    }
}

/// Takes samples.
pub(in crate::pair) struct MetricsPublisher {
    board: Arc<MetricsBoard>,
    protection: ProtectionTime,
}

impl MetricsPublisher {
    pub(in crate::pair) fn new(board: Arc<MetricsBoard>, now: Time) -> MetricsPublisher {
        MetricsPublisher { board, protection: ProtectionTime::new(now) }
    }
}

impl PairObserver {
    /// Publishes a sample if somebody wants one. To be called when the status is published.
    pub(in crate::pair) fn publish_metrics<P: FramePort>(
        &mut self,
        now: Time,
        replica: &Replica,
        (port, world): (PacketStats, &World<P>),
    ) {
        let Some(publisher) = self.metrics_mut() else { return };
        publisher.protection.look(now, status::protection(now, replica).is_ok());
        let (board, protection) = (Arc::clone(&publisher.board), publisher.protection);
        board.publish(|| self.sample((now, protection), replica, (port, world)));
    }

    fn sample<P: FramePort>(
        &self,
        (now, protection): (Time, ProtectionTime),
        replica: &Replica,
        (port, world): (PacketStats, &World<P>),
    ) -> Sample {
        let times = self.checkpoint_times();
        Sample {
            taken_at: now,
            role: replica.role(),
            term: replica.term().0,
            protection,
            witness: replica.witness_state(),
            unfit: replica.unfit(),
            supervisor: self.supervisor().as_str(),
            peer: replica.channel().map(|channel| PeerSample {
                silence: now.since(channel.heard_at()),
                round_trip: channel.round_trip(),
                unfit: replica.peer_unfit(),
                stats: channel.stats().clone(),
            }),
            stats: *replica.stats(),
            log: *replica.log_stats(),
            lag_bytes: replica.lag_bytes(),
            held: replica.hold().len(),
            link: replica.endpoint().map(|endpoint| endpoint.link_stats()).unwrap_or_default(),
            port,
            stages: world.stages().buckets(),
            hold: Buckets::of(self.hold_ns(), &TIME_BOUNDS_NS),
            capture: Buckets::of(&times.capture_ns, &TIME_BOUNDS_NS),
            pause: Buckets::of(&times.pause_ns, &TIME_BOUNDS_NS),
            apply: Buckets::of(&times.apply_ns, &TIME_BOUNDS_NS),
            pages: Buckets::of(&times.pages, &PAGE_BOUNDS),
            last_sync_pause: self.last_sync_pause(),
            copy: replica.copy_progress(),
            over_limit: world.over_limit(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::supervisor::Supervisor;
    use hdrhistogram::Histogram;

    /// Returns a sample of a protected primary.
    pub(in crate::pair::metrics) fn sample(taken_at: Time) -> Sample {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record(40_000).unwrap();
        let times = Buckets::of(&histogram, &TIME_BOUNDS_NS);
        let mut protection = ProtectionTime::new(Time::from_nanos(0));
        protection.look(Time::from_nanos(2_000_000_000), true);
        protection.look(Time::from_nanos(9_500_000_000), true);
        Sample {
            taken_at,
            role: RoleName::Protected,
            term: 3,
            protection,
            witness: WitnessState::Reachable,
            unfit: Unfit::NONE,
            supervisor: Supervisor::none().state().as_str(),
            peer: Some(PeerSample {
                silence: Span::from_millis(5),
                round_trip: Some(Span::from_micros(50)),
                unfit: Unfit::WITNESS,
                stats: Stats { resent: 4, ..Stats::default() },
            }),
            stats: ReplicaStats { released: 100, takeovers: 1, ..ReplicaStats::default() },
            log: EntryStatsTable::default(),
            lag_bytes: 77,
            held: 2,
            link: LinkStats::default(),
            port: PacketStats { tx_frames: 1000, ..PacketStats::default() },
            stages: [times; Stage::ALL.len()],
            hold: times,
            capture: times,
            pause: times,
            apply: times,
            pages: Buckets { counts: [0; PAGE_BOUNDS.len()], above: 0, sum: 0 },
            last_sync_pause: Some(Span::from_millis(3)),
            copy: None,
            over_limit: OverLimit::default(),
        }
    }

    #[test]
    fn time_between_two_looks_counts_as_what_the_first_one_saw() {
        let mut time = ProtectionTime::new(Time::from_nanos(100));
        time.look(Time::from_nanos(150), true);
        time.look(Time::from_nanos(450), false);
        time.look(Time::from_nanos(451), false);
        let ProtectionTime { is_protected, protected, unprotected, .. } = time;
        let [protected, unprotected] = [protected, unprotected].map(Span::as_nanos);
        assert_eq!((is_protected, protected, unprotected), (false, 300, 51));
    }

    #[test]
    fn every_state_of_a_supervisor_is_listed() {
        assert!(SUPERVISOR_STATES.contains(&Supervisor::none().state().as_str()));
    }
}
