//! The world: two hosts with a VM, the links between them, a LAN with clients, a witness; and what
//! happens next.

use std::collections::BTreeMap;
use std::rc::Rc;

use logchan::ids::{Claimant, Term};
use vmm::replica::{Answer, Mutants, Start};

use super::check::{Agreement, Bounds, Custody, OutputLedger, Phase};
use super::client::{self, Client};
use super::count::{Count, count_replica};
use super::faults::Fault;
use super::host::{Arrival, Host};
use super::lan::{self, Lan};
use super::options::Options;
use super::process::ProcessId;
use super::witness::Witness;
use crate::sim::counts::Counts;
use crate::sim::frames::FrameStore;
use crate::sim::link::{Delivery, Link};
use crate::sim::queue::EventQueue;
use crate::sim::rng::Rng;
use crate::sim::trace::Trace;
use crate::sim::{Checked, MS, Violation};

/// Events in a run, at most: more of them are a storm.
const EVENTS_MAX: u64 = 2_000_000;

/// The host at the other end.
pub(crate) const fn other(host: usize) -> usize {
    1 - host
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A frame of the log link reaches a host.
    Arrive { to: usize, arrival: Arrival },
    /// A frame leaves a host's port of the LAN.
    Leave { host: usize, given: lan::Given },
    /// A frame is at the switch.
    AtSwitch { port: usize, frame: Rc<[u8]> },
    /// A frame reaches a station of the LAN.
    AtPort { port: usize, frame: Rc<[u8]> },
    /// A host's thread is woken.
    Wake { host: usize, ticket: u64 },
    /// A client's timer.
    Client { client: usize, ticket: u64 },
    /// A claim reaches the witness.
    Claim { host: usize, claim: Claim },
    /// Its answer reaches the host.
    Answer { host: usize, claim: Claim, answer: Answer },
    /// A host waits no longer for it.
    ClaimOverdue { host: usize, claim: Claim },
    /// A fault begins.
    Fault(Fault),
    /// A fault ends.
    Mend(Fault),
    /// A host goes on.
    Thaw { host: usize, ticket: u64 },
    /// A host's process is started.
    Boot { host: usize },
    /// No more faults.
    Heal,
    /// Something should have happened by now.
    Look,
}

/// A claim on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Which process made it.
    pub(crate) process: ProcessId,
    pub(crate) term: Term,
    /// Who must own the term before.
    pub(crate) previous: Option<Claimant>,
    /// Which of all claims it is.
    pub(crate) number: u64,
}

/// Everything there is.
pub(crate) struct Pair<'a> {
    pub(crate) options: Options,
    pub(crate) bugs: Bugs,
    pub(crate) rng: Rng,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) hosts: [Host; 2],
    /// Of the log, by sender.
    pub(crate) links: [Link; 2],
    pub(crate) frames: FrameStore<()>,
    pub(crate) lan: Lan,
    pub(crate) clients: Vec<Client>,
    pub(crate) witness: Witness,
    pub(crate) processes: u32,
    pub(crate) claims: u64,
    /// Things that hosts did.
    pub(crate) done: u64,

    pub(crate) phase: Phase,
    /// How much of a dead primary's log was executed when that was looked at last.
    pub(crate) finished: u64,
    /// Clients ask for nothing new.
    pub(crate) quiet: bool,
    pub(crate) output: OutputLedger,
    /// By session: log up to where output has left.
    pub(crate) released: BTreeMap<u64, u64>,
    /// By session: outputs that the VM had made at its beginning.
    pub(crate) sync_outputs: BTreeMap<u64, u64>,
    /// By process: the same of the session that it followed last.
    pub(crate) bases: BTreeMap<ProcessId, u64>,
    pub(crate) agreement: Agreement,
    pub(crate) custody: Custody,
    pub(crate) bounds: [Bounds; 2],
    pub(crate) given: client::Given,

    pub(crate) counts: &'a mut Counts<Count>,
    pub(crate) trace: &'a mut Trace,
    /// Room to work in.
    pub(crate) buffer: Vec<u8>,
    pub(crate) deliveries: Vec<Delivery>,
}

/// Bugs planted on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bugs {
    /// In the engine, or in its channel.
    pub(crate) replica: Mutants,
    /// The machine takes an interrupted run for a natural exit.
    pub(crate) count_interrupted: bool,
}

impl<'a> Pair<'a> {
    /// The world of a seed.
    pub(crate) fn new(
        seed: u64,
        bugs: Bugs,
        counts: &'a mut Counts<Count>,
        trace: &'a mut Trace,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let options = Options::draw(&mut rng.fork());
        trace.text(format_args!("seed {seed}\n{options:#?}"));
        let hosts = [0, 1].map(|host| Host::new(&options.hosts[host], rng.fork()));
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
            clients,
            witness: Witness::default(),
            processes: 0,
            claims: 0,
            done: 0,
            phase: Phase::Faults,
            finished: 0,
            quiet: false,
            output: OutputLedger::default(),
            released: BTreeMap::new(),
            sync_outputs: BTreeMap::new(),
            bases: BTreeMap::new(),
            agreement: Agreement::default(),
            custody: Custody::default(),
            bounds: Default::default(),
            given: client::Given::default(),
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

    /// Runs it to its end.
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
            let event = event.ok_or_else(|| Violation("nothing happens any more".into()))?;
            self.counts.count(Count::Events);
            self.handle(event)?;
            self.check_custody()?;
            self.check_progress()?;
            if self.phase == Phase::Over {
                return self.check_given();
            }
            if self.custody.lost {
                return Ok(());
            }
        }
        let now = self.queue.now();
        Err(Violation(format!("a storm: {EVENTS_MAX} events in {now} ns")))
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
            Event::Leave { host, given } => self.leave_host(host, given),
            Event::AtSwitch { port, frame } => {
                self.forward(port, &frame);
                Ok(())
            }
            Event::AtPort { port, frame } => self.arrive(port, frame),
            Event::Wake { host, ticket } => {
                let own = &mut self.hosts[host];
                if own.wake_ticket == ticket {
                    own.wake_at = None;
                    self.turn(host)?;
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
            Event::Boot { host } => {
                // The first process is there from the beginning.
                let mistaken = self.rng.chance(self.options.faults.boots_again);
                let mistaken = mistaken && self.is_faulty() && self.hosts[host].process.is_none();
                self.counts.add(Count::BootedAgain, mistaken.into());
                self.boot(host, if mistaken { Start::Primary } else { Start::Backup });
                Ok(())
            }
            Event::Heal => self.heal(),
            Event::Look => Ok(()),
        }
    }
}
