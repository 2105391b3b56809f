//! The logging channel: delivers the log whole and in order over a link that loses frames, and detects
//! whether the other end is alive.
//!
//! Two [`Channel`]s, a primary's and a backup's, exchange [frames](crate::frame). A channel carries two
//! [lanes](crate::ids::Lane), which are byte streams, in each direction. The other end reads a lane from
//! its first byte on; there is no other starting point, so both ends begin together, in a session of
//! their own.
//!
//! ```text
//!          bye()                 acknowledged, or silence
//!   Open ---------> Leaving -------------------------------> Left
//!    |  \               |
//!    |   \ Bye          | Bye
//!    |    v             v
//!    |    PeerLeft <----+          acknowledges the peer's Bye frames
//!    |
//!    +------------> Silent         accepts and sends nothing more
//!      silence, or the peer's death notice
//! ```
//!
//! Bytes of log are sent and accepted in `Open` only. No state leads back to it: after `Silent`, open a
//! new session.
//!
//! | file | contents |
//! |---|---|
//! | `config` | configuration, and which values are compatible |
//! | `input` | handling of frames and timeouts |
//! | `output` | which frame to send next |
//! | `query` | queries, which change nothing |
//! | `send_window`, `recv_window` | bytes of one lane, outgoing and incoming |
//! | `ack` | which frames were received, and when to acknowledge them |
//! | `commit` | up to where the backup holds both lanes |
//! | `rtt`, `timer` | round-trip time and timeouts; deadlines |
//! | `sent_times` | when each frame was sent |
//! | `verdict`, `event` | what became of a frame; events for the owner |
//! | `mutant` | bugs that can be planted, to test the simulator |

mod ack;
mod commit;
mod config;
mod event;
mod input;
mod mutant;
mod output;
mod query;
mod recv_window;
mod rtt;
mod send_window;
mod sent_times;
mod timer;
mod verdict;

pub use config::{Config, ConfigError, Timing};
pub use event::Event;
#[cfg(any(test, feature = "mutants"))]
pub use mutant::Mutant;
#[cfg(not(any(test, feature = "mutants")))]
pub(crate) use mutant::Mutant;
pub use mutant::Mutants;
pub use verdict::FrameVerdict;

use core::ops::Range;

use self::ack::{Arrivals, PendingAck};
use self::commit::Commit;
use self::event::PendingEvents;
use self::recv_window::RecvWindow;
use self::rtt::RttEstimator;
use self::send_window::SendWindow;
use self::sent_times::SentTimes;
use self::timer::{Timer, TimerTable};
use crate::health::Unfit;
use crate::ids::{FrameNumber, Lane, LogSeq, Role, Term};
use crate::limits::{FRAME_HEADER_BYTES, IN_FLIGHT_FRAMES_MAX};
use crate::liveness::Liveness;
use crate::stats::Stats;
use crate::time::Time;

/// State of a channel; the diagram is at the head of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// `first`: number of the first `Bye` frame. From then on, only `Bye` frames are sent.
    Leaving {
        first: FrameNumber,
    },
    Left,
    PeerLeft,
    Silent,
}

/// One end of a logging channel. Pure: the caller passes frames and the time in, and takes frames out.
/// One thread owns it. Nothing is allocated after [`new`](Self::new).
///
/// The methods are of four kinds. The driver calls them in this order, again and again:
///
/// 1. Inputs: [`handle_frame`](Self::handle_frame) for every frame available, and only then
///    [`handle_timeout`](Self::handle_timeout). A host that did not run for a while then finds the
///    frames of a living peer before it finds that time has passed.
/// 2. Results: [`poll_event`](Self::poll_event) until `None`, and [`received`](Self::received) with
///    [`consume`](Self::consume) for each lane.
/// 3. Commands: [`append`](Self::append), [`set_executed`](Self::set_executed),
///    [`require_bulk`](Self::require_bulk), [`bye`](Self::bye).
/// 4. Outputs: [`poll_transmit`](Self::poll_transmit) until `None` or until the link accepts no more,
///    then [`poll_timeout`](Self::poll_timeout). The driver sleeps until then or until a frame arrives.
///
/// A link that queues frames should take the next one only when it is about to send it: `poll_transmit`
/// chooses between latency and bulk, and a frame once taken keeps its place in the queue. The other
/// methods are queries, which change nothing.
///
/// `now` must not go back from call to call and must come from one clock (see [`crate::time`]).
///
/// # Panics
///
/// Every method that takes `now` panics when it is before that of an earlier call.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    config: Config,
    role: Role,
    state: State,
    now: Time,
    send: [SendWindow; Lane::ALL.len()],
    recv: [RecvWindow; Lane::ALL.len()],
    commit: Commit,
    /// Our frames: number of the next one, when each was sent, the newest that the peer acknowledged.
    next_number: FrameNumber,
    sent_times: SentTimes,
    newest_acked: FrameNumber,
    /// The peer's frames, and the acknowledgement that is due for them.
    arrivals: Arrivals,
    pending_ack: PendingAck,
    rtt: RttEstimator,
    liveness: Liveness,
    /// By [`Lane::index`], since when the oldest bytes sent and not acknowledged wait: since they were sent, or since
    /// the acknowledgement before.
    unacked_since: [Option<Time>; Lane::ALL.len()],
    /// Since when there is no lease.
    unleased_since: Option<Time>,
    timers: TimerTable,
    /// A heartbeat is due, or, while leaving, a `Bye`.
    heartbeat_due: bool,
    executed: u64,
    peer_executed: u64,
    unfit: Unfit,
    peer_unfit: Unfit,
    newest_term: Term,
    same_role_reported: bool,
    lease_reported: bool,
    /// Bytes of the last append that was refused; its caller waits for that much room.
    wants_room: [Option<usize>; Lane::ALL.len()],
    events: PendingEvents,
    stats: Stats,
}

/// Why [`Channel::append`] took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The window is full. [`Event::Room`] follows when the peer has acknowledged enough.
    #[error("no room in the window: {room} bytes are free")]
    Full {
        /// Free bytes in the window.
        room: usize,
    },
    /// One of the ends has left, or the peer is silent.
    #[error("the channel has ended")]
    Over,
}

impl Channel {
    /// Creates one end of a session that begins at `now`, a time at which the peer was present.
    ///
    /// # Errors
    ///
    /// Values in `config` that are out of their limits or incompatible.
    pub fn new(config: Config, role: Role, now: Time) -> Result<Self, ConfigError> {
        config.check()?;
        let timing = config.timing;
        let lease =
            if config.mutants.has(Mutant::NoLeaseMargin) { timing.silence } else { timing.lease };
        let mut channel = Self {
            role,
            state: State::Open,
            now,
            send: Lane::ALL.map(|lane| {
                let index = lane.index();
                SendWindow::new(config.window_bytes[index], IN_FLIGHT_FRAMES_MAX[index])
            }),
            recv: config.window_bytes.map(RecvWindow::new),
            commit: Commit::new(),
            next_number: FrameNumber::NONE.next(),
            sent_times: SentTimes::new(),
            newest_acked: FrameNumber::NONE,
            arrivals: Arrivals::default(),
            pending_ack: PendingAck::default(),
            rtt: RttEstimator::new(
                timing.heartbeat.min(timing.retransmit_max),
                timing.retransmit_min,
                timing.retransmit_max,
            ),
            liveness: Liveness::new(now, timing.silence, lease),
            unacked_since: [None; Lane::ALL.len()],
            unleased_since: Some(now),
            timers: TimerTable::default(),
            // The first frame tells the peer how much it may send.
            heartbeat_due: true,
            executed: 0,
            peer_executed: 0,
            unfit: Unfit::NONE,
            peer_unfit: Unfit::NONE,
            newest_term: config.term,
            same_role_reported: false,
            lease_reported: false,
            wants_room: [None; Lane::ALL.len()],
            events: PendingEvents::default(),
            stats: Stats::default(),
            config,
        };
        channel.timers.set(Timer::Silence, channel.liveness.silence_at());
        Ok(channel)
    }

    /// Appends all of `bytes` to `lane`, or nothing. Returns their range of positions in the lane.
    ///
    /// # Errors
    ///
    /// The window is full, or the channel has ended.
    ///
    /// # Panics
    ///
    /// When `bytes` are longer than the whole window.
    pub fn append(
        &mut self,
        now: Time,
        lane: Lane,
        bytes: &[u8],
    ) -> Result<Range<LogSeq>, AppendError> {
        self.advance(now);
        if self.state != State::Open {
            return Err(AppendError::Over);
        }
        let index = lane.index();
        let capacity = self.config.window_bytes[index];
        assert!(
            bytes.len() <= capacity,
            "appended {} bytes to a window of {capacity}",
            bytes.len()
        );
        let room = self.send[index].room();
        if bytes.len() > room {
            self.wants_room[index] = Some(bytes.len());
            self.stats.appends_refused += 1;
            return Err(AppendError::Full { room });
        }
        let start = LogSeq(self.send[index].end());
        self.send[index].append(bytes);
        Ok(start..LogSeq(self.send[index].end()))
    }

    /// Makes what is appended to the latency lane from here on depend on everything appended to the bulk
    /// lane so far: [`acked`](Self::acked) does not pass this point before the peer holds both. Nothing
    /// else is delayed.
    pub fn require_bulk(&mut self) {
        let [latency, bulk] = &self.send;
        self.commit.require(latency.end(), bulk.end());
    }

    /// Reports to the peer, in every frame from here on, how far this end has executed.
    ///
    /// # Panics
    ///
    /// When `executed` is less than in an earlier call.
    pub fn set_executed(&mut self, executed: u64) {
        assert!(
            executed >= self.executed,
            "executed went back from {} to {executed}",
            self.executed
        );
        self.executed = executed;
    }

    /// Lets a frame be sent soon, so that the peer learns of [`set_executed`](Self::set_executed).
    pub fn report_executed(&mut self) {
        if self.state == State::Open {
            self.pending_ack.set_due();
        }
    }

    /// Reports to the peer, in every frame from here on, what this host lacks to run the VM.
    pub fn set_unfit(&mut self, unfit: Unfit) {
        self.unfit = unfit;
    }

    /// Leaves in good order, so that the peer does not take the silence that follows for death. Bytes
    /// that were appended and not acknowledged are lost; to avoid that, wait for [`Event::Acked`] first.
    /// [`Event::Left`] reports the end. To a peer that waits for the acknowledgement of its own `Bye`,
    /// stay reachable for the silence timeout.
    pub fn bye(&mut self, now: Time) {
        self.advance(now);
        if self.state == State::Open {
            self.state = State::Leaving { first: self.next_number };
            if !self.planted(Mutant::LeaseAfterBye) {
                self.end_lease();
            }
            self.timers.stop_all();
            self.timers.set(Timer::Silence, self.liveness.silence_at());
            self.heartbeat_due = true;
        }
    }

    /// Returns the next event. Any input may raise events.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.take()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called at the latest. Any other
    /// method may change this.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Returns the bytes of `lane` that arrived in order and were not consumed, as one slice. Its first
    /// byte is number [`consumed`](Self::consumed) of the lane. The bytes stay readable when the channel
    /// has ended.
    pub fn received(&self, lane: Lane) -> &[u8] {
        self.recv[lane.index()].readable()
    }

    /// Discards the first `length` bytes of [`received`](Self::received). The peer may then send as many
    /// more.
    ///
    /// # Panics
    ///
    /// When fewer bytes were received.
    pub fn consume(&mut self, lane: Lane, length: usize) {
        let recv = &mut self.recv[lane.index()];
        recv.consume(length);
        if self.state == State::Open && recv.needs_window_update() {
            self.pending_ack.set_due();
        }
    }

    /// Returns the counters and resets them to zero.
    pub fn take_stats(&mut self) -> Stats {
        core::mem::take(&mut self.stats)
    }

    /// Longest payload of a frame in bytes.
    fn payload_max(&self) -> usize {
        self.config.frame_bytes_max - FRAME_HEADER_BYTES
    }

    fn advance(&mut self, now: Time) {
        assert!(now >= self.now, "the clock went back");
        self.now = now;
    }

    fn planted(&self, mutant: Mutant) -> bool {
        self.config.mutants.has(mutant)
    }

    fn end_lease(&mut self) {
        self.liveness.end_lease();
        self.timers.stop(Timer::Lease);
        self.report_lease(false);
    }

    fn report_lease(&mut self, held: bool) {
        if held != self.lease_reported {
            self.lease_reported = held;
            self.unleased_since = (!held).then_some(self.now);
            // An event that was not polled yet is cancelled: the owner's knowledge is correct again.
            let was_pending = self.events.lease.take().is_some();
            self.events.lease = (!was_pending).then_some(held);
        }
    }

    /// The lease, if there was one, has expired and was not given up.
    fn lose_lease(&mut self) {
        self.stats.leases_lost += u64::from(self.lease_reported);
        self.report_lease(false);
    }
}
