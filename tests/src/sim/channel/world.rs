//! The world: two hosts, the link between them, and what happens next.

use logchan::channel::Mutants;
use logchan::ids::Role;
use logchan::time::Time;

use super::count::{Count, count_channel, count_endpoint, count_link};
use super::forge::Forger;
use super::host::{Arrival, Host, Process};
use super::model::Session;
use super::options::Options;
use super::owner::Witness;
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
pub(super) const fn other(host: usize) -> usize {
    1 - host
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A frame arrives.
    Arrive { to: usize, arrival: Arrival },
    /// A host's thread is woken.
    Wake { host: usize, ticket: u64 },
    /// A host's program does something.
    Work { host: usize },
    /// A host's owner wants a new channel.
    Renew { host: usize, ticket: u64 },
    /// A fault begins.
    Fault(Fault),
    /// What was cut is whole.
    Mend,
    /// What was held back arrives.
    Release { from: usize },
    /// A host goes on.
    Thaw { host: usize },
    /// A host's process is started.
    Boot { host: usize },
    /// No more faults.
    Heal,
    /// Something should have happened by now.
    Look,
}

/// What goes wrong, from time to time: see `faults` and `forge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Partition,
    Freeze,
    Restart,
    Forge,
    Hold,
    Drift,
}

impl Fault {
    pub(super) const ALL: [Self; 6] =
        [Self::Partition, Self::Freeze, Self::Restart, Self::Forge, Self::Hold, Self::Drift];
}

/// What is demanded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// That nothing happens that must not.
    Faults,
    /// That the two meet. They may look as if they had before this time, and have not.
    Meet { not_before: u64, by: u64 },
    /// That everything arrives and is known to have arrived.
    Finish { by: u64 },
    /// That nothing happens.
    Calm { until: u64 },
    /// Nothing more.
    Over,
}

/// What is known of a frame that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Who sent it; nobody, if it was made up.
    pub(super) from: Option<usize>,
    /// Of a channel's frame: its session.
    pub(super) session: Option<u64>,
    /// Its number there.
    pub(super) number: u64,
    /// What the sender's clock showed.
    pub(super) at: Time,
    /// It says goodbye.
    pub(super) is_bye: bool,
    /// Handshakes that its receiver had done when it was sent.
    pub(super) handshakes: u64,
    /// One of the two heard only handshakes of the other: [`World::is_muted`].
    pub(super) is_muted: bool,
    /// A channel has taken it in.
    pub(super) taken: bool,
}

impl Sent {
    /// A frame that was made up.
    pub(super) fn by_nobody() -> Self {
        Self {
            from: None,
            session: None,
            number: 0,
            at: Time::default(),
            is_bye: false,
            handshakes: 0,
            is_muted: false,
            taken: false,
        }
    }
}

/// Everything there is.
pub(super) struct World<'a> {
    pub(super) options: Options,
    pub(super) rng: Rng,
    pub(super) queue: EventQueue<Event>,
    pub(super) hosts: [Host; 2],
    /// By sender.
    pub(super) links: [Link; 2],
    pub(super) frames: FrameStore<Sent>,
    pub(super) forger: Forger,
    /// Handshakes that came to their end, counted at each end.
    pub(super) handshakes_done: u64,
    pub(super) sessions: Vec<Session>,
    pub(super) witness: Witness,
    pub(super) phase: Phase,
    pub(super) counts: &'a mut Counts<Count>,
    pub(super) trace: &'a mut Trace,
    /// Room to work in.
    pub(super) scratch: Vec<u8>,
    pub(super) buffer: Vec<u8>,
    pub(super) deliveries: Vec<Delivery>,
}

impl<'a> World<'a> {
    /// The world of a seed.
    pub(super) fn new(
        seed: u64,
        mutants: Mutants,
        counts: &'a mut Counts<Count>,
        trace: &'a mut Trace,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let options = Options::draw(&mut rng.fork());
        trace.text(format_args!("seed {seed}\n{options:#?}"));
        let roles = [Role::Primary, Role::Backup];
        let hosts = [0, 1].map(|host| Host::new(&options, host, roles[host], mutants, &mut rng));
        let links = [0, 1].map(|host| Link::new(options.links[host].clone(), rng.fork()));
        let mut world = Self {
            options,
            rng,
            queue: EventQueue::default(),
            hosts,
            links,
            frames: FrameStore::default(),
            forger: Forger::default(),
            handshakes_done: 0,
            sessions: Vec::new(),
            witness: Witness { term: 1, primary: 0, barred: 0 },
            phase: Phase::Faults,
            counts,
            trace,
            scratch: Vec::new(),
            buffer: Vec::new(),
            deliveries: Vec::new(),
        };
        for host in [0, 1] {
            world.change_rate(host);
            world.queue.push(0, Event::Work { host });
        }
        world.begin_faults();
        let heal_at = world.options.faults_ns;
        world.queue.push(heal_at, Event::Heal);
        world
    }

    /// Runs it to its end.
    pub(super) fn run(&mut self) -> Checked {
        let result = self.run_events();
        if let Err(Violation(what)) = &result {
            self.trace.line(self.queue.now(), None, "VIOLATION", format_args!("{what}"));
        }
        self.count_rest();
        result
    }

    fn run_events(&mut self) -> Checked {
        for _ in 0..EVENTS_MAX {
            let event = self.queue.pop();
            let event = event.ok_or_else(|| Violation("nothing happens any more".into()))?;
            self.handle(event)?;
            self.look_at_progress()?;
            if self.phase == Phase::Over {
                return Ok(());
            }
        }
        let now = self.queue.now();
        Err(Violation(format!("a storm: {EVENTS_MAX} events in {now} ns")))
    }

    fn handle(&mut self, event: Event) -> Checked {
        let now = self.queue.now();
        match event {
            Event::Arrive { to, arrival } => self.arrive(to, arrival),
            Event::Wake { host, ticket } => {
                let own = &mut self.hosts[host];
                // One that stands still looks at everything when it goes on.
                if own.wake_ticket == ticket && own.process == Process::Running {
                    self.turn(host, &[])?;
                }
            }
            Event::Work { host } => {
                if !self.is_faulty() {
                    return Ok(());
                }
                let own = &mut self.hosts[host];
                let pause_ns = own.load.pause_ns();
                if own.process == Process::Running {
                    let deeds = own.load.deeds();
                    if own.load.is_hasty() {
                        self.hasty_turn(host, &deeds)?;
                    } else {
                        self.turn(host, &deeds)?;
                    }
                }
                self.queue.push(now + pause_ns, Event::Work { host });
            }
            Event::Renew { host, ticket } => {
                let own = &self.hosts[host];
                // One that stands still does it when it goes on.
                if own.renew_ticket == ticket && own.process == Process::Running {
                    self.renew(host)?;
                    self.turn(host, &[])?;
                }
            }
            Event::Fault(fault) => self.begin_fault(fault)?,
            Event::Mend => {
                self.links.iter_mut().for_each(|link| link.set_cut(false));
                self.trace.line(now, None, "mend", format_args!(""));
            }
            Event::Release { from } => self.release(from),
            Event::Thaw { host } => self.thaw(host)?,
            Event::Boot { host } => {
                if self.hosts[host].process == Process::Down {
                    self.boot(host);
                    self.turn(host, &[])?;
                }
            }
            Event::Heal => self.heal()?,
            Event::Look => {}
        }
        Ok(())
    }

    /// A frame reaches the network interface of `to`.
    fn arrive(&mut self, to: usize, arrival: Arrival) {
        let own = &mut self.hosts[to];
        if own.process == Process::Down {
            self.counts.count(Count::Absent);
            return;
        }
        if own.ring.len() >= own.ring_frames_max {
            self.counts.count(Count::Dropped);
            return;
        }
        own.ring.push_back(arrival);
        let after_ns = self.rng.below(self.options.hosts[to].wake_ns_max + 1);
        self.wake_at(to, self.queue.now() + after_ns);
    }

    /// Wakes the thread of `host` at `at`, if nothing does so before.
    pub(super) fn wake_at(&mut self, host: usize, at: u64) {
        let own = &mut self.hosts[host];
        if own.wake_at.is_some_and(|wake_at| wake_at <= at) {
            return;
        }
        own.wake_at = Some(at);
        own.wake_ticket += 1;
        let ticket = own.wake_ticket;
        self.queue.push(at, Event::Wake { host, ticket });
    }

    /// A host that stood still goes on.
    pub(super) fn thaw(&mut self, host: usize) -> Checked {
        let own = &mut self.hosts[host];
        if own.process != Process::Frozen {
            return Ok(());
        }
        own.process = Process::Running;
        let now = self.queue.now();
        self.trace.line(now, Some(host), "thaw", format_args!(""));
        let own = &self.hosts[host];
        if let Some(channel) = own.endpoint.channel()
            && own.lease_told
            && !channel.lease_held(own.clock.shows(now))
        {
            self.counts.count(Count::ThawsWithoutLease);
        }
        self.turn(host, &[])?;
        if self.hosts[host].renew_wanted {
            self.renew(host)?;
            self.turn(host, &[])?;
        }
        Ok(())
    }

    fn count_rest(&mut self) {
        for host in [0, 1] {
            let own = &self.hosts[host];
            if own.process != Process::Down {
                count_channel(self.counts, &own.endpoint);
                self.handshakes_done += count_endpoint(self.counts, &own.endpoint);
            }
            count_link(self.counts, self.links[host].counts());
        }
        for session in &self.sessions {
            let met = session.ends.iter().filter(|end| end.met.is_some()).count();
            self.counts.count(if met == 2 { Count::Sessions } else { Count::HalfSessions });
            // All but the first handshake in a session replaced its keys.
            self.handshakes_done -= met as u64;
        }
        self.counts.add(Count::Rekeys, self.handshakes_done);
        self.counts.add(Count::VirtualMs, self.queue.now() / MS);
    }

    /// The session of the channel of `host`.
    pub(super) fn session(&self, host: usize) -> Option<&Session> {
        self.hosts[host].session.map(|session| &self.sessions[session])
    }
}

/// Ends the run if a host's bookkeeping and the world's differ: a mistake of the simulator.
pub(super) fn known<T>(value: Option<T>) -> Checked<T> {
    value.ok_or_else(|| Violation("the simulator has lost count".into()))
}
