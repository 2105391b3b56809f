//! One host: a clock, two network interfaces, and a process that may stand still or die.

use std::collections::VecDeque;

use logchan::time::Time;
use vmm::replica::Start;

use super::check::Gone;
use super::count::count_replica;
use super::crash::Trigger;
use super::options::HostOptions;
use super::pair::{Event, Pair};
use super::process::{Process, ProcessId};
use crate::sim::clock::DriftingClock;
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;

/// A frame of the log link that arrived, and what had happened to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The frame.
    pub(crate) frame: FrameId,
    /// Seed of its damage.
    pub(crate) damage: Option<u64>,
    /// Seed of its padding.
    pub(crate) pad: Option<u64>,
}

/// See the [module](self).
pub(crate) struct Host {
    /// Its clock, which outlives every process.
    pub(crate) clock: DriftingClock,
    /// The process, if one runs.
    pub(crate) process: Option<Process>,
    /// It stands still.
    pub(crate) frozen: bool,
    /// The true time that its thread is at: ahead of the world's while it takes a turn.
    pub(crate) thread_at: u64,
    /// What it read from its clock last.
    pub(crate) reading: Time,
    /// Frames of the log link that were not taken in.
    pub(crate) ring: VecDeque<Arrival>,
    /// What it was given for the LAN has left by then.
    pub(crate) tap_busy_until: u64,
    /// When its thread is woken, and the only wake-up that counts.
    pub(crate) wake_at: Option<u64>,
    /// See `wake_at`.
    pub(crate) wake_ticket: u64,
    /// The thaw that counts.
    pub(crate) thaw_ticket: u64,
    /// Its process dies at this point.
    pub(crate) trigger: Option<Trigger>,
    /// Its process dies at the end of the turn.
    pub(crate) dies: bool,
    /// It does not reach the witness.
    pub(crate) witness_cut: bool,
    /// Whatever is left to chance there.
    pub(crate) rng: Rng,
}

impl Host {
    /// A host without a process.
    pub(crate) fn new(options: &HostOptions, rng: Rng) -> Self {
        let origin = Time::from_nanos(options.clock_origin_ns);
        Self {
            clock: DriftingClock::new(origin, options.drift_ppb),
            process: None,
            frozen: false,
            thread_at: 0,
            reading: origin,
            ring: VecDeque::new(),
            tap_busy_until: 0,
            wake_at: None,
            wake_ticket: 0,
            thaw_ticket: 0,
            trigger: None,
            dies: false,
            witness_cut: false,
            rng,
        }
    }
}

impl Pair<'_> {
    /// Starts a process, if there is none.
    pub(crate) fn boot(&mut self, host: usize, start: Start) {
        let now = self.queue.now();
        if self.hosts[host].process.is_some() {
            return;
        }
        let clock = self.read_clock(host);
        let own = &mut self.hosts[host];
        self.processes += 1;
        let id = ProcessId(self.processes);
        let bugs = self.bugs.replica;
        let process = Process::new(id, &self.options, host, start, bugs, clock, &mut own.rng);
        own.process = Some(process);
        own.ring.clear();
        self.trace.line(now, Some(host), "boot", format_args!("{id:?} as {start:?}"));
        self.wake_soon(host);
    }

    /// The process of `host` is no more. Somebody starts another one.
    pub(crate) fn bury(&mut self, host: usize, gone: Gone) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        let Some(process) = own.process.take() else { return };
        own.ring.clear();
        (own.trigger, own.dies) = (None, false);
        let role = process.replica.role();
        self.trace.line(now, Some(host), "end", format_args!("{:?} {role}: {gone:?}", process.id));
        count_replica(self.counts, &process.replica);
        self.custody.gone.push((process.id, gone));
        let after_ns = self.rng.magnitude(1..=self.options.hosts[host].restart_ns_max);
        self.queue.push(now + after_ns, Event::Boot { host });
    }

    /// Shows where everybody is.
    pub(crate) fn trace_hosts(&mut self) {
        let now = self.queue.now();
        for host in [0, 1] {
            if let Some(process) = &self.hosts[host].process {
                let Process { id, replica, place, .. } = process;
                let what = format_args!("{id:?} at {place:?}, {replica:#?}");
                self.trace.line(now, Some(host), "is", what);
            }
        }
    }

    /// The thread of `host` reads its clock. It does not go back, whatever happens to the clock's rate.
    pub(crate) fn read_clock(&mut self, host: usize) -> Time {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        own.thread_at = own.thread_at.max(now);
        own.reading = own.reading.max(own.clock.shows(own.thread_at));
        if let Some(process) = &mut own.process {
            process.world.now = own.reading;
        }
        own.reading
    }

    /// The thread of `host` takes its time, and reads its clock.
    pub(crate) fn take_time(&mut self, host: usize) -> Time {
        let takes_ns_max = self.options.hosts[host].turn_ns_max;
        let own = &mut self.hosts[host];
        own.thread_at += own.rng.below(takes_ns_max + 1);
        self.read_clock(host)
    }

    /// Wakes the thread of `host`: something came.
    pub(crate) fn wake_soon(&mut self, host: usize) {
        let after_ns = self.rng.below(self.options.hosts[host].wake_ns_max + 1);
        self.wake_at(host, self.queue.now() + after_ns);
    }

    /// Wakes the thread of `host` at `at`, if nothing does so before.
    pub(crate) fn wake_at(&mut self, host: usize, at: u64) {
        let own = &mut self.hosts[host];
        let at = at.max(own.thread_at);
        if own.wake_at.is_some_and(|wake_at| wake_at <= at) {
            return;
        }
        own.wake_at = Some(at);
        own.wake_ticket += 1;
        let ticket = own.wake_ticket;
        self.queue.push(at.max(self.queue.now()), Event::Wake { host, ticket });
    }
}
