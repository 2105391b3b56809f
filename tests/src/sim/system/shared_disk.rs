//! [`SharedDisk`]: the one disk that both hosts of a run share. It keeps requests of a process that has ended: they may take
//! effect at any time, until the process is fenced.
//!
//! Times are true times, because the clocks of the hosts differ.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use replication::boundary::{DiskOperation, DiskRequest, DiskStatus};

use super::machine::disk::{BLOCKS, VALUE_BYTES};
use super::process::ProcessId;
use super::sim_disk::DiskOptions;
use crate::sim::MS;
use crate::sim::rng::{Chance, Rng};

/// How long a request of a process that has ended may still be on its way.
const LATE_NS_MAX: u64 = 500 * MS;

/// A request that was begun.
#[derive(Clone, Copy, Debug)]
struct Request {
    owner: ProcessId,
    number: u64,
    operation: DiskOperation,
    block: usize,
    value: u64,
    due: u64,
    /// When its host learns that it is done.
    seen: u64,
    /// Nobody waits for it.
    orphan: bool,
    /// How it ended, and what it read.
    done: Option<(DiskStatus, [u8; VALUE_BYTES])>,
}

/// What both hosts see.
#[derive(Debug)]
struct Platter {
    options: DiskOptions,
    blocks: [u64; BLOCKS],
    /// In the order in which they were begun.
    requests: Vec<Request>,
    /// Processes whose requests have no effect any more.
    fenced: BTreeSet<ProcessId>,
    /// Numbers of the changes that were begun and not checked.
    begun: Vec<(ProcessId, u64)>,
    /// What two hosts have done that must not be.
    wrong: Option<String>,
    rng: Rng,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct SharedDisk(Rc<RefCell<Platter>>);

impl SharedDisk {
    pub(crate) fn new(options: DiskOptions, mut rng: Rng) -> SharedDisk {
        SharedDisk(Rc::new(RefCell::new(Platter {
            options,
            blocks: std::array::from_fn(|_| rng.within(1..=1 << 60)),
            requests: Vec::new(),
            fenced: BTreeSet::new(),
            begun: Vec::new(),
            wrong: None,
            rng,
        })))
    }

    /// There are no faults from now on.
    pub(crate) fn heal(&self) {
        let options = &mut self.0.borrow_mut().options;
        options.fails = Chance::NEVER;
        options.slow = Chance::NEVER;
    }

    /// `owner` begins a request.
    pub(crate) fn begin(&self, now: u64, owner: ProcessId, request: &DiskRequest<'_>) {
        let platter = &mut *self.0.borrow_mut();
        platter.work(now);
        let stranger = platter.requests.iter().find(|one| one.owner != owner && one.done.is_none());
        if let Some(Request { owner: other, number, .. }) = stranger {
            platter.wrong = Some(format!(
                "{owner:?} uses the shared disk, and request {number} of {other:?} is in flight"
            ));
        }
        if platter.fenced.contains(&owner) {
            return;
        }
        let Platter { options, rng, .. } = platter;
        let is_slow = rng.chance(options.slow);
        let most = if is_slow { options.slow_ns } else { options.takes_ns_max };
        let due = now + rng.within(1..=most.max(1));
        let seen = due + rng.below(options.unseen_ns_max);
        let value = request.data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let &DiskRequest { number, operation, sector, .. } = request;
        let (block, orphan, done) = (sector as usize, false, None);
        if operation.modifies() {
            platter.begun.push((owner, number));
        }
        platter.requests.push(Request {
            owner,
            number,
            operation,
            block,
            value,
            due,
            seen,
            orphan,
            done,
        });
    }

    /// Returns the requests of `owner` that are done and not taken, and since when.
    pub(crate) fn done(&self, now: u64, owner: ProcessId) -> Vec<(u64, u64)> {
        let platter = &mut *self.0.borrow_mut();
        platter.work(now);
        let own = platter.requests.iter().filter(|one| one.owner == owner && !one.orphan);
        own.filter(|one| one.done.is_some() && one.seen <= now)
            .map(|one| (one.number, one.seen))
            .collect()
    }

    /// Returns how request `number` of `owner` ended, if it is done.
    pub(crate) fn status(&self, now: u64, owner: ProcessId, number: u64) -> Option<DiskStatus> {
        let platter = &mut *self.0.borrow_mut();
        platter.work(now);
        let index = platter.find(now, owner, number)?;
        platter.requests[index].done.map(|(status, _data)| status)
    }

    /// Takes request `number` of `owner`: its operation, how it ended, and what it read.
    pub(crate) fn take(
        &self,
        now: u64,
        owner: ProcessId,
        number: u64,
    ) -> Option<(DiskOperation, DiskStatus, [u8; VALUE_BYTES])> {
        let platter = &mut *self.0.borrow_mut();
        platter.work(now);
        let index = platter.find(now, owner, number)?;
        let Request { operation, done, .. } = platter.requests.remove(index);
        done.map(|(status, data)| (operation, status, data))
    }

    /// When the next request of `owner` is done.
    pub(crate) fn due(&self, now: u64, owner: ProcessId) -> Option<u64> {
        let platter = &mut *self.0.borrow_mut();
        platter.work(now);
        let own = platter.requests.iter().filter(|one| one.owner == owner);
        own.flat_map(|one| [one.due, one.seen]).filter(|&at| at > now).min()
    }

    /// Nobody waits for the requests of `owner` any more.
    pub(crate) fn forget(&self, owner: ProcessId) {
        let own = &mut self.0.borrow_mut().requests;
        own.retain(|one| one.owner != owner || one.done.is_none());
        own.iter_mut().filter(|one| one.owner == owner).for_each(|one| one.orphan = true);
    }

    /// The process `owner` has ended. Of its requests in flight, some take effect later.
    pub(crate) fn process_ended(&self, now: u64, owner: ProcessId) {
        self.forget(owner);
        let Platter { requests, rng, .. } = &mut *self.0.borrow_mut();
        for one in requests.iter_mut().filter(|one| one.owner == owner) {
            one.due = one.due.max(now) + rng.within(1..=LATE_NS_MAX);
        }
    }

    /// Fences the process `owner`: of its requests, some take effect before, and none afterwards.
    pub(crate) fn fence(&self, now: u64, owner: ProcessId) {
        let platter = &mut *self.0.borrow_mut();
        platter.work(now);
        platter.fenced.insert(owner);
        for index in 0..platter.requests.len() {
            let Request { owner: of, done, .. } = platter.requests[index];
            if of == owner && done.is_none() && platter.rng.chance(Chance::percent(50)) {
                platter.execute(index);
            }
        }
        platter.requests.retain(|one| one.owner != owner);
    }

    /// Returns the number of a change that `owner` has begun and that was not returned before.
    pub(crate) fn begun_change(&self, owner: ProcessId) -> Option<u64> {
        let begun = &mut self.0.borrow_mut().begun;
        let index = begun.iter().position(|&(of, _)| of == owner)?;
        Some(begun.remove(index).1)
    }

    /// Returns what two hosts have done that must not be.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.0.borrow().wrong.clone()
    }
}

impl Platter {
    fn find(&self, now: u64, owner: ProcessId, number: u64) -> Option<usize> {
        let is_it = |one: &Request| one.owner == owner && one.number == number && !one.orphan;
        let index = self.requests.iter().position(is_it)?;
        let one = &self.requests[index];
        (one.done.is_some() && one.seen <= now).then_some(index)
    }

    /// Does what is due at `now`.
    fn work(&mut self, now: u64) {
        loop {
            let ready = (0..self.requests.len()).filter(|&index| {
                let one = &self.requests[index];
                one.done.is_none() && one.due <= now && !self.waits(index)
            });
            let Some(index) = ready.min_by_key(|&index| self.requests[index].due) else { break };
            self.execute(index);
        }
        self.requests.retain(|one| !one.orphan || one.done.is_none());
    }

    /// Whether an earlier request of the same process must take effect before the one at `index`.
    fn waits(&self, index: usize) -> bool {
        let own = &self.requests[index];
        own.operation != DiskOperation::Flush
            && self.requests[..index].iter().any(|before| {
                before.owner == own.owner
                    && before.done.is_none()
                    && before.operation != DiskOperation::Flush
                    && before.block == own.block
                    && (before.operation.modifies() || own.operation.modifies())
            })
    }

    fn execute(&mut self, index: usize) {
        let Request { number, operation, block, value, .. } = self.requests[index];
        let fails = operation != DiskOperation::Read && self.rng.chance(self.options.fails);
        let mut data = [0; VALUE_BYTES];
        match operation {
            DiskOperation::Read => data = self.blocks[block].to_le_bytes(),
            // A write that fails may have had an effect.
            DiskOperation::Write if !fails || number.is_multiple_of(2) => {
                self.blocks[block] = value;
            }
            DiskOperation::Write
            | DiskOperation::Flush
            | DiskOperation::Discard
            | DiskOperation::WriteZeroes => {}
        }
        let status = if fails { DiskStatus::Failed } else { DiskStatus::Done };
        self.requests[index].done = Some((status, data));
    }
}
