//! One host: a clock, a ring of frames that arrived, and a process that may stand still or die.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use logchan::channel::Mutants;
use logchan::endpoint::{Endpoint, Settings};
use logchan::handshake::{PresharedKey, Security};
use logchan::ids::{Role, Term, VmId};
use logchan::time::Time;

use super::load::Load;
use super::options::Options;
use crate::sim::clock::DriftingClock;
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;

/// The VM that all of this is about.
pub(super) const VM: VmId = VmId(7);

/// What a host's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// It runs when it is woken.
    Running,
    /// It stands still; what arrives waits in the ring.
    Frozen,
    /// There is none; what arrives is lost.
    Down,
}

/// A frame that arrived, and what had happened to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The frame.
    pub(super) frame: FrameId,
    /// Seed of its damage.
    pub(super) damage: Option<u64>,
    /// Seed of its padding.
    pub(super) pad: Option<u64>,
}

/// What an endpoint was from one beginning to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// What tells it apart from others.
    pub(super) incarnation: u64,
    /// What it says of itself.
    pub(super) role: Role,
    /// What it says of itself.
    pub(super) term: u64,
    /// From when on.
    pub(super) since: u64,
    /// Until when.
    pub(super) until: Option<u64>,
}

/// One host.
pub(super) struct Host {
    /// Its clock, which outlives every process.
    pub(super) clock: DriftingClock,
    /// What is under test. While the process is down, that of the one that died.
    pub(super) endpoint: Endpoint,
    /// What the process does.
    pub(super) process: Process,
    /// Frames that arrived and were not taken in.
    pub(super) ring: VecDeque<Arrival>,
    /// So many of them, at most.
    pub(super) ring_frames_max: usize,
    /// The session of the endpoint's channel.
    pub(super) session: Option<usize>,
    /// The program above the channel.
    pub(super) load: Load,
    /// Appends that were refused, by lane.
    pub(super) refused: [Option<usize>; 2],
    /// It reads nothing before.
    pub(super) reads_at: u64,
    /// The lease as it was told.
    pub(super) lease_told: bool,
    /// It was told whom it met.
    pub(super) met_told: bool,
    /// When the thread is woken, and the only wake-up that counts.
    pub(super) wake_at: Option<u64>,
    /// See `wake_at`.
    pub(super) wake_ticket: u64,
    /// A new channel is wanted, and the only wish that counts.
    pub(super) renew_wanted: bool,
    /// See `renew_wanted`.
    pub(super) renew_ticket: u64,
    /// All lives so far.
    pub(super) lives: Vec<Life>,
    /// The newest term that it knows of.
    pub(super) term: u64,
    /// Answers of this process to initiations, by their keys, and when it began by its own clock.
    pub(super) answers: Vec<[u8; 32]>,
    /// See `answers`.
    pub(super) booted_at: Time,
    /// Wake-ups for nothing, and frames that came or went, since a while began.
    pub(super) idle_wakes: u64,
    /// See `idle_wakes`.
    pub(super) frames: u64,
    /// See `idle_wakes`.
    pub(super) while_began: u64,
    incarnation: Arc<AtomicU64>,
    rng: Rng,
}

impl Host {
    /// A host whose first process starts now.
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
        let incarnation = Arc::new(AtomicU64::new(0));
        let settings = settings(options, index, role, term, mutants);
        let now = clock.shows(0);
        let endpoint = start(options, settings, &incarnation, &mut rng, now);
        let life = Life {
            incarnation: incarnation.load(Ordering::Relaxed),
            role,
            term,
            since: 0,
            until: None,
        };
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
            lease_told: false,
            met_told: false,
            wake_at: None,
            wake_ticket: 0,
            renew_wanted: false,
            renew_ticket: 0,
            lives: vec![life],
            term,
            answers: Vec::new(),
            booted_at: now,
            idle_wakes: 0,
            frames: 0,
            while_began: 0,
            incarnation,
            rng,
        }
    }

    /// What it is.
    pub(super) fn life(&self) -> &Life {
        self.lives.last().expect("a host has lived")
    }

    /// Gives up the channel and asks for another one.
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
        self.endpoint.renew(now, settings).expect("sound settings");
        self.begin_life(at, role, term);
    }

    /// Starts another process.
    pub(super) fn boot(&mut self, at: u64, options: &Options, index: usize, role: Role, term: u64) {
        let mutants = self.endpoint.settings().mutants;
        let settings = settings(options, index, role, term, mutants);
        let now = self.clock.shows(at);
        self.endpoint = start(options, settings, &self.incarnation, &mut self.rng, now);
        self.process = Process::Running;
        self.answers.clear();
        self.booted_at = now;
        self.begin_life(at, role, term);
    }

    fn begin_life(&mut self, at: u64, role: Role, term: u64) {
        self.session = None;
        self.refused = [None; 2];
        (self.lease_told, self.met_told, self.renew_wanted) = (false, false, false);
        self.renew_ticket += 1;
        self.lives.last_mut().expect("a host has lived").until.get_or_insert(at);
        let incarnation = self.incarnation.load(Ordering::Relaxed);
        self.lives.push(Life { incarnation, role, term, since: at, until: None });
    }
}

/// What a host tells its endpoint.
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

/// The endpoint of a process that starts.
fn start(
    options: &Options,
    settings: Settings,
    incarnation: &Arc<AtomicU64>,
    rng: &mut Rng,
    now: Time,
) -> Endpoint {
    let security = if options.sealed {
        Security::Sealed(PresharedKey::from_bytes(&[0x5a; 32]).expect("a key"))
    } else {
        Security::Insecure
    };
    let mut entropy = rng.fork();
    let incarnation = Arc::clone(incarnation);
    let entropy = move |bytes: &mut [u8]| {
        entropy.fill(bytes);
        // The only thing of this size that is drawn is a new incarnation: so the checkers know who
        // is who without asking.
        if let Ok(drawn) = <[u8; 8]>::try_from(&*bytes) {
            incarnation.store(u64::from_le_bytes(drawn), Ordering::Relaxed);
        }
    };
    let endpoint = Endpoint::new(settings, security, Box::new(entropy), now);
    let endpoint = endpoint.expect("sound settings");
    match options.rekey_after {
        Some(frames) => endpoint.with_rekey_after(frames),
        None => endpoint,
    }
}
