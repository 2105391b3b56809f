//! The logging channel: the log, whole and in order, over a link that loses frames; and whether the
//! other end lives.
//!
//! Two [`Channel`]s, a primary's and a backup's, exchange [frames](crate::frame). Each carries two
//! [lanes](crate::ids::Lane) of bytes in each direction. What one end appends to a lane, the other
//! reads from it, from the first byte on; there is no other start, so both ends begin together, in
//! a session of their own.
//!
//! ```text
//!          bye()                 acknowledged, or silence
//!   Open ---------> Leaving -------------------------------> Left
//!    |  \               |
//!    |   \ Bye          | Bye
//!    |    v             v
//!    |    PeerLeft <----+          answers what the peer says goodbye with
//!    |
//!    +------------> Silent         hears and says nothing more
//!      silence
//! ```
//!
//! Only `Open` takes and gives bytes of log. No state leads back: to go on after `Silent`, open a
//! new session.
//!
//! | file | holds |
//! |---|---|
//! | `config` | what a channel is told, and which values go together |
//! | `input` | frames and timeouts |
//! | `output` | which frame to send next |
//! | `query` | what can be asked without changing anything |
//! | `send_window`, `recv_window` | one lane's bytes, outgoing and incoming |
//! | `ack` | which frames arrived, and when to say so |
//! | `commit` | up to where both lanes are safe at the backup |
//! | `rtt`, `timer` | how long to wait, and for what |
//! | `sent_times` | when each frame was sent |
//! | `verdict`, `event` | what became of a frame; what there is to tell |
//! | `mutant` | bugs to test the simulator with |

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

use self::ack::{AckDebt, Arrivals};
use self::commit::Commit;
use self::event::PendingEvents;
use self::recv_window::RecvWindow;
use self::rtt::RttEstimator;
use self::send_window::SendWindow;
use self::sent_times::SentTimes;
use self::timer::{Timer, TimerTable};
use crate::ids::{FrameNumber, Lane, LogSeq, Role, Term};
use crate::limits::{FRAME_HEADER_BYTES, IN_FLIGHT_FRAMES_MAX};
use crate::liveness::Liveness;
use crate::stats::Stats;
use crate::time::Time;

/// See the state diagram at the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// `first`: the number of the first `Bye` frame. Only such are sent from then on.
    Leaving {
        first: FrameNumber,
    },
    Left,
    PeerLeft,
    Silent,
}

/// One end of a logging channel. Pure: whoever drives it brings frames and the time, and takes
/// frames away. One thread owns it. Nothing is allocated after [`new`](Self::new).
///
/// Methods are of four kinds, and a driver calls them in this order, again and again:
///
/// 1. inputs: [`handle_frame`](Self::handle_frame) for every frame that there is, and only then
///    [`handle_timeout`](Self::handle_timeout): a host that slept finds the frames of a living peer
///    before it finds that time has passed;
/// 2. what came of it: [`poll_event`](Self::poll_event) until `None`, and
///    [`received`](Self::received) with [`consume`](Self::consume) for each lane;
/// 3. commands: [`append`](Self::append), [`set_executed`](Self::set_executed),
///    [`require_bulk`](Self::require_bulk), [`bye`](Self::bye);
/// 4. outputs: [`poll_transmit`](Self::poll_transmit) until `None` or until the link takes no more,
///    then [`poll_timeout`](Self::poll_timeout): sleep until then, or until a frame arrives.
///
/// A link that queues frames should be given the next one only when it is about to send: the choice
/// between latency and bulk is made by `poll_transmit`, and a frame once given away stays in its
/// place. The rest are queries, which change nothing.
///
/// `now` must not go back from call to call, and is read from one clock (see [`crate::time`]).
///
/// # Panics
///
/// Every method that takes `now`, when it is before that of an earlier call.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    config: Config,
    role: Role,
    state: State,
    now: Time,
    send: [SendWindow; Lane::ALL.len()],
    recv: [RecvWindow; Lane::ALL.len()],
    commit: Commit,
    /// Our frames: the next one's number, when each was sent, the newest that the peer heard.
    next_number: FrameNumber,
    sent_times: SentTimes,
    newest_acked: FrameNumber,
    /// The peer's frames, and whether it waits to hear of them.
    arrivals: Arrivals,
    debt: AckDebt,
    rtt: RttEstimator,
    liveness: Liveness,
    timers: TimerTable,
    /// A heartbeat is to be sent, or a `Bye` again.
    beat_due: bool,
    executed: u64,
    peer_executed: u64,
    newest_term: Term,
    same_role_told: bool,
    lease_told: bool,
    /// An append was refused; its caller waits for as many bytes of room.
    wants_room: [Option<usize>; Lane::ALL.len()],
    events: PendingEvents,
    stats: Stats,
}

/// Why [`Channel::append`] took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The window is full. [`Event::Room`] comes when the peer has acknowledged more.
    #[error("no room in the window: {room} bytes are free")]
    Full {
        /// Bytes that are free.
        room: usize,
    },
    /// One of the ends left, or the peer is silent.
    #[error("the channel is over")]
    Over,
}

impl Channel {
    /// One end of a session that begins at `now`: the peer was there just then.
    ///
    /// # Errors
    ///
    /// Values of `config` that do not go together.
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
            debt: AckDebt::default(),
            rtt: RttEstimator::new(
                timing.heartbeat.min(timing.retransmit_max),
                timing.retransmit_min,
                timing.retransmit_max,
            ),
            liveness: Liveness::new(now, timing.silence, lease),
            timers: TimerTable::default(),
            // The first frame tells the peer how much it may send.
            beat_due: true,
            executed: 0,
            peer_executed: 0,
            newest_term: config.term,
            same_role_told: false,
            lease_told: false,
            wants_room: [None; Lane::ALL.len()],
            events: PendingEvents::default(),
            stats: Stats::default(),
            config,
        };
        channel.timers.set(Timer::Silence, channel.liveness.silence_at());
        Ok(channel)
    }

    /// Takes all of `bytes` into `lane`, or nothing. Returns where they are in it.
    ///
    /// # Errors
    ///
    /// The window is full, or the channel is over.
    ///
    /// # Panics
    ///
    /// When `bytes` are more than the window would hold empty.
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
        assert!(bytes.len() <= capacity, "{} bytes for a window of {capacity}", bytes.len());
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

    /// What is appended to the latency lane from here on means something only together with all
    /// that was appended to the bulk lane so far: [`acked`](Self::acked) does not pass this point
    /// before the peer holds both. It delays nothing but that.
    pub fn require_bulk(&mut self) {
        let [latency, bulk] = &self.send;
        self.commit.require(latency.end(), bulk.end());
    }

    /// Tells the peer, in every frame from here on, how far this end has executed.
    ///
    /// # Panics
    ///
    /// When `executed` is less than before.
    pub fn set_executed(&mut self, executed: u64) {
        assert!(executed >= self.executed, "executed back from {} to {executed}", self.executed);
        self.executed = executed;
    }

    /// Leaves in good order: the peer must not take the silence that follows for death. What was
    /// appended and not acknowledged is lost; whoever minds waits for [`Event::Acked`] first.
    /// [`Event::Left`] says when it is done. To a peer that waits to hear of a `Bye` of its own,
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
            self.beat_due = true;
        }
    }

    /// The next event. Any input may raise some.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called, if nothing else is called
    /// before. Any other method may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The bytes of `lane` that arrived in order and were not consumed, as one slice. The first
    /// byte is number [`consumed`](Self::consumed) of the lane. They stay readable when the channel
    /// is over.
    pub fn received(&self, lane: Lane) -> &[u8] {
        self.recv[lane.index()].readable()
    }

    /// The first `length` bytes of [`received`](Self::received) are done with; the peer may send as
    /// many more.
    ///
    /// # Panics
    ///
    /// When there are not as many.
    pub fn consume(&mut self, lane: Lane, length: usize) {
        let recv = &mut self.recv[lane.index()];
        recv.consume(length);
        if self.state == State::Open && recv.owes_window() {
            self.debt.fall_due();
        }
    }

    /// The counters, which begin at zero again.
    pub fn take_stats(&mut self) -> Stats {
        core::mem::take(&mut self.stats)
    }

    /// Bytes of a lane that a frame takes.
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
        self.tell_lease(false);
    }

    fn tell_lease(&mut self, held: bool) {
        if held != self.lease_told {
            self.lease_told = held;
            // What was not polled yet is undone: the owner knows it as it is now again.
            let is_untold = self.events.lease.take().is_some();
            self.events.lease = (!is_untold).then_some(held);
        }
    }

    /// The lease, if there is one, is over and nobody gave it up.
    fn lose_lease(&mut self) {
        self.stats.leases_lost += u64::from(self.lease_told);
        self.tell_lease(false);
    }
}
