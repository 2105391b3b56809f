//! What the programs above the channel do: drawn for a run, then step by step.

use logchan::ids::Lane;
use logchan::limits::WINDOW_BYTES_MIN;

use crate::sim::US;
use crate::sim::rng::{Chance, Rng};

/// What a program does with its end of a channel.
#[derive(Clone, Debug)]
pub(super) struct LoadOptions {
    /// From one thing that it does to the next, on average.
    pub(super) work_every_ns: u64,
    /// Bytes that it appends in a run before it appends nothing but small entries.
    pub(super) bytes_max: u64,
    /// It appends to the latency lane.
    pub(super) latency: Chance,
    /// It appends to the bulk lane.
    pub(super) bulk: Chance,
    /// Largest entries, by lane.
    pub(super) entry_bytes_max: [u64; 2],
    /// It requires the bulk so far.
    pub(super) barrier: Chance,
    /// It tells how far it has executed.
    pub(super) execute: Chance,
    /// It reads nothing for a while.
    pub(super) stop_reading: Chance,
    /// Longest such while.
    pub(super) stop_ns_max: u64,
    /// It reads a part of what there is.
    pub(super) read_part: Chance,
    /// It leaves.
    pub(super) bye: Chance,
    /// It sends what it has without looking at what has come.
    pub(super) hasty: Chance,
}

impl LoadOptions {
    /// The load of a run of `faults_ns`.
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
            hasty: rng.swarm(half, 10_000..=900_000),
        }
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Append so many bytes.
    Append(Lane, usize),
    /// What is appended from here on needs the bulk before.
    RequireBulk,
    /// Tell how far it has executed.
    Execute,
    /// Read nothing for so long.
    StopReading(u64),
    /// Leave.
    Bye,
}

/// The program of one host.
#[derive(Debug)]
pub(super) struct Load {
    options: LoadOptions,
    rng: Rng,
    /// Bytes that were appended in this run.
    appended: u64,
}

impl Load {
    /// A program that has done nothing yet.
    pub(super) fn new(options: LoadOptions, rng: Rng) -> Self {
        Self { options, rng, appended: 0 }
    }

    /// What it does now.
    pub(super) fn deeds(&mut self) -> Vec<Deed> {
        let LoadOptions { latency, bulk, barrier, execute, stop_reading, bye, .. } = self.options;
        let mut deeds = Vec::new();
        if self.rng.chance(stop_reading) {
            let ns = self.rng.magnitude(1..=self.options.stop_ns_max);
            deeds.push(Deed::StopReading(ns));
        }
        for (lane, chance) in [(Lane::Bulk, bulk), (Lane::Latency, latency)] {
            if self.rng.chance(chance) {
                for _ in 0..self.rng.magnitude(1..=6) {
                    deeds.push(Deed::Append(lane, self.entry_bytes(lane)));
                }
            }
            if lane == Lane::Bulk && self.rng.chance(barrier) {
                deeds.push(Deed::RequireBulk);
            }
        }
        if self.rng.chance(execute) {
            deeds.push(Deed::Execute);
        }
        if self.rng.chance(bye) {
            deeds.push(Deed::Bye);
        }
        deeds
    }

    /// What it does when all is well again: something of everything.
    pub(super) fn last_deeds(&mut self) -> Vec<Deed> {
        let append = |load: &mut Self, lane| Deed::Append(lane, load.entry_bytes(lane));
        vec![
            append(self, Lane::Latency),
            append(self, Lane::Bulk),
            append(self, Lane::Bulk),
            Deed::RequireBulk,
            append(self, Lane::Latency),
            Deed::Execute,
        ]
    }

    /// Whether it is in a hurry.
    pub(super) fn is_hasty(&mut self) -> bool {
        self.rng.chance(self.options.hasty)
    }

    /// When it does something next.
    pub(super) fn pause_ns(&mut self) -> u64 {
        self.rng.within(0..=2 * self.options.work_every_ns)
    }

    /// How many of `readable` bytes it reads.
    pub(super) fn reads(&mut self, readable: usize) -> usize {
        if readable > 1 && self.rng.chance(self.options.read_part) {
            self.rng.within(1..=readable as u64) as usize
        } else {
            readable
        }
    }

    /// From now on it reads whatever it gets and does not stop.
    pub(super) fn calm(&mut self) {
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
