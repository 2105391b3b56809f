//! One host: a clock, two network interfaces, and a process that may freeze or die.

use std::collections::VecDeque;

use logchan::time::Time;
use replication::replica::Start;

use super::check::EndCause;
use super::count::count_replica;
use super::crash::CrashPoint;
use super::options::HostOptions;
use super::pair::{Event, Pair};
use super::process::{Process, ProcessId};
use super::sim_disk::SimDisk;
use super::witness::Witness;
use crate::sim::clock::DriftingClock;
use crate::sim::frames::FrameId;
use crate::sim::rng::Rng;

/// A frame of the log link that arrived, and its damage.
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
    /// The clock, which survives restarts of the process.
    pub(crate) clock: DriftingClock,
    /// The process, if one runs.
    pub(crate) process: Option<Process>,
    /// Whether the host is frozen.
    pub(crate) frozen: bool,
    /// The true time of its thread, which is ahead of the event queue during a driver iteration.
    pub(crate) thread_at: u64,
    /// The last reading of its clock.
    pub(crate) reading: Time,
    /// Frames of the log link that arrived and were not received yet.
    pub(crate) ring: VecDeque<Arrival>,
    /// When the last frame given to the tap leaves for the LAN.
    pub(crate) tap_busy_until: u64,
    /// When the thread is woken next.
    pub(crate) wake_at: Option<u64>,
    /// Ticket of the valid wake-up; older ones are ignored.
    pub(crate) wake_ticket: u64,
    /// Ticket of the valid thaw; older ones are ignored.
    pub(crate) thaw_ticket: u64,
    /// The point at which its process is to crash.
    pub(crate) crash_point: Option<CrashPoint>,
    /// Whether its process crashes at the end of the driver iteration.
    pub(crate) crash_pending: bool,
    /// Whether it cannot reach the witness.
    pub(crate) witness_cut: bool,
    /// Another storage in the place of the witness.
    pub(crate) other_witness: Option<Witness>,
    /// When it was last frozen or resumed, or lost a message to or from the witness.
    pub(crate) disturbed_at: u64,
    /// The disk, while no process has it.
    pub(crate) disk: Option<SimDisk>,
    /// The random generator of this host.
    pub(crate) rng: Rng,
}

impl Host {
    /// Creates a host without a process.
    pub(crate) fn new(options: &HostOptions, disk: SimDisk, rng: Rng) -> Self {
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
            crash_point: None,
            crash_pending: false,
            witness_cut: false,
            other_witness: None,
            disturbed_at: 0,
            disk: Some(disk),
            rng,
        }
    }
}

impl Pair<'_> {
    /// Starts a process, unless one runs.
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
        let Some(disk) = own.disk.take() else { return };
        let rng = (disk, &mut own.rng);
        let process = Process::new(id, &self.options, host, start, bugs, clock, rng);
        own.process = Some(process);
        own.ring.clear();
        self.trace.line(now, Some(host), "boot", format_args!("{id:?} as {start:?}"));
        self.wake_soon(host);
    }

    /// Ends the process of `host`, and schedules the start of another one.
    pub(crate) fn end_process(&mut self, host: usize, cause: EndCause) {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        let Some(process) = own.process.take() else { return };
        let mut disk = process.world.disk.clone();
        disk.process_ended();
        own.disk = Some(disk);
        own.ring.clear();
        (own.crash_point, own.crash_pending) = (None, false);
        let role = process.replica.role();
        self.trace.line(now, Some(host), "end", format_args!("{:?} {role}: {cause:?}", process.id));
        count_replica(self.counts, &process.replica);
        self.copies.gone.push((process.id, cause));
        match (cause, process.held_notice) {
            (EndCause::Crashed, Some(notice)) => {
                self.announce_death(host, notice, &process.sessions);
            }
            // In good order: its supervisor stands down.
            (EndCause::Crashed, None) | (EndCause::Stopped | EndCause::Exited, _) => {}
        }
        let after_ns = self.rng.magnitude(1..=self.options.hosts[host].restart_ns_max);
        self.queue.push(now + after_ns, Event::Boot { host });
    }

    /// Writes the state of all processes to the trace.
    pub(crate) fn trace_hosts(&mut self) {
        let now = self.queue.now();
        for host in [0, 1] {
            if let Some(process) = &self.hosts[host].process {
                let Process { id, replica, vcpu_state, .. } = process;
                let what = format_args!("{id:?} {vcpu_state:?}, {replica:#?}");
                self.trace.line(now, Some(host), "state", what);
            }
        }
    }

    /// Reads the clock of `host` in its thread. The reading does not go back, whatever the clock's rate.
    pub(crate) fn read_clock(&mut self, host: usize) -> Time {
        let now = self.queue.now();
        let own = &mut self.hosts[host];
        own.thread_at = own.thread_at.max(now);
        own.reading = own.reading.max(own.clock.shows(own.thread_at));
        if let Some(process) = &mut own.process {
            process.world.now = own.reading;
            process.world.disk.true_now = own.thread_at;
        }
        own.reading
    }

    /// Advances the thread of `host` by a random time, then reads its clock.
    pub(crate) fn take_time(&mut self, host: usize) -> Time {
        let takes_ns_max = self.options.hosts[host].step_delay_ns_max;
        let own = &mut self.hosts[host];
        own.thread_at += own.rng.below(takes_ns_max + 1);
        self.read_clock(host)
    }

    /// Wakes the thread of `host` after its wake-up latency.
    pub(crate) fn wake_soon(&mut self, host: usize) {
        let after_ns = self.rng.below(self.options.hosts[host].wake_ns_max + 1);
        self.wake_at(host, self.queue.now() + after_ns);
    }

    /// Wakes the thread of `host` at `at`, unless it is woken earlier.
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
