//! One process on a host: the engine, a machine, and the source of its live inputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use logchan::handshake::{PresharedKey, Security};
use logchan::ids::{Claimant, Lane, VmId};
use logchan::seal::DeathNotice;
use logchan::time::{Duration, Time};
use replication::Mutants;
use replication::boundary::{DiskSet, Position};
use replication::hold::HoldLimits;
use replication::replica::{Replica, ReplicaConfig, ResyncPace, Start};
use replication::witness::{Answer, NOBODY, Question};

use super::check::{SyncPace, Waiting};
use super::machine::Machine;
use super::machine::cpu::Exit;
use super::machine::devices::TO_SEND;
use super::machine::disk::BLOCKS;
use super::machine::image::Captured;
use super::options::{Options, PairOptions};
use super::packet::VM_MAC;
use super::sim_disk::{DiskOptions, SimDisk};
use super::tap_world::TapWorld;
use crate::sim::rng::Rng;

/// The VM of both hosts.
const VM: VmId = VmId(7);

/// Identifies a process. Successive processes of one host have different ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub u32);

impl ProcessId {
    /// The identity under which it claims terms: never [`NOBODY`].
    pub(crate) fn claimant(&self) -> Claimant {
        Claimant(u64::from(self.0) + 1)
    }

    /// The process with this identity; `None` for nobody.
    pub(crate) fn of(claimant: Claimant) -> Option<ProcessId> {
        (claimant != NOBODY).then(|| ProcessId((claimant.0 - 1) as u32))
    }
}

/// The state of the vCPU loop between two calls of the engine. A call is repeated until it is ready.
#[derive(Debug)]
pub(crate) enum VcpuState {
    /// At a position, before the guest is entered.
    Entry,
    /// In a region.
    Running(Run),
    /// Stopped in the middle of a region.
    Stopped {
        /// Whether an interrupt window is requested.
        window: bool,
    },
    /// A checkpoint was captured, in a region or at a position, and is to be sent.
    Capture(Captured),
    /// At the end of a region.
    Position {
        /// The kind of position.
        position: Position,
        /// The digest of the processor.
        digest: u64,
        /// The exit to be handled, if the region ended in one.
        exit: Option<Exit>,
    },
    /// An exit is being handled.
    Exit {
        /// The exit.
        exit: Exit,
        /// Number of its device operations that are complete.
        at: u64,
    },
    /// At a position where inputs may enter.
    Inputs {
        /// Number of inputs that have entered here.
        entered: usize,
    },
    /// Halted without a pending interrupt.
    Halted,
    /// At a position, with this interrupt to be injected.
    Inject(u8),
    /// The machine has stopped.
    Ended,
}

/// A region that the guest is executing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// The true time of its end.
    pub(crate) until: u64,
    /// Number of steps until then.
    pub(crate) steps: u64,
    /// Why it ends.
    pub(crate) ends: RunEnd,
    /// Whether an interrupt window is requested.
    pub(crate) window: bool,
}

/// Why a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// The guest exits.
    Exit,
    /// A requested interrupt window opened at CPL3.
    Window,
    /// The vCPU was kicked.
    Kick,
    /// A requested interrupt window opened at CPL0.
    KernelWindow,
}

/// The position of a machine in a session's log, for comparison with the other machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    /// The session.
    pub(crate) session: u64,
    /// Number of positions since the closing checkpoint of the sync.
    pub(crate) positions: usize,
}

/// See the [module](self).
pub(crate) struct Process {
    /// Its id.
    pub(crate) id: ProcessId,
    /// The engine, which is the code under test.
    pub(crate) replica: Replica,
    /// The machine.
    pub(crate) machine: Machine,
    /// The state of the machine's vCPU loop.
    pub(crate) vcpu_state: VcpuState,
    /// The source of live inputs.
    pub(crate) world: TapWorld,
    /// Answers of the witness that the engine has not received yet.
    pub(crate) answers: VecDeque<(Question, Answer)>,
    /// The question that it waits for, and its number.
    pub(crate) claim: Option<(Question, u64)>,
    /// The position of its machine in the log.
    pub(crate) track: Option<Track>,
    /// Session and log position after the last nondeterministic entry.
    pub(crate) nondeterministic: (u64, u64),
    /// Session and log position up to which its log was sent.
    pub(crate) sent_up_to: (u64, u64),
    /// For each output that is not released, by number: session and log position that it depends on, which is
    /// after the last nondeterministic entry before it.
    pub(crate) required_positions: BTreeMap<u64, (u64, u64)>,
    /// For each of these outputs: the writes that a flush before it covers, by block.
    pub(crate) required_writes: BTreeMap<u64, [u64; BLOCKS]>,
    /// For each change of a shared disk that was not begun, by number: session and log position that it depends on.
    pub(crate) required_changes: BTreeMap<u64, (u64, u64)>,
    /// Number of nondeterministic values and inputs that its machine has taken.
    pub(crate) inputs_taken: u64,
    /// Whether it has gone live, and its machine must reproduce all released output before its next input.
    pub(crate) must_reproduce: bool,
    /// How often it has gone live.
    pub(crate) takeovers: u64,
    /// What its engine knows of the LAN.
    pub(crate) lan_is_up: bool,
    /// Outputs that it dropped, by number.
    pub(crate) dropped: BTreeSet<u64>,
    /// Whether a flipped bit makes its machine differ from the primary's.
    pub(crate) flipped: bool,
    /// Whether it went live with a flipped bit: its output beyond the primary's log cannot be compared then.
    pub(crate) broken: bool,
    /// Number of flipped bits that were not detected as a divergence.
    pub(crate) undetected_flips: u32,
    /// Whether the last mid-region stop was an interrupt window at CPL0.
    pub(crate) kernel_window: bool,
    /// True time before which it copies no more memory.
    pub(crate) next_copy_at: u64,
    /// True time before which its guest does not run, if it is slowed.
    pub(crate) paused_until: u64,
    /// A death notice that its supervisor has not taken, and the one that the supervisor holds.
    pub(crate) new_notice: Option<DeathNotice>,
    pub(crate) held_notice: Option<DeathNotice>,
    /// The sessions that it was in.
    pub(crate) sessions: Vec<u64>,
    /// Its syncs.
    pub(crate) syncs: SyncPace,
    /// Frames that were passed on, by it or to it.
    pub(crate) passed: Waiting,
    /// The frame that its machine has taken in the last call.
    pub(crate) frame_taken: Option<Rc<[u8]>>,
}

/// How soon a backup is synced again: after few failures, because a run has few; and after a delay that is longer than
/// the silence timeout, because a loss takes that long.
pub(crate) const RESYNC: ResyncPace = ResyncPace {
    free: 1,
    delay_first: Duration::from_millis(150),
    delay_max: Duration::from_millis(300),
    stable: Duration::from_millis(2_000),
    sync_max: Duration::from_millis(600_000),
};

/// The configuration of an engine.
pub(crate) fn config(
    id: ProcessId,
    options: &PairOptions,
    disk: &DiskOptions,
    mutants: Mutants,
) -> ReplicaConfig {
    let hold = HoldLimits::new(options.hold_frames, options.hold_bytes);
    ReplicaConfig {
        frame_bytes_max: options.frame_bytes_max,
        window_bytes: options.window_bytes,
        lag_bytes_max: options.lag_bytes_max,
        timing: options.timing,
        hold: hold.expect("valid hold limits"),
        disks: disk.disks,
        shared_disks: if disk.is_shared { DiskSet::NONE.with(0) } else { DiskSet::NONE },
        disk_wait_max: Duration::from_nanos(disk.wait_ns_max),
        early_release_window: Duration::from_nanos(options.early_release_ns),
        on_backup_loss: options.on_backup_loss,
        witness_retry: Duration::from_nanos(options.witness_retry_ns),
        tap_delay: Duration::from_nanos(options.tap_delay_ns),
        resync: RESYNC,
        witness_check: Duration::from_nanos(options.witness_check_ns),
        mutants,
        delta_cache_pages_max: options.delta_cache_pages_max as usize,
        claimant: id.claimant(),
        ..ReplicaConfig::new(VM, VM_MAC, options.memory_pages)
    }
}

impl Process {
    /// Creates a process that begins as `start`.
    pub(crate) fn new(
        id: ProcessId,
        options: &Options,
        host: usize,
        start: Start,
        mutants: Mutants,
        now: Time,
        (mut disk, rng): (SimDisk, &mut Rng),
    ) -> Self {
        disk.owner = id;
        let security = if options.sealed {
            Security::Sealed(PresharedKey::from_bytes(&[0x5a; 32]).expect("a key"))
        } else {
            Security::Insecure
        };
        let mut entropy = rng.fork();
        let entropy = Box::new(move |bytes: &mut [u8]| entropy.fill(bytes));
        let replica = Replica::new(
            config(id, &options.pair, &options.disk, mutants),
            start,
            security,
            entropy,
            now,
        );
        let (pages, pad_bytes) = (options.pair.memory_pages, options.pair.pad_bytes);
        let mut world = TapWorld::new(now, options.hosts[host].console_input, (disk, rng.fork()));
        let machine = match start {
            Start::Standalone | Start::Primary | Start::BootAgain => {
                world.boot();
                Machine::boot(pages, pad_bytes, &options.guest)
            }
            Start::Backup => Machine::empty(pages, pad_bytes),
        };
        Self {
            id,
            replica: replica.expect("a valid configuration"),
            machine,
            vcpu_state: VcpuState::Entry,
            world,
            answers: VecDeque::new(),
            claim: None,
            track: None,
            nondeterministic: (0, 0),
            sent_up_to: (0, 0),
            required_positions: BTreeMap::new(),
            required_writes: BTreeMap::new(),
            required_changes: BTreeMap::new(),
            inputs_taken: 0,
            must_reproduce: false,
            takeovers: 0,
            lan_is_up: true,
            dropped: BTreeSet::new(),
            flipped: false,
            broken: false,
            undetected_flips: 0,
            kernel_window: false,
            next_copy_at: 0,
            paused_until: 0,
            new_notice: None,
            held_notice: None,
            sessions: Vec::new(),
            syncs: SyncPace::default(),
            passed: Waiting::default(),
            frame_taken: None,
        }
    }

    /// Number of outputs that its machine has given to the engine since the VM was booted.
    pub(crate) fn outputs_made(&self) -> u64 {
        let given = match self.vcpu_state {
            VcpuState::Exit { exit: Exit::Send, at } => at,
            VcpuState::Entry
            | VcpuState::Running(_)
            | VcpuState::Stopped { .. }
            | VcpuState::Capture(_)
            | VcpuState::Position { .. }
            | VcpuState::Exit { .. }
            | VcpuState::Inputs { .. }
            | VcpuState::Halted
            | VcpuState::Inject(_)
            | VcpuState::Ended => 0,
        };
        self.machine.sent() - self.machine.ram.word(TO_SEND) + given
    }

    /// Whether its guest is slowed, and pauses at `now`.
    pub(crate) fn is_paused(&self, now: u64) -> bool {
        self.paused_until > now && !self.replica.guest_share().is_whole()
    }

    /// Session and end position of its log.
    pub(crate) fn logged_up_to(&self) -> (u64, u64) {
        let channel = self.replica.channel();
        channel.map_or((0, 0), |c| (c.config().session.0, c.appended(Lane::Latency).0))
    }

    /// The session of its channel, if it has one.
    pub(crate) fn session(&self) -> Option<u64> {
        self.replica.channel().map(|channel| channel.config().session.0)
    }
}
