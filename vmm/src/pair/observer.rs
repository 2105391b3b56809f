//! [`PairObserver`]: notices for the operator, and measurements.

use super::checkpoint_times::CheckpointTimes;
use super::host::PairHost;
use super::metrics::{MetricsBoard, MetricsPublisher};
use super::status::{Publisher, StatusBoard, summary};
use crate::health::WatchedTap;
use crate::link::diagnosis::why_nobody;
use crate::link::{EthernetLink, now};
use crate::notify::ServiceManager;
use crate::replay::world::World;
use crate::supervisor::SupervisorState;
use hdrhistogram::Histogram;
use logchan::time::{Duration as Span, Time};
use netpath::FramePort;
use replication::driver::{CheckpointMoment, DriverView, Moment, Notice, Observer};
use replication::replica::Replica;
use std::sync::Arc;

/// Longest hold time that the histogram records, nanoseconds: one minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// Receives the notices about a replica.
pub type OnNotice = Box<dyn FnMut(&Replica, Notice) + Send>;

/// Passes notices on, measures, and publishes the status.
pub struct PairObserver {
    on_notice: OnNotice,
    /// Time from an output's creation until it was given to the tap, nanoseconds.
    hold_ns: Histogram<u64>,
    checkpoint_times: CheckpointTimes,
    /// The VM's last pause for the closing checkpoint of a sync.
    last_sync_pause: Option<Span>,
    publisher: Publisher,
    /// Of a host that serves metrics.
    metrics: Option<MetricsPublisher>,
    lan: Option<WatchedTap>,
    supervisor: SupervisorState,
    service: ServiceManager,
    /// Why the witness did not answer last.
    witness_error: Option<String>,
}

impl PairObserver {
    /// Creates an observer that passes notices to `on_notice` and publishes the status on `board`. `lan` is
    /// the VM's tap, `supervisor` the state of this process's supervisor.
    pub fn new(
        on_notice: OnNotice,
        board: StatusBoard,
        lan: Option<WatchedTap>,
        supervisor: SupervisorState,
    ) -> PairObserver {
        PairObserver {
            on_notice,
            hold_ns: Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("sound bounds"),
            checkpoint_times: CheckpointTimes::new(),
            last_sync_pause: None,
            publisher: Publisher::new(board),
            metrics: None,
            lan,
            supervisor,
            service: ServiceManager::default(),
            witness_error: None,
        }
    }

    /// Publishes samples for metrics on `board`, too.
    pub fn publish_samples(mut self, board: Arc<MetricsBoard>) -> PairObserver {
        self.metrics = Some(MetricsPublisher::new(board, now()));
        self
    }

    /// Makes this observer report to `service`, too.
    pub fn reporting_to(self, service: ServiceManager) -> PairObserver {
        PairObserver { service, ..self }
    }

    /// This host's part is over.
    pub fn stopping(&mut self) {
        self.service.stopping();
    }

    /// Returns the times from an output's creation until it was given to the tap, nanoseconds.
    pub fn hold_ns(&self) -> &Histogram<u64> {
        &self.hold_ns
    }

    /// Returns the VM's last pause for the closing checkpoint of a sync.
    pub(super) fn last_sync_pause(&self) -> Option<Span> {
        self.last_sync_pause
    }

    /// Returns how long checkpoints took.
    pub(super) fn checkpoint_times(&self) -> &CheckpointTimes {
        &self.checkpoint_times
    }

    /// Returns why frames can't pass between the VM and the LAN; `None` if they can.
    pub(super) fn lan_fault(&self) -> Option<String> {
        self.lan.as_ref().and_then(WatchedTap::fault)
    }

    /// Returns the state of the supervisor.
    pub(super) fn supervisor(&self) -> &SupervisorState {
        &self.supervisor
    }

    /// Returns why the witness did not answer last.
    pub(super) fn witness_error(&self) -> Option<&str> {
        self.witness_error.as_deref()
    }

    pub(super) fn publisher_mut(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    pub(super) fn metrics_mut(&mut self) -> Option<&mut MetricsPublisher> {
        self.metrics.as_mut()
    }
}

impl<P: FramePort> Observer<PairHost<P>> for PairObserver {
    fn notice(&mut self, replica: &Replica, notice: Notice) {
        if let Notice::WitnessFailed { error } = &notice {
            self.witness_error = Some(error.clone());
        }
        (self.on_notice)(replica, notice);
    }

    fn frame(&mut self, world: &mut World<P>, moment: Moment, now: impl FnOnce() -> Time) {
        let stages = world.stages_mut();
        let now = || now().as_nanos();
        match moment {
            Moment::Injected => stages.injected(now),
            Moment::Served => stages.served(now),
            Moment::Made => stages.made(now),
            Moment::LogSent => stages.sent(now),
            Moment::MayLeave { made_at } => stages.acked(made_at.as_nanos(), now()),
            Moment::Left { all } => stages.left(all, now),
        }
    }

    fn held(&mut self, span: Span) {
        self.hold_ns.saturating_record(span.as_nanos());
    }

    fn checkpoint(&mut self, now: Time, moment: CheckpointMoment) {
        let times = &mut self.checkpoint_times;
        match moment {
            CheckpointMoment::Sent { capture, pause, pages } => times.sent(capture, pause, pages),
            CheckpointMoment::SyncClosed { pause } => self.last_sync_pause = Some(pause),
            CheckpointMoment::Fetched => times.fetched(now),
            CheckpointMoment::Applied => times.applied(now),
        }
    }

    fn driven(&mut self, now: Time, driver: DriverView<'_, PairHost<P>>) {
        // Here, because this proves that the loop of the VM turns, also while the guest is idle or paused.
        self.service.prove_alive(now);
        if self.publisher_mut().is_due(now) {
            self.service.show(&summary(now, driver.replica));
        }
        self.publish(now, driver);
    }

    fn why_nobody(&self, link: &mut EthernetLink, replica: &Replica) -> String {
        let handshakes = replica.endpoint().map(|endpoint| endpoint.link_stats());
        let report = link.report(handshakes.unwrap_or_default());
        why_nobody(&report, link.port().name(), (link.peer(), link.vm()))
    }
}
