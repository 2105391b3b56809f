//! [`Pair`]: the state of a run (two hosts with a VM, the links between them, a LAN with clients, a witness) and
//! its events.

use std::collections::BTreeMap;
use std::rc::Rc;

use logchan::seal::DeathNotice;
use replication::Mutants;
use replication::replica::Start;
use replication::witness::{Answer, Question};

use super::check::{Agreement, Bounds, Copies, OutputLedger, PassedLedger, Phase};
use super::client::{Client, Clients};
use super::count::{Count, count_replica};
use super::faults::Fault;
use super::host::{Arrival, Host};
use super::lan::{self, Lan};
use super::notices::Notices;
use super::options::Options;
use super::process::ProcessId;
use super::shared_disk::SharedDisk;
use super::sim_disk::SimDisk;
use super::witness::Witness;
use crate::sim::counts::Counts;
use crate::sim::frames::FrameStore;
use crate::sim::link::{Delivery, Link};
use crate::sim::queue::EventQueue;
use crate::sim::rng::{Chance, Rng};
use crate::sim::supervisor::Supervisors;
use crate::sim::trace::Trace;
use crate::sim::{Checked, MS, Violation};

/// Maximum number of events in a run. More of them indicate an endless loop.
const EVENTS_MAX: u64 = 2_000_000;

/// The host at the other end.
pub(crate) const fn other(host: usize) -> usize {
    1 - host
}

/// An event of the simulation.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A frame of the log link reaches a host.
    Arrive { to: usize, arrival: Arrival },
    /// A frame leaves a host's tap for the LAN.
    Leave { host: usize, tap_frame: lan::TapFrame },
    /// A frame is at the switch.
    AtSwitch { port: usize, frame: Rc<[u8]> },
    /// A frame reaches a station of the LAN.
    AtPort { port: usize, frame: Rc<[u8]> },
    /// A host's thread is woken.
    Wake { host: usize, ticket: u64 },
    /// A client's timer expires.
    Client { client: usize, ticket: u64 },
    /// A claim reaches the witness.
    Claim { host: usize, claim: Claim },
    /// The witness's answer reaches the host.
    Answer { host: usize, claim: Claim, answer: Answer },
    /// A claim times out.
    ClaimOverdue { host: usize, claim: Claim },
    /// A fault begins.
    Fault(Fault),
    /// A fault ends.
    Mend(Fault),
    /// A frozen host resumes.
    Thaw { host: usize, ticket: u64 },
    /// The supervisor of a dead process sends a copy of its notice.
    SendNotice { host: usize, notice: DeathNotice },
    /// A host's process is started.
    Boot { host: usize },
    /// All faults end.
    Heal,
    /// A deadline of the liveness checker has passed.
    CheckProgress,
}

/// A question to the witness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The process that asks.
    pub(crate) process: ProcessId,
    pub(crate) question: Question,
    /// The number of the question in this run.
    pub(crate) number: u64,
}

/// The complete state of a run.
pub(crate) struct Pair<'a> {
    pub(crate) options: Options,
    pub(crate) bugs: Bugs,
    pub(crate) rng: Rng,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) hosts: [Host; 2],
    /// The two directions of the log link, by sender.
    pub(crate) links: [Link; 2],
    pub(crate) frames: FrameStore<()>,
    pub(crate) lan: Lan,
    pub(crate) clients: Clients,
    pub(crate) witness: Witness,
    pub(crate) processes: u32,
    pub(crate) claims: u64,
    /// When all faults ended.
    pub(crate) healed_at: u64,
    /// Counts the work of all hosts, to detect idle driver iterations.
    pub(crate) work: u64,

    pub(crate) phase: Phase,
    /// Bytes of a dead primary's log that were executed at the last deadline.
    pub(crate) executed_log: u64,
    /// Whether clients make no new requests.
    pub(crate) clients_paused: bool,
    pub(crate) output: OutputLedger,
    /// The log position that released output depends on, by session.
    pub(crate) released: BTreeMap<u64, u64>,
    /// Number of outputs that the VM had made at the beginning of a session, by session.
    pub(crate) sync_outputs: BTreeMap<u64, u64>,
    /// The same number for the session that a process followed last, by process.
    pub(crate) base_outputs: BTreeMap<ProcessId, u64>,
    pub(crate) agreement: Agreement,
    pub(crate) copies: Copies,
    pub(crate) notices: Notices,
    pub(crate) bounds: [Bounds; 2],
    pub(crate) passed: PassedLedger,

    pub(crate) counts: &'a mut Counts<Count>,
    pub(crate) trace: &'a mut Trace,
    /// Buffers, reused to avoid allocations.
    pub(crate) buffer: Vec<u8>,
    pub(crate) deliveries: Vec<Delivery>,
}

/// Planted bugs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bugs {
    /// In the engine, in its channel, or in the rules of the witness.
    pub(crate) replica: Mutants,
    /// The machine takes an interrupted run for a natural exit.
    pub(crate) count_interrupted: bool,
    /// The supervisor takes a frozen process for a dead one.
    pub(crate) notice_while_alive: bool,
    /// A host does not notice that another storage is in the place of the witness.
    pub(crate) ignores_identity: bool,
    /// Requests to a disk that overlap take effect in any order.
    pub(crate) ignores_order: bool,
    /// A lost primary is not fenced.
    pub(crate) skips_fence: bool,
}

impl<'a> Pair<'a> {
    /// Creates the pair of a seed.
    pub(crate) fn new(
        seed: u64,
        bugs: Bugs,
        counts: &'a mut Counts<Count>,
        trace: &'a mut Trace,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let mut options = Options::draw(&mut rng.fork());
        let mut shared_rng = Rng::new(seed ^ 0x0054_a4ed);
        options.disk.is_shared = options.disk.disks > 0 && shared_rng.chance(Chance::percent(40));
        trace.text(format_args!("seed {seed}\n{options:#?}"));
        let supervisors = Supervisors::new(seed, options.pair.timing.silence.as_nanos());
        trace.text(format_args!("{:#?}", supervisors.options()));
        let notices = Notices::new(supervisors);
        let mut disk_rng = Rng::new(seed ^ 0xd15c);
        let shared = SharedDisk::new(options.disk.clone(), shared_rng);
        let hosts = [0, 1].map(|host| {
            let mut disk = SimDisk::new(options.disk.clone(), bugs.ignores_order, disk_rng.fork());
            disk.shared = options.disk.is_shared.then(|| shared.clone());
            Host::new(&options.hosts[host], disk, rng.fork())
        });
        let links = [0, 1].map(|host| Link::new(options.links[host].clone(), rng.fork()));
        let ports = options.lan.iter();
        let ports =
            ports.map(|port| port.clone().map(|link| Link::new(link, rng.fork()))).collect();
        let clients = options.clients.iter();
        let clients = clients.map(|client| Client::new(client.clone(), rng.fork())).collect();
        let mut pair = Self {
            options,
            bugs,
            rng,
            queue: EventQueue::default(),
            hosts,
            links,
            frames: FrameStore::default(),
            lan: Lan::new(ports),
            clients: Clients::new(clients),
            witness: Witness::new(bugs),
            processes: 0,
            claims: 0,
            healed_at: 0,
            work: 0,
            phase: Phase::Faults,
            executed_log: 0,
            clients_paused: false,
            output: OutputLedger::default(),
            released: BTreeMap::new(),
            sync_outputs: BTreeMap::new(),
            base_outputs: BTreeMap::new(),
            agreement: Agreement::default(),
            copies: Copies::default(),
            notices,
            bounds: Default::default(),
            passed: PassedLedger::default(),
            counts,
            trace,
            buffer: vec![0; 1 << 14],
            deliveries: Vec::new(),
        };
        pair.begin();
        pair
    }

    fn begin(&mut self) {
        self.boot(0, Start::Primary);
        let faults_ns = self.options.faults_ns;
        let later_ns = self.rng.pick(&[1, faults_ns / 4]);
        let backup_at = self.rng.below(later_ns);
        self.queue.push(backup_at, Event::Boot { host: 1 });
        for client in 0..self.clients.len() {
            let at = self.rng.below(10 * MS);
            self.set_client_timer(client, at);
        }
        self.plan_faults();
        self.queue.push(faults_ns, Event::Heal);
    }

    /// Runs the simulation to its end.
    pub(crate) fn run(&mut self) -> Checked {
        let result = self.run_events();
        if let Err(Violation(what)) = &result {
            self.trace.line(self.queue.now(), None, "VIOLATION", format_args!("{what}"));
        }
        for host in [0, 1] {
            if let Some(process) = self.hosts[host].process.take() {
                count_replica(self.counts, &process.replica);
            }
            let lost = self.links[host].counts();
            let damaged = lost.damaged;
            let lost = lost.lost + lost.lost_in_bursts + lost.cut + lost.overflowed;
            self.counts.add(Count::LogFramesLost, lost);
            self.counts.add(Count::LogFramesDamaged, damaged);
        }
        self.counts.add(Count::VirtualMs, self.queue.now() / MS);
        result
    }

    fn run_events(&mut self) -> Checked {
        for _ in 0..EVENTS_MAX {
            let event = self.queue.pop();
            let event = event.ok_or_else(|| Violation("no event is left".into()))?;
            self.counts.count(Count::Events);
            self.handle(event)?;
            self.check_copies()?;
            self.check_progress()?;
            if self.phase == Phase::Over {
                return self.clients.check_counter_values();
            }
            if self.copies.lost || self.is_disk_broken() {
                return Ok(());
            }
        }
        let now = self.queue.now();
        Err(Violation(format!("too many events: {EVENTS_MAX} in {now} ns")))
    }

    /// Whether a host that has the VM alone has lost data of its disk. It can't be protected then.
    fn is_disk_broken(&mut self) -> bool {
        let mut processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let is_broken = processes.any(|process| process.world.disk.is_broken);
        self.counts.add(Count::DisksBroken, is_broken.into());
        is_broken
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Arrive { to, arrival } => {
                let own = &mut self.hosts[to];
                if own.process.is_some() && own.ring.len() < self.options.hosts[to].ring_frames_max
                {
                    own.ring.push_back(arrival);
                    self.wake_soon(to);
                }
                Ok(())
            }
            Event::Leave { host, tap_frame } => self.leave_host(host, tap_frame),
            Event::AtSwitch { port, frame } => {
                self.forward(port, &frame);
                Ok(())
            }
            Event::AtPort { port, frame } => self.arrive(port, frame),
            Event::Wake { host, ticket } => {
                let own = &mut self.hosts[host];
                if own.wake_ticket == ticket {
                    own.wake_at = None;
                    self.drive(host)?;
                }
                Ok(())
            }
            Event::Client { client, ticket } => {
                self.client_acts(client, ticket);
                Ok(())
            }
            Event::Claim { host, claim } => {
                self.claim_arrives(host, claim);
                Ok(())
            }
            Event::Answer { host, claim, answer } => {
                self.answer_arrives(host, claim, answer);
                Ok(())
            }
            Event::ClaimOverdue { host, claim } => {
                self.claim_overdue(host, claim);
                Ok(())
            }
            Event::Fault(fault) => self.begin_fault(fault),
            Event::Mend(fault) => {
                self.mend(fault);
                Ok(())
            }
            Event::Thaw { host, ticket } => {
                if self.hosts[host].thaw_ticket == ticket {
                    self.thaw(host);
                }
                Ok(())
            }
            Event::SendNotice { host, notice } => {
                self.send_notice(host, notice);
                Ok(())
            }
            Event::Boot { host } => {
                // The first primary does not start by this event, so a start as primary is a mistake.
                let mistaken = self.rng.chance(self.options.faults.boots_wrongly);
                // Without its claims the witness cannot know that it is one, and a forgotten VM may be booted.
                let mistaken = mistaken
                    && self.is_faulty()
                    && self.hosts[host].process.is_none()
                    && self.witness.is_whole()
                    && !self.witness.is_released();
                self.counts.add(Count::BootedWrongly, mistaken.into());
                // The first primary may have died before it booted the VM.
                let is_first = !self.witness.has_granted() && !self.is_starting();
                let start = if mistaken || is_first { Start::Primary } else { Start::Backup };
                self.boot(host, start);
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::CheckProgress => Ok(()),
        }
    }
}
