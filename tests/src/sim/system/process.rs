//! One process on a host: the engine, a machine, and the world as it sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use logchan::handshake::{PresharedKey, Security};
use logchan::ids::{Claimant, Lane, Term, VmId};
use logchan::time::{Duration, Time};
use netpath::hold::HoldLimits;
use vmm::replay::boundary::Position;
use vmm::replica::{Answer, Mutants, Replica, ReplicaConfig, Start};

use super::machine::Machine;
use super::machine::cpu::Exit;
use super::machine::devices::TO_SEND;
use super::machine::image::Captured;
use super::options::{Options, PairOptions};
use super::packet::VM_MAC;
use super::tap_world::TapWorld;
use crate::sim::rng::Rng;

/// The VM that all of this is about.
const VM: VmId = VmId(7);

/// Tells processes apart, also those of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub u32);

impl ProcessId {
    /// The name that it makes its claims under.
    pub(crate) fn claimant(&self) -> Claimant {
        Claimant(self.0.into())
    }
}

/// Where a machine is between two questions. It asks the same again until it is answered.
#[derive(Debug)]
pub(crate) enum Place {
    /// At a position, about to be entered.
    Entry,
    /// In a region.
    Running(Run),
    /// In a region, stopped at no position.
    Stopped {
        /// Interrupts are wanted.
        window: bool,
    },
    /// In a region or at a position, and a checkpoint of it is being taken.
    Capture(Captured),
    /// At the end of a region.
    Position {
        /// How it ended.
        position: Position,
        /// Of the processor.
        digest: u64,
        /// The exit that is to be handled.
        exit: Option<Exit>,
    },
    /// An exit is being handled.
    Exit {
        /// Which.
        exit: Exit,
        /// What of it is done.
        at: u64,
    },
    /// At a position, where inputs enter.
    Inputs {
        /// How many have.
        entered: usize,
    },
    /// Halted, and no interrupt is pending.
    Halted,
    /// At a position: this interrupt is to be injected.
    Inject(u8),
    /// The machine has stopped.
    Ended,
}

/// A region under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Until when, by true time.
    pub(crate) until: u64,
    /// Steps until then.
    pub(crate) steps: u64,
    /// How it ends then.
    pub(crate) ends: RunEnds,
    /// Interrupts are wanted.
    pub(crate) window: bool,
}

/// Why a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnds {
    /// The guest exits.
    Exit,
    /// Interrupts are wanted, and CPL3 was entered.
    Window,
    /// The vCPU was kicked.
    Kick,
    /// Interrupts are wanted, and a window opened at CPL0.
    KernelWindow,
}

/// A machine in a session, for comparison with the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    /// The session.
    pub(crate) session: u64,
    /// Positions since its closing checkpoint.
    pub(crate) positions: usize,
}

/// See the [module](self).
pub(crate) struct Process {
    /// Its number.
    pub(crate) id: ProcessId,
    /// What is under test.
    pub(crate) replica: Replica,
    /// What it runs.
    pub(crate) machine: Machine,
    /// Where that is.
    pub(crate) place: Place,
    /// Where inputs come from.
    pub(crate) world: TapWorld,
    /// Answers of the witness that the process has not looked at.
    pub(crate) answers: VecDeque<(Term, Answer)>,
    /// The claim that it waits for, and the number of that.
    pub(crate) claim: Option<(Term, u64)>,
    /// Where it is in the log.
    pub(crate) track: Option<Track>,
    /// The last thing in the log that does not follow from what is before it: session and position.
    pub(crate) nondeterministic: (u64, u64),
    /// How much of its log was sent: session and position.
    pub(crate) sent: (u64, u64),
    /// What the last nondeterministic thing was when outputs were made that were not released, by number.
    pub(crate) logged: BTreeMap<u64, (u64, u64)>,
    /// What its machine has learned of the world.
    pub(crate) learned: u64,
    /// It has gone live, and its machine must make all that was said before it learns anything.
    pub(crate) owes_said: bool,
    /// Outputs that it dropped, by number.
    pub(crate) dropped: BTreeSet<u64>,
    /// Its machine differs from the primary's, on purpose.
    pub(crate) flipped: bool,
    /// It went live with such a machine: what the primary said beyond its log cannot be compared.
    pub(crate) broken: bool,
    /// Differences that were made on purpose and not found.
    pub(crate) flips_due: u32,
    /// The run that ended at no position did so in a window at CPL0.
    pub(crate) kernel_window: bool,
    /// It pauses in copying memory until then.
    pub(crate) copies_at: u64,
}

/// What an engine is told.
pub(crate) fn config(id: ProcessId, options: &PairOptions, mutants: Mutants) -> ReplicaConfig {
    let hold = HoldLimits::new(options.hold_frames, options.hold_bytes);
    ReplicaConfig {
        frame_bytes_max: options.frame_bytes_max,
        window_bytes: options.window_bytes,
        lag_bytes_max: options.lag_bytes_max,
        timing: options.timing,
        hold: hold.expect("limits within their bounds"),
        early_release_window: Duration::from_nanos(options.early_release_ns),
        on_backup_loss: options.on_backup_loss,
        witness_retry: Duration::from_nanos(options.witness_retry_ns),
        mutants,
        delta_cache_pages_max: options.delta_cache_pages_max as usize,
        claimant: id.claimant(),
        ..ReplicaConfig::new(VM, VM_MAC, options.memory_pages)
    }
}

impl Process {
    /// A process that begins as `start`.
    pub(crate) fn new(
        id: ProcessId,
        options: &Options,
        host: usize,
        start: Start,
        mutants: Mutants,
        now: Time,
        rng: &mut Rng,
    ) -> Self {
        let security = if options.sealed {
            Security::Sealed(PresharedKey::from_bytes(&[0x5a; 32]).expect("a key"))
        } else {
            Security::Insecure
        };
        let mut entropy = rng.fork();
        let entropy = Box::new(move |bytes: &mut [u8]| entropy.fill(bytes));
        let replica =
            Replica::new(config(id, &options.pair, mutants), start, security, entropy, now);
        let (pages, pad_bytes) = (options.pair.memory_pages, options.pair.pad_bytes);
        let mut world = TapWorld::new(now, options.hosts[host].types, rng.fork());
        let machine = match start {
            Start::Standalone | Start::Primary => {
                world.boot();
                Machine::boot(pages, pad_bytes, &options.guest)
            }
            Start::Backup => Machine::empty(pages, pad_bytes),
        };
        Self {
            id,
            replica: replica.expect("values that go together"),
            machine,
            place: Place::Entry,
            world,
            answers: VecDeque::new(),
            claim: None,
            track: None,
            nondeterministic: (0, 0),
            sent: (0, 0),
            logged: BTreeMap::new(),
            learned: 0,
            owes_said: false,
            dropped: BTreeSet::new(),
            flipped: false,
            broken: false,
            flips_due: 0,
            kernel_window: false,
            copies_at: 0,
        }
    }

    /// Outputs that its machine has made since the VM was booted.
    pub(crate) fn outputs_made(&self) -> u64 {
        let handed = match self.place {
            Place::Exit { exit: Exit::Send, at } => at,
            Place::Entry
            | Place::Running(_)
            | Place::Stopped { .. }
            | Place::Capture(_)
            | Place::Position { .. }
            | Place::Exit { .. }
            | Place::Inputs { .. }
            | Place::Halted
            | Place::Inject(_)
            | Place::Ended => 0,
        };
        self.machine.sent() - self.machine.ram.word(TO_SEND) + handed
    }

    /// Its log so far: session and position.
    pub(crate) fn logged_up_to(&self) -> (u64, u64) {
        let channel = self.replica.channel();
        channel.map_or((0, 0), |c| (c.config().session.0, c.appended(Lane::Latency).0))
    }

    /// The session of its channel.
    pub(crate) fn session(&self) -> Option<u64> {
        self.replica.channel().map(|channel| channel.config().session.0)
    }
}
