//! [`State`]: the state of a run without the coroutines, and its events.

use std::rc::Rc;

use replication::DriverMutant;
use replication::driver::Order;
use replication::replica::{RoleName, Start};
use replication::witness::{Answer, Question};

use super::check::{Copies, LogRecord, Phase, Silence, Spoken};
use super::count::Count;
use super::faults::Fault;
use super::host::{Arrival, Host, Process, TapFault};
use super::options::Options;
use super::supervisor::Notices;
use super::thread::WakeBy;
use crate::sim::counts::Counts;
use crate::sim::link::{Delivery, Link};
use crate::sim::queue::EventQueue;
use crate::sim::rng::Rng;
use crate::sim::supervisor::Supervisors;
use crate::sim::system::check::EndCause;
use crate::sim::system::client::{Client, Clients};
use crate::sim::system::process::ProcessId;
use crate::sim::system::witness::Witness;
use crate::sim::trace::Trace;
use crate::sim::{Checked, MS, US, Violation};

/// The host at the other end.
pub(super) const fn other(host: usize) -> usize {
    1 - host
}

/// An event of the simulation.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A host's thread has slept for long enough, or is woken.
    Resume { host: usize, ticket: u64 },
    /// A frame of the log link reaches a host.
    Arrive { to: usize, arrival: Arrival },
    /// A frame from a client reaches a host's tap.
    Tap { to: usize, frame: Rc<[u8]> },
    /// A frame of the VM reaches a client.
    Client { client: usize, frame: Rc<[u8]> },
    /// A client's timer expires.
    Ask { client: usize, ticket: u64 },
    /// A claim reaches the witness's storage; `None`: it fails on the way.
    Claim { host: usize, claim: Claim },
    /// The witness's thread of a host has an answer.
    Answer { host: usize, claim: Claim, answer: Answer },
    /// A process is given an order.
    Order { host: usize, process: ProcessId, order: Order },
    /// A fault begins.
    Fault(Fault),
    /// A fault with a duration ends.
    Mend(Fault),
    /// A host freezes for this long, as soon as it can.
    Freeze { host: usize, lasts_ns: u64 },
    /// A frozen host resumes.
    Thaw { host: usize, ticket: u64 },
    /// A host's process is started.
    Boot { host: usize },
    /// All faults end.
    Heal,
    /// The deadline of a process whose tap has failed.
    TapDeadline { host: usize, process: ProcessId },
    /// The supervisor of a dead process sends a copy of its notice, which must end this session.
    SendNotice { host: usize, frame: Rc<[u8]>, session: Option<u64> },
    /// By now, a process that has received the notice of its peer's death must have acted on it.
    CheckNotice { host: usize, process: ProcessId, session: u64 },
    /// A deadline of the liveness checker has passed.
    CheckProgress,
}

/// A question to the witness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The process that asks.
    pub(super) process: ProcessId,
    pub(super) question: Question,
    /// When the driver asked it. That is earlier than the time at which it was passed on if the witness's thread
    /// was still busy with another question.
    pub(super) asked_at: u64,
    /// When the answer reaches the host, after the claim has reached the storage.
    pub(super) back_ns: u64,
    /// The storage cannot be reached.
    pub(super) fails: bool,
}

/// See the [module](self).
pub(super) struct State {
    pub(super) options: Options,
    pub(super) planted: Option<DriverMutant>,
    pub(super) rng: Rng,
    pub(super) queue: EventQueue<Event>,
    pub(super) hosts: [Host; 2],
    /// The two directions of the log link, by sender.
    pub(super) links: [Link; 2],
    pub(super) clients: Clients,
    pub(super) witness: Witness,
    pub(super) processes: u32,

    pub(super) phase: Phase,
    /// Bytes of a dead primary's log that were executed at the last deadline.
    pub(super) executed: u64,
    pub(super) spoken: Spoken,
    pub(super) log: LogRecord,
    pub(super) silence: Silence,
    pub(super) copies: Copies,
    pub(super) notices: Notices,
    /// A violation that was found on a process's thread.
    pub(super) violation: Option<Violation>,

    pub(super) counts: Counts<Count>,
    pub(super) trace: Trace,
    pub(super) deliveries: Vec<Delivery>,
}

impl State {
    /// Creates the state of a seed.
    pub(super) fn new(seed: u64, planted: Option<DriverMutant>, mut trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let options = Options::draw(&mut rng.fork());
        trace.text(format_args!("seed {seed}\n{options:#?}"));
        let supervisors = Supervisors::new(seed, options.pair.timing.silence.as_nanos());
        trace.text(format_args!("{:#?}", supervisors.options()));
        let hosts = [0, 1].map(|host| Host::new(&options.hosts[host], rng.fork()));
        let links = [0, 1].map(|host| Link::new(options.links[host].clone(), rng.fork()));
        let clients = options.clients.iter();
        let clients = clients.map(|client| Client::new(client.clone(), rng.fork())).collect();
        Self {
            options,
            planted,
            rng,
            queue: EventQueue::default(),
            hosts,
            links,
            clients: Clients::new(clients),
            witness: Witness::default(),
            processes: 0,
            phase: Phase::Faults,
            executed: 0,
            spoken: Spoken::default(),
            log: LogRecord::default(),
            silence: Silence::default(),
            copies: Copies::default(),
            notices: Notices::new(supervisors),
            violation: None,
            counts: Counts::default(),
            trace,
            deliveries: Vec::new(),
        }
    }

    /// Schedules the first events.
    pub(super) fn begin(&mut self) {
        let faults_ns = self.options.faults_ns;
        let backup_at = self.rng.magnitude(1..=faults_ns / 4);
        self.queue.push(0, Event::Boot { host: 0 });
        self.queue.push(backup_at, Event::Boot { host: 1 });
        for client in 0..self.clients.len() {
            let at = self.rng.below(10 * MS);
            self.set_client_timer(client, at);
        }
        self.plan_faults();
        self.queue.push(faults_ns, Event::Heal);
    }

    /// Writes a line of the trace at the current time.
    pub(super) fn note(&mut self, host: Option<usize>, event: &str, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.queue.now(), host, event, what);
    }

    /// Handles an event that needs no coroutine.
    pub(super) fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Resume { .. } | Event::Boot { .. } => unreachable!("the event loop handles it"),
            Event::Arrive { to, arrival } => self.frame_arrives(to, arrival),
            Event::Tap { to, frame } => self.tap_receives(to, frame),
            Event::Client { client, frame } => return self.client_gets(client, &frame),
            Event::Ask { client, ticket } => self.client_asks(client, ticket),
            Event::Claim { host, claim } => self.claim_arrives(host, claim),
            Event::Answer { host, claim, answer } => self.answer_arrives(host, claim, answer),
            Event::Order { host, process, order } => self.order(host, process, order),
            Event::Fault(fault) => self.begin_fault(fault),
            Event::Mend(fault) => self.mend(fault),
            Event::Freeze { host, lasts_ns } => self.freeze(host, lasts_ns),
            Event::Thaw { host, ticket } => self.thaw(host, ticket),
            Event::Heal => self.heal(),
            Event::TapDeadline { host, process } => return self.check_tap_deadline(host, process),
            Event::SendNotice { host, frame, session } => self.send_notice(host, &frame, session),
            Event::CheckNotice { host, process, session } => {
                return self.check_notice_acted_on(host, process, session);
            }
            Event::CheckProgress => {}
        }
        Ok(())
    }

    /// Lets the thread of `host` sleep until `at`, or until something in `by` wakes it. Returns true if that time
    /// has come at once, because nothing happens until then. Otherwise the thread must be suspended.
    pub(super) fn begin_sleep(&mut self, host: usize, at: u64, by: WakeBy) -> bool {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        let at = at.max(now + std::mem::take(&mut own.debt_ns));
        own.ticket += 1;
        if own.frozen.is_none()
            && !own.is_doomed
            && self.queue.next_at().is_none_or(|next_at| next_at > at)
        {
            self.queue.advance(at);
            return true;
        }
        own.wake_by = by;
        let ticket = own.ticket;
        self.queue.push(at, Event::Resume { host, ticket });
        false
    }

    /// Returns whether the thread of `host` runs on, at an event for the sleep with this ticket.
    pub(super) fn may_resume(&mut self, host: usize, ticket: u64) -> bool {
        let own = &mut self.hosts[host];
        if own.process.is_none() || own.ticket != ticket {
            return false;
        }
        own.is_due |= own.frozen.is_some();
        if own.is_due {
            return false;
        }
        // A wake-up that was scheduled in the same sleep must not count for the next one.
        own.ticket += 1;
        true
    }

    /// Wakes the thread of `host` after its wake-up latency, if `is_awaited` says that it waits for this.
    pub(super) fn wake(&mut self, host: usize, is_awaited: impl FnOnce(WakeBy) -> bool) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        if own.process.is_none() || !is_awaited(own.wake_by) {
            return;
        }
        own.wake_by = WakeBy::TIME;
        let ticket = own.ticket;
        let after_ns = own.rng.below(own.options.wake_ns_max + 1);
        self.queue.push(now + after_ns, Event::Resume { host, ticket });
    }

    /// Registers a process that is started on `host`, unless one runs there.
    pub(super) fn boot(&mut self, host: usize) -> Option<(ProcessId, Start)> {
        if self.hosts[host].process.is_some() {
            return None;
        }
        let start = if self.processes == 0 { Start::Primary } else { Start::Backup };
        let role = match start {
            Start::Primary | Start::BootAgain => RoleName::Starting,
            Start::Standalone | Start::Backup => RoleName::Seeking,
        };
        self.processes += 1;
        let id = ProcessId(self.processes);
        let own = &mut self.hosts[host];
        own.clear();
        own.process = Some(Process::new(id, role));
        self.note(Some(host), "boot", format_args!("{id:?} as {start:?}"));
        Some((id, start))
    }

    /// The process of `host` has ended, and its coroutine is gone.
    pub(super) fn end_process(&mut self, host: usize, cause: EndCause, how: &str) {
        let now = self.queue.now();
        let Some(process) = self.hosts[host].process.take() else { return };
        if cause == EndCause::Crashed {
            self.announce_death(host, &process);
        }
        let Process { id, role, .. } = process;
        self.hosts[host].clear();
        self.silence.disturb(now);
        self.note(Some(host), "end", format_args!("{id:?} {role}: {cause:?}, {how}"));
        self.copies.gone.push((id, cause));
        let after_ns = self.rng.magnitude(US..=self.options.hosts[host].restart_ns_max);
        self.queue.push(now + after_ns, Event::Boot { host });
    }

    /// Takes over what the engine of `host` says about itself.
    pub(super) fn look(&mut self, host: usize, replica: &replication::replica::Replica) {
        let now = self.queue.now();
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.look(replica) {
            let (role, term) = (process.role, process.term);
            self.trace.line(now, Some(host), "role", format_args!("{role}, term {}", term.0));
        }
        let roles = [0, 1].map(|host| self.hosts[host].role());
        self.silence.see(now, roles, self.options.pair.timing.silence.as_nanos());
    }

    /// Gives a process an order.
    fn order(&mut self, host: usize, id: ProcessId, order: Order) {
        let own = &mut self.hosts[host];
        let Some(process) = own.process.as_mut().filter(|process| process.id == id) else { return };
        process.order = Some(order);
        self.silence.disturb(self.queue.now());
        self.note(Some(host), "order", format_args!("{id:?}: {order:?}"));
        match order {
            Order::HandOver => {}
            // Without a backup, leaving is stopping.
            Order::Leave | Order::Stop => self.copies.gone.push((id, EndCause::Stopped)),
        }
        self.wake(host, |by| by.kick);
    }

    /// The tap of `host` fails.
    pub(super) fn fail_tap(&mut self, host: usize) {
        let fault = self.rng.pick(&[TapFault::Deleted, TapFault::Down]);
        self.hosts[host].tap_fault = Some(fault);
        self.note(Some(host), "fault", format_args!("tap {fault:?}"));
        if fault == TapFault::Deleted {
            self.wake(host, |by| by.tap);
        }
    }
}
