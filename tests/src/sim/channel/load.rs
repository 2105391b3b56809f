//! The programs that use the channel: their options, drawn for a run, and their random actions.

use logchan::ids::Lane;
use logchan::limits::WINDOW_BYTES_MIN;

use crate::sim::US;
use crate::sim::rng::{Chance, Rng};

/// How a program uses its end of a channel.
#[derive(Clone, Debug)]
pub(super) struct LoadOptions {
    /// Mean time between two sets of actions.
    pub(super) work_every_ns: u64,
    /// Bytes appended in a run after which the program appends only small entries.
    pub(super) bytes_max: u64,
    /// Appends to the latency lane.
    pub(super) latency: Chance,
    /// Appends to the bulk lane.
    pub(super) bulk: Chance,
    /// Size of the largest entries, by lane.
    pub(super) entry_bytes_max: [u64; 2],
    /// Makes later entries require the bulk appended so far.
    pub(super) barrier: Chance,
    /// Reports progress of execution.
    pub(super) execute: Chance,
    /// Stops reading for some time.
    pub(super) stop_reading: Chance,
    /// Maximum duration of such a stop.
    pub(super) stop_ns_max: u64,
    /// Reads only a part of the available bytes.
    pub(super) read_part: Chance,
    /// Sends a Bye.
    pub(super) bye: Chance,
    /// Sends in this iteration without receiving what has arrived.
    pub(super) send_only: Chance,
}

impl LoadOptions {
    /// Draws the load of a run whose faults last for `faults_ns`.
    pub(super) fn draw(rng: &mut Rng, silence_ns: u64, faults_ns: u64) -> Self {
        let half = Chance::percent(50);
        let largest = WINDOW_BYTES_MIN as u64;
        Self {
            work_every_ns: rng.magnitude(faults_ns / 500..=faults_ns / 10),
            bytes_max: rng.magnitude(10_000..=1_000_000),
            latency: Chance::percent(rng.within(10..=100) as u32),
            bulk: rng.swarm(Chance::percent(70), 10_000..=500_000),
            entry_bytes_max: [rng.magnitude(8..=largest), rng.magnitude(64..=largest)],
            barrier: rng.swarm(half, 10_000..=500_000),
            execute: rng.swarm(Chance::percent(80), 10_000..=1_000_000),
            stop_reading: rng.swarm(half, 1_000..=100_000),
            stop_ns_max: rng.magnitude(10 * US..=2 * silence_ns),
            read_part: rng.swarm(half, 10_000..=900_000),
            bye: rng.swarm(Chance::percent(30), 1_000..=30_000),
            send_only: rng.swarm(half, 10_000..=900_000),
        }
    }
}

/// One action of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Append this many bytes.
    Append(Lane, usize),
    /// Make later entries require the bulk appended so far.
    RequireBulk,
    /// Report progress of execution.
    Execute,
    /// Read nothing for this many nanoseconds.
    StopReading(u64),
    /// Send a Bye.
    Bye,
}

/// The program of one host.
#[derive(Debug)]
pub(super) struct Load {
    options: LoadOptions,
    rng: Rng,
    /// Bytes appended in this run.
    appended: u64,
}

impl Load {
    /// Creates a program that has done nothing yet.
    pub(super) fn new(options: LoadOptions, rng: Rng) -> Self {
        Self { options, rng, appended: 0 }
    }

    /// Draws the next actions.
    pub(super) fn actions(&mut self) -> Vec<Action> {
        let LoadOptions { latency, bulk, barrier, execute, stop_reading, bye, .. } = self.options;
        let mut actions = Vec::new();
        if self.rng.chance(stop_reading) {
            let ns = self.rng.magnitude(1..=self.options.stop_ns_max);
            actions.push(Action::StopReading(ns));
        }
        for (lane, chance) in [(Lane::Bulk, bulk), (Lane::Latency, latency)] {
            if self.rng.chance(chance) {
                for _ in 0..self.rng.magnitude(1..=6) {
                    actions.push(Action::Append(lane, self.entry_bytes(lane)));
                }
            }
            if lane == Lane::Bulk && self.rng.chance(barrier) {
                actions.push(Action::RequireBulk);
            }
        }
        if self.rng.chance(execute) {
            actions.push(Action::Execute);
        }
        if self.rng.chance(bye) {
            actions.push(Action::Bye);
        }
        actions
    }

    /// The actions after healing: appends to both lanes, a bulk requirement and progress of execution.
    pub(super) fn final_actions(&mut self) -> Vec<Action> {
        let append = |load: &mut Self, lane| Action::Append(lane, load.entry_bytes(lane));
        vec![
            append(self, Lane::Latency),
            append(self, Lane::Bulk),
            append(self, Lane::Bulk),
            Action::RequireBulk,
            append(self, Lane::Latency),
            Action::Execute,
        ]
    }

    /// Draws whether the next iteration only sends.
    pub(super) fn is_send_only(&mut self) -> bool {
        self.rng.chance(self.options.send_only)
    }

    /// Draws the time until the next actions.
    pub(super) fn pause_ns(&mut self) -> u64 {
        self.rng.within(0..=2 * self.options.work_every_ns)
    }

    /// Draws how many of `readable` bytes to read.
    pub(super) fn reads(&mut self, readable: usize) -> usize {
        if readable > 1 && self.rng.chance(self.options.read_part) {
            self.rng.within(1..=readable as u64) as usize
        } else {
            readable
        }
    }

    /// From now on the program reads all available bytes.
    pub(super) fn read_all(&mut self) {
        self.options.read_part = Chance::NEVER;
    }

    fn entry_bytes(&mut self, lane: Lane) -> usize {
        let largest = match self.appended < self.options.bytes_max {
            true => self.options.entry_bytes_max[lane.index()],
            false => 16,
        };
        let is_any = self.rng.chance(Chance::percent(25));
        let bytes =
            if is_any { self.rng.within(1..=largest) } else { self.rng.magnitude(1..=largest) };
        self.appended += bytes;
        bytes as usize
    }
}
