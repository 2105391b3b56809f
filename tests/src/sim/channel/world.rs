//! [`World`]: the state of a run (two hosts and the link between them) and its events.

use logchan::channel::Mutants;
use logchan::ids::Role;
use logchan::time::Time;

use super::attacker::Attacker;
use super::count::{Count, count_channel, count_endpoint, count_link};
use super::host::{Arrival, Host, Process};
use super::model::Session;
use super::options::Options;
use super::owner::Witness;
use crate::sim::counts::Counts;
use crate::sim::frames::{FrameId, FrameStore};
use crate::sim::link::{Delivery, Link};
use crate::sim::queue::EventQueue;
use crate::sim::rng::Rng;
use crate::sim::supervisor::Supervisors;
use crate::sim::trace::Trace;
use crate::sim::{Checked, MS, Violation};

/// Maximum number of events in a run. More of them indicate an endless loop.
const EVENTS_MAX: u64 = 2_000_000;

/// The host at the other end.
pub(super) const fn other(host: usize) -> usize {
    1 - host
}

/// An event of the simulation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A frame arrives.
    Arrive { to: usize, arrival: Arrival },
    /// A host's thread is woken.
    Wake { host: usize, ticket: u64 },
    /// A host's program acts.
    Work { host: usize },
    /// A host's owner renews the endpoint.
    Renew { host: usize, ticket: u64 },
    /// A fault begins.
    Fault(Fault),
    /// A partition ends.
    Mend,
    /// Withheld frames arrive.
    Release { from: usize },
    /// A frozen host resumes.
    Thaw { host: usize },
    /// The supervisor of a dead process sends a copy of its notice.
    SendNotice { host: usize, frame: FrameId },
    /// A host's process is started.
    Boot { host: usize },
    /// All faults end.
    Heal,
    /// A deadline of the progress checker has passed.
    CheckProgress,
}

/// A kind of fault: see `faults` and `attacker`.
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

/// What the checkers require now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Safety only.
    Faults,
    /// That the ends connect. Before `not_before` they may only seem to be connected, because an end has not
    /// noticed yet that its peer is gone.
    Connect { not_before: u64, by: u64 },
    /// That everything is delivered and acknowledged.
    Drain { by: u64 },
    /// That the channel stays open and the lease is kept.
    Idle { until: u64 },
    /// Nothing: the run is complete.
    Done,
}

/// The simulator's information about a frame that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The sender; `None` if the attacker made it up.
    pub(super) from: Option<usize>,
    /// The session of a channel frame.
    pub(super) session: Option<u64>,
    /// The session of a death notice.
    pub(super) notice_of: Option<u64>,
    /// The number of a channel frame in its session.
    pub(super) number: u64,
    /// When it was sent, by the sender's clock.
    pub(super) at: Time,
    /// Whether it is a Bye.
    pub(super) is_bye: bool,
    /// Number of handshakes that its receiver had completed when it was sent.
    pub(super) handshakes: u64,
    /// Whether one of the hosts received only handshakes of the other then: [`World::is_data_withheld`].
    pub(super) is_data_withheld: bool,
    /// Whether a channel has accepted it.
    pub(super) accepted: bool,
}

impl Sent {
    /// Information about a frame that the attacker made up.
    pub(super) fn made_up() -> Self {
        Self {
            from: None,
            session: None,
            notice_of: None,
            number: 0,
            at: Time::default(),
            is_bye: false,
            handshakes: 0,
            is_data_withheld: false,
            accepted: false,
        }
    }
}

/// The complete state of a run.
pub(super) struct World<'a> {
    pub(super) options: Options,
    pub(super) rng: Rng,
    pub(super) queue: EventQueue<Event>,
    pub(super) hosts: [Host; 2],
    /// The two directions of the link, by sender.
    pub(super) links: [Link; 2],
    pub(super) frames: FrameStore<Sent>,
    pub(super) attacker: Attacker,
    pub(super) supervisors: Supervisors,
    /// Completed handshakes, counted at each end.
    pub(super) handshakes_done: u64,
    pub(super) sessions: Vec<Session>,
    pub(super) witness: Witness,
    pub(super) phase: Phase,
    pub(super) counts: &'a mut Counts<Count>,
    pub(super) trace: &'a mut Trace,
    /// Buffers, reused to avoid allocations.
    pub(super) scratch: Vec<u8>,
    pub(super) buffer: Vec<u8>,
    pub(super) deliveries: Vec<Delivery>,
}

impl<'a> World<'a> {
    /// Creates the world of a seed.
    pub(super) fn new(
        seed: u64,
        mutants: Mutants,
        counts: &'a mut Counts<Count>,
        trace: &'a mut Trace,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let options = Options::draw(&mut rng.fork());
        trace.text(format_args!("seed {seed}\n{options:#?}"));
        let supervisors = Supervisors::new(seed, options.timing.silence.as_nanos());
        trace.text(format_args!("{:#?}", supervisors.options()));
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
            attacker: Attacker::default(),
            supervisors,
            handshakes_done: 0,
            sessions: Vec::new(),
            witness: Witness { term: 1, primary: 0, first_valid_session: 0 },
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

    /// Runs the simulation to its end.
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
            let event = event.ok_or_else(|| Violation("no event is left".into()))?;
            self.handle(event)?;
            self.check_progress()?;
            if self.phase == Phase::Done {
                return Ok(());
            }
        }
        let now = self.queue.now();
        Err(Violation(format!("too many events: {EVENTS_MAX} in {now} ns")))
    }

    fn handle(&mut self, event: Event) -> Checked {
        let now = self.queue.now();
        match event {
            Event::Arrive { to, arrival } => self.arrive(to, arrival),
            Event::Wake { host, ticket } => {
                let own = &mut self.hosts[host];
                // A frozen process is driven when it thaws.
                if own.wake_ticket == ticket && own.process == Process::Running {
                    self.drive(host, &[])?;
                }
            }
            Event::Work { host } => {
                if !self.is_faulty() {
                    return Ok(());
                }
                let own = &mut self.hosts[host];
                let pause_ns = own.load.pause_ns();
                if own.process == Process::Running {
                    let actions = own.load.actions();
                    if own.load.is_send_only() {
                        self.send_only_iteration(host, &actions)?;
                    } else {
                        self.drive(host, &actions)?;
                    }
                }
                self.queue.push(now + pause_ns, Event::Work { host });
            }
            Event::Renew { host, ticket } => {
                let own = &self.hosts[host];
                // A frozen process is renewed when it thaws.
                if own.renew_ticket == ticket && own.process == Process::Running {
                    self.renew(host)?;
                    self.drive(host, &[])?;
                }
            }
            Event::Fault(fault) => self.begin_fault(fault)?,
            Event::Mend => {
                self.links.iter_mut().for_each(|link| link.set_cut(false));
                self.trace.line(now, None, "mend", format_args!(""));
            }
            Event::Release { from } => self.release(from),
            Event::Thaw { host } => self.thaw(host)?,
            Event::SendNotice { host, frame } => self.send_notice(host, frame),
            Event::Boot { host } => {
                if self.hosts[host].process == Process::Down {
                    self.boot(host);
                    self.drive(host, &[])?;
                }
            }
            Event::Heal => self.heal()?,
            Event::CheckProgress => {}
        }
        Ok(())
    }

    /// Puts a frame into the receive ring of `to`.
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

    /// Wakes the thread of `host` at `at`, unless it is woken earlier.
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

    /// Resumes a frozen host.
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
            && own.lease_reported
            && !channel.lease_held(own.clock.shows(now))
        {
            self.counts.count(Count::ThawsWithoutLease);
        }
        self.drive(host, &[])?;
        if self.hosts[host].renewal_scheduled {
            self.renew(host)?;
            self.drive(host, &[])?;
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
            // Every handshake in a session after the first replaced its keys.
            self.handshakes_done -= met as u64;
        }
        self.counts.add(Count::Rekeys, self.handshakes_done);
        self.counts.add(Count::VirtualMs, self.queue.now() / MS);
    }

    /// The session of the current channel of `host`.
    pub(super) fn session(&self, host: usize) -> Option<&Session> {
        self.hosts[host].session.map(|session| &self.sessions[session])
    }
}

/// Returns the value, or a violation if it is `None`, which would be a bug of the simulator.
pub(super) fn require_some<T>(value: Option<T>) -> Checked<T> {
    value.ok_or_else(|| Violation("bug in the simulator: its model is inconsistent".into()))
}
