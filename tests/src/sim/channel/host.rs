//! One host: a clock, a receive ring, and a process that may freeze or die.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use logchan::channel::Mutants;
use logchan::endpoint::{Endpoint, Settings};
use logchan::handshake::{PresharedKey, Security};
use logchan::ids::{Role, Term, VmId};
use logchan::seal::DeathNotice;
use logchan::time::Time;

use super::load::Load;
use super::options::Options;
use crate::sim::clock::DriftingClock;
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;

/// In place of an incarnation number that was not drawn yet.
const NOT_DRAWN: u64 = 0;

/// The VM of both hosts.
pub(super) const VM: VmId = VmId(7);

/// The state of a host's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// Runs when it is woken.
    Running,
    /// Does not run; arriving frames wait in the ring.
    Frozen,
    /// Does not exist; arriving frames are lost.
    Down,
}

/// A frame that arrived, and its damage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The frame.
    pub(super) frame: FrameId,
    /// Seed of its damage.
    pub(super) damage: Option<u64>,
    /// Seed of its padding.
    pub(super) pad: Option<u64>,
}

/// The identity of an endpoint from one start or renewal to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incarnation {
    /// The random number that identifies it.
    pub(super) id: u64,
    /// The role that it claims.
    pub(super) role: Role,
    /// The term that it claims.
    pub(super) term: u64,
    /// When it began.
    pub(super) since: u64,
    /// When it ended.
    pub(super) until: Option<u64>,
}

/// One host.
pub(super) struct Host {
    /// The clock, which survives restarts of the process.
    pub(super) clock: DriftingClock,
    /// The code under test. While the process is down, the endpoint of the dead process.
    pub(super) endpoint: Endpoint,
    /// The state of the process.
    pub(super) process: Process,
    /// Frames that arrived and were not received yet.
    pub(super) ring: VecDeque<Arrival>,
    /// Capacity of the ring.
    pub(super) ring_frames_max: usize,
    /// The session of the endpoint's channel.
    pub(super) session: Option<usize>,
    /// The program above the channel.
    pub(super) load: Load,
    /// Size of the refused append that waits for room, by lane.
    pub(super) refused: [Option<usize>; 2],
    /// The program reads nothing before this time.
    pub(super) reads_at: u64,
    /// Whether a lease is held, according to the events.
    pub(super) lease_reported: bool,
    /// Whether an event reported the peer of the current session.
    pub(super) met_reported: bool,
    /// When the thread is woken next.
    pub(super) wake_at: Option<u64>,
    /// Ticket of the valid wake-up; older ones are ignored.
    pub(super) wake_ticket: u64,
    /// Whether the owner will renew the endpoint.
    pub(super) renewal_scheduled: bool,
    /// Ticket of the valid renewal; older ones are ignored.
    pub(super) renew_ticket: u64,
    /// All incarnations so far.
    pub(super) incarnations: Vec<Incarnation>,
    /// The newest term that the host knows.
    pub(super) term: u64,
    /// The death notice that the supervisor of the process holds, and the session that it is of.
    pub(super) notice: Option<(DeathNotice, u64)>,
    /// The attempts that the responses of this process answer.
    pub(super) answers: Vec<u32>,
    /// The attempts of the initiations that this host sent, and when.
    pub(super) attempts: Vec<(u32, u64)>,
    /// The distinct requests of the current incarnation, and the number of its initiations.
    pub(super) requests: Vec<u64>,
    pub(super) initiations: usize,
    /// When the process started, by its own clock.
    pub(super) booted_at: Time,
    /// Idle wake-ups since `window_began`.
    pub(super) idle_wakes: u64,
    /// Frames sent and received since `window_began`.
    pub(super) frames: u64,
    /// Start of the time window in which idle wake-ups are counted.
    pub(super) window_began: u64,
    /// The incarnation number that the endpoint drew last.
    drawn_id: Arc<AtomicU64>,
    rng: Rng,
}

impl Host {
    /// Creates a host whose first process starts at time 0.
    pub(super) fn new(
        options: &Options,
        index: usize,
        role: Role,
        mutants: Mutants,
        rng: &mut Rng,
    ) -> Self {
        let own = &options.hosts[index];
        let term = if role == Role::Primary { 1 } else { 0 };
        let mut rng = rng.fork();
        let load = Load::new(own.load.clone(), rng.fork());
        let clock = DriftingClock::new(Time::from_nanos(own.clock_origin_ns), 0);
        let drawn_id = Arc::new(AtomicU64::new(0));
        let settings = settings(options, index, role, term, mutants);
        let now = clock.shows(0);
        let endpoint = start(options, settings, &drawn_id, &mut rng, now);
        let current =
            Incarnation { id: drawn_id.load(Ordering::Relaxed), role, term, since: 0, until: None };
        Self {
            clock,
            endpoint,
            process: Process::Running,
            ring: VecDeque::new(),
            ring_frames_max: own.ring_frames_max,
            session: None,
            load,
            refused: [None; 2],
            reads_at: 0,
            lease_reported: false,
            met_reported: false,
            wake_at: None,
            wake_ticket: 0,
            renewal_scheduled: false,
            renew_ticket: 0,
            incarnations: vec![current],
            term,
            notice: None,
            answers: Vec::new(),
            attempts: Vec::new(),
            requests: Vec::new(),
            initiations: 0,
            booted_at: now,
            idle_wakes: 0,
            frames: 0,
            window_began: 0,
            drawn_id,
            rng,
        }
    }

    /// The current incarnation, or the last one if the process is down.
    pub(super) fn incarnation(&self) -> &Incarnation {
        self.incarnations.last().expect("a host has an incarnation")
    }

    /// Gives up the channel and begins another handshake.
    pub(super) fn renew(
        &mut self,
        at: u64,
        options: &Options,
        index: usize,
        role: Role,
        term: u64,
    ) {
        let mutants = self.endpoint.settings().mutants;
        let settings = settings(options, index, role, term, mutants);
        let now = self.clock.shows(at);
        self.drawn_id.store(NOT_DRAWN, Ordering::Relaxed);
        self.endpoint.renew(now, settings).expect("valid settings");
        self.begin_incarnation(at, role, term);
    }

    /// Starts a new process.
    pub(super) fn boot(&mut self, at: u64, options: &Options, index: usize, role: Role, term: u64) {
        let mutants = self.endpoint.settings().mutants;
        let settings = settings(options, index, role, term, mutants);
        let now = self.clock.shows(at);
        self.endpoint = start(options, settings, &self.drawn_id, &mut self.rng, now);
        self.process = Process::Running;
        self.answers.clear();
        self.notice = None;
        self.booted_at = now;
        self.begin_incarnation(at, role, term);
    }

    fn begin_incarnation(&mut self, at: u64, role: Role, term: u64) {
        self.session = None;
        self.refused = [None; 2];
        self.requests.clear();
        self.initiations = 0;
        (self.lease_reported, self.met_reported, self.renewal_scheduled) = (false, false, false);
        self.renew_ticket += 1;
        self.incarnations.last_mut().expect("a host has an incarnation").until.get_or_insert(at);
        let id = self.drawn_id.load(Ordering::Relaxed);
        self.incarnations.push(Incarnation { id, role, term, since: at, until: None });
    }
}

/// The settings of a host's endpoint.
fn settings(options: &Options, index: usize, role: Role, term: u64, mutants: Mutants) -> Settings {
    let own = &options.hosts[index];
    Settings {
        frame_bytes_max: own.mtu,
        window_bytes: own.window_bytes,
        timing: options.timing,
        mutants,
        cpu_digest: 0xc0,
        guest_digest: 0x60,
        ..Settings::new(role, VM, Term(term))
    }
}

/// Creates the endpoint of a process that starts.
fn start(
    options: &Options,
    settings: Settings,
    drawn_id: &Arc<AtomicU64>,
    rng: &mut Rng,
    now: Time,
) -> Endpoint {
    let security = if options.sealed {
        Security::Sealed(PresharedKey::from_bytes(&[0x5a; 32]).expect("a key"))
    } else {
        Security::Insecure
    };
    let mut entropy = rng.fork();
    drawn_id.store(NOT_DRAWN, Ordering::Relaxed);
    let drawn_id = Arc::clone(drawn_id);
    let entropy = move |bytes: &mut [u8]| {
        entropy.fill(bytes);
        // The first 8 bytes that an endpoint draws for a new incarnation identify it. Recording them gives the
        // checkers its identity without asking the code under test.
        if let Ok(drawn) = <[u8; 8]>::try_from(&*bytes) {
            let id = u64::from_le_bytes(drawn);
            let _later =
                drawn_id.compare_exchange(NOT_DRAWN, id, Ordering::Relaxed, Ordering::Relaxed);
        }
    };
    let endpoint = Endpoint::new(settings, security, Box::new(entropy), now);
    let endpoint = endpoint.expect("valid settings");
    match options.rekey_after {
        Some(frames) => endpoint.with_rekey_after(frames),
        None => endpoint,
    }
}
