//! The state of one host: its clock, its interfaces, its terminal, and the process that runs on it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use logchan::ids::{Lane, Term};
use logchan::time::Time;
use replication::driver::Order;
use replication::replica::{Replica, RoleName};
use replication::witness::{Answer, Question};

use super::faults::CrashPoint;
use super::options::HostOptions;
use super::supervisor::Held;
use super::terminal::Terminal;
use super::thread::WakeBy;
use crate::sim::clock::DriftingClock;
use crate::sim::rng::Rng;
use crate::sim::system::process::ProcessId;

/// How a tap fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TapFault {
    /// It was deleted: nothing works any more.
    Deleted,
    /// It is down: frames cannot be sent, and none arrive.
    Down,
}

/// A frame of the log link that arrived, and the seed of its damage.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) frame: Rc<[u8]>,
    pub(super) damage: Option<u64>,
    pub(super) pad: Option<u64>,
    /// The session that a death notice must end.
    pub(super) ends: Option<u64>,
}

/// An answer of the witness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) question: Question,
    pub(super) answer: Answer,
    /// When it was there, if the driver was waiting for it.
    pub(super) awaited_at: Option<u64>,
}

/// A process, as far as the simulator knows it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: ProcessId,
    /// The role, the term and the session of its engine when it was last seen.
    pub(super) role: RoleName,
    pub(super) term: Term,
    pub(super) session: u64,
    /// Bytes of the session's log that it has executed.
    pub(super) executed: u64,
    /// The end of its lease, by its clock.
    pub(super) lease_until: Option<Time>,
    /// It passes the frames of its tap on to a new primary.
    pub(super) passes_frames: bool,
    /// The order that it has not taken.
    pub(super) order: Option<Order>,
    /// When it first saw that its tap has failed.
    pub(super) tap_failed_at: Option<u64>,
    /// Session and log position after the last nondeterministic entry.
    pub(super) nondeterministic: (u64, u64),
    /// For each output that is not released, by number: session and log position that it depends on.
    pub(super) required: BTreeMap<u64, (u64, u64)>,
    /// Number of outputs that the VM had made when this process received it.
    pub(super) base_outputs: u64,
    /// It has gone live, and must reproduce all released output before its next input.
    pub(super) must_reproduce: bool,
    /// Session and end of the log that it has given to the link, and the number of such frames.
    pub(super) log_sent: (u64, u64),
    pub(super) log_frames: u64,
    /// What its supervisor holds.
    pub(super) held: Held,
    /// The sessions that it was in, the last one last.
    pub(super) sessions: Vec<u64>,
}

/// See the [module](self).
pub(super) struct Host {
    pub(super) options: HostOptions,
    /// The clock, which survives restarts of the process.
    pub(super) clock: DriftingClock,
    pub(super) rng: Rng,
    /// The process, if one runs.
    pub(super) process: Option<Process>,
    /// The process crashes as soon as its thread sleeps.
    pub(super) is_doomed: bool,
    /// A checkpoint could not be applied, and the driver has not reported it yet.
    pub(super) is_apply_failed: bool,
    /// The point at which the process crashes.
    pub(super) crash_at: Option<CrashPoint>,
    /// For how long the host freezes when it sends next.
    pub(super) freeze_in_flush: Option<u64>,

    /// Time that the thread has worked and not slept for.
    pub(super) debt_ns: u64,
    /// Ticket of the thread's sleep; those of earlier sleeps are ignored.
    pub(super) ticket: u64,
    pub(super) wake_by: WakeBy,
    /// The host is frozen until the thaw with this ticket.
    pub(super) frozen: Option<u64>,
    pub(super) thaws: u64,
    /// When it last resumed.
    pub(super) thawed_at: u64,
    /// Its thread is due, but frozen.
    pub(super) is_due: bool,
    /// The thread cannot freeze now.
    pub(super) is_undisturbed: bool,
    /// When the deadline timer kicks the vCPU, in true time.
    pub(super) kick_at: Option<u64>,

    /// Frames of the log link that arrived.
    pub(super) ring: VecDeque<Arrival>,
    /// Number of frames taken out of the ring.
    pub(super) taken: u64,
    /// Bulk frames in the transmit queue: when each has left, and its bytes.
    pub(super) bulk_queue: VecDeque<(u64, u64)>,

    /// Frames that arrived from the LAN.
    pub(super) tap_queue: VecDeque<Rc<[u8]>>,
    pub(super) tap_fault: Option<TapFault>,
    pub(super) terminal: Terminal,

    /// The witness's thread works on a claim.
    pub(super) is_claiming: [bool; 2],
    /// The claim that the witness's thread was too busy to take, and when the driver made it.
    pub(super) refused_claim: Option<(Question, u64)>,
    /// The witness cannot be reached from here.
    pub(super) is_witness_cut: bool,
    /// The driver waits for the answer to the newest claim, unless that takes too long.
    pub(super) is_answer_awaited: bool,
    /// Answers of the witness that the driver has not taken.
    pub(super) answers: VecDeque<Answered>,
}

impl Host {
    /// Creates a host without a process.
    pub(super) fn new(options: &HostOptions, rng: Rng) -> Self {
        let origin = Time::from_nanos(options.clock_origin_ns);
        Self {
            options: options.clone(),
            clock: DriftingClock::new(origin, options.drift_ppb),
            rng,
            process: None,
            is_doomed: false,
            is_apply_failed: false,
            crash_at: None,
            freeze_in_flush: None,
            debt_ns: 0,
            ticket: 0,
            wake_by: WakeBy::TIME,
            frozen: None,
            thaws: 0,
            thawed_at: 0,
            is_due: false,
            is_undisturbed: false,
            kick_at: None,
            ring: VecDeque::new(),
            taken: 0,
            bulk_queue: VecDeque::new(),
            tap_queue: VecDeque::new(),
            tap_fault: None,
            terminal: Terminal::default(),
            is_claiming: [false; 2],
            refused_claim: None,
            is_answer_awaited: false,
            is_witness_cut: false,
            answers: VecDeque::new(),
        }
    }

    /// Resets what does not survive the end of a process.
    pub(super) fn clear(&mut self) {
        (self.is_doomed, self.crash_at, self.freeze_in_flush) = (false, None, None);
        self.is_apply_failed = false;
        (self.debt_ns, self.wake_by, self.kick_at) = (0, WakeBy::TIME, None);
        (self.is_due, self.is_undisturbed) = (false, false);
        self.ticket += 1;
        self.ring.clear();
        self.tap_queue.clear();
        self.tap_fault = None;
        self.answers.clear();
        (self.is_claiming, self.is_answer_awaited) = ([false; 2], false);
        self.refused_claim = None;
    }

    /// The role of its process, if it has one.
    pub(super) fn role(&self) -> Option<RoleName> {
        self.process.as_ref().map(|process| process.role)
    }
}

impl Process {
    /// Creates the record of a process that starts in `role`.
    pub(super) fn new(id: ProcessId, role: RoleName) -> Self {
        Self {
            id,
            role,
            term: Term(0),
            session: 0,
            executed: 0,
            lease_until: None,
            passes_frames: false,
            order: None,
            tap_failed_at: None,
            nondeterministic: (0, 0),
            required: BTreeMap::new(),
            base_outputs: 0,
            must_reproduce: false,
            log_sent: (0, 0),
            log_frames: 0,
            held: Held::default(),
            sessions: Vec::new(),
        }
    }

    /// Takes over what the engine says. Returns whether the role has changed.
    pub(super) fn look(&mut self, replica: &Replica) -> bool {
        let before = std::mem::replace(&mut self.role, replica.role());
        self.term = replica.term();
        self.passes_frames = replica.passes_frames();
        self.session = replica.channel().map_or(0, |channel| channel.config().session.0);
        let channel = replica.channel();
        self.lease_until = channel.and_then(|channel| channel.lease_until());
        self.executed = channel.map_or(0, |channel| channel.consumed(Lane::Latency).0);
        before != self.role
    }
}
