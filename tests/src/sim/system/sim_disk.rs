//! [`SimDisk`]: the disk of a host, with a volatile cache, slow and failing requests, and the copier of its blocks.

use logchan::disk_copy::DiskCopy;
use logchan::time::{Duration, Time};
use replication::boundary::{DiskCompletion, DiskOperation, DiskRequest, DiskStatus};
use replication::replica::{CopyEnd, CopyState, UnexpectedMessage};

use super::machine::disk::{BLOCKS, VALUE_BYTES};
use super::process::ProcessId;
use super::shared_disk::SharedDisk;
use crate::sim::rng::{Chance, Rng};

/// Bytes of a block in a message of the copier: a sector.
const SECTOR_BYTES: usize = 512;

/// How long a backup waits for a disk that is never too slow.
const PATIENT_NS: u64 = 60_000_000_000;

/// Bytes that a block counts for in a copy: several blocks are more than may be left when the memory is copied.
const BLOCK_COUNTS_BYTES: u64 = 2 << 20;

/// How the disks of a run behave.
#[derive(Clone, Debug)]
pub(crate) struct DiskOptions {
    /// Number of disks: 0 or 1.
    pub(crate) disks: usize,
    /// Whether both hosts share the disk.
    pub(crate) is_shared: bool,
    /// Maximum time that a request takes.
    pub(crate) takes_ns_max: u64,
    /// Probability that a request takes much longer.
    pub(crate) slow: Chance,
    /// How long such a request takes.
    pub(crate) slow_ns: u64,
    /// How long a backup waits for its disk.
    pub(crate) wait_ns_max: u64,
    /// Maximum time from the end of a request until its host learns of it.
    pub(crate) unseen_ns_max: u64,
    /// Probability that a write or a flush fails.
    pub(crate) fails: Chance,
    /// How often the guest uses the disk, in percent of its choices.
    pub(crate) busy_percent: u64,
}

impl DiskOptions {
    /// Draws them.
    pub(crate) fn draw(rng: &mut Rng, silence_ns: u64) -> DiskOptions {
        const US: u64 = 1_000;
        let takes_ns_max = rng.magnitude(10 * US..=2_000 * US);
        let is_slow = rng.chance(Chance::percent(30));
        let (slow_ns, impatient_ns) = (rng.magnitude(US..=silence_ns), silence_ns / 4);
        let hangs = rng.chance(Chance::percent(20));
        let (is_late, unseen_ns_max) = (rng.chance(Chance::percent(50)), 20_000 * US);
        DiskOptions {
            disks: usize::from(rng.chance(Chance::percent(60))),
            is_shared: false,
            takes_ns_max,
            slow: if is_slow { Chance::percent(5) } else { Chance::NEVER },
            slow_ns,
            wait_ns_max: if is_slow && hangs { impatient_ns } else { PATIENT_NS },
            unseen_ns_max: if is_late { rng.magnitude(1_000 * US..=unseen_ns_max) } else { 1 },
            fails: rng.swarm(Chance::percent(20), 1_000..=20_000),
            busy_percent: rng.pick(&[10, 40, 80]),
        }
    }

    /// No disk.
    pub(crate) fn none() -> DiskOptions {
        let never = Chance::NEVER;
        DiskOptions {
            disks: 0,
            is_shared: false,
            takes_ns_max: 1,
            slow: never,
            slow_ns: 0,
            wait_ns_max: PATIENT_NS,
            unseen_ns_max: 1,
            fails: never,
            busy_percent: 0,
        }
    }

    /// Whether a request may fail, or a backup may leave because of its disk.
    pub(crate) fn has_faults(&self) -> bool {
        self.fails != Chance::NEVER || self.wait_ns_max < PATIENT_NS
    }
}

/// Contents of a block: a value, and the number of the request that wrote it.
type Block = (u64, u64);

/// A request that was begun.
#[derive(Clone, Copy, Debug)]
struct Request {
    number: u64,
    operation: DiskOperation,
    block: usize,
    value: u64,
    due: Time,
    /// When its host learns that it is done.
    seen: Time,
    /// Its machine is gone.
    orphan: bool,
    /// How it ended, and what it read.
    done: Option<(DiskStatus, [u8; VALUE_BYTES])>,
}

impl Request {
    /// Whether its host knows that it is done.
    fn is_seen(&self, now: Time) -> bool {
        self.done.is_some() && !self.orphan && self.seen <= now
    }
}

/// The copier of one end.
#[derive(Clone, Debug)]
enum Copier {
    Off,
    Send {
        /// Blocks to send.
        dirty: [bool; BLOCKS],
        /// The flush that was asked for last, and the one that is done.
        asked: u64,
        done: u64,
        /// Something was sent since.
        must_ask: bool,
        message: Vec<u8>,
    },
    Receive {
        /// The flush to answer.
        answer: Option<u64>,
    },
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    options: DiskOptions,
    cache: [Block; BLOCKS],
    /// What survives a loss of power.
    durable: [Block; BLOCKS],
    /// In the order in which they were begun.
    requests: Vec<Request>,
    taken: [u8; VALUE_BYTES],
    /// Every request fails.
    pub(crate) is_broken: bool,
    /// Requests that have taken effect.
    pub(crate) executed: u64,
    copier: Copier,
    /// The planted bug: requests that overlap take effect in any order.
    ignores_order: bool,
    rng: Rng,
    /// The disk that both hosts share, and the process that uses it here.
    pub(crate) shared: Option<SharedDisk>,
    pub(crate) owner: ProcessId,
    /// The true time.
    pub(crate) true_now: u64,
}

impl SimDisk {
    pub(crate) fn new(options: DiskOptions, ignores_order: bool, mut rng: Rng) -> SimDisk {
        // The two hosts begin with different contents.
        let cache = std::array::from_fn(|_| (rng.within(1..=1 << 60), 0));
        SimDisk {
            options,
            cache,
            durable: cache,
            requests: Vec::new(),
            taken: [0; VALUE_BYTES],
            is_broken: false,
            executed: 0,
            copier: Copier::Off,
            ignores_order,
            rng,
            shared: None,
            owner: ProcessId(0),
            true_now: 0,
        }
    }

    /// When the next request to the shared disk is done, in true time.
    pub(crate) fn shared_due(&self) -> Option<u64> {
        self.shared.as_ref()?.due(self.true_now, self.owner)
    }

    /// The numbers of the writes whose data survive a loss of power, by block.
    pub(crate) fn durable_writes(&self) -> [u64; BLOCKS] {
        self.durable.map(|(_value, number)| number)
    }

    /// There are no faults from now on.
    pub(crate) fn heal(&mut self) {
        self.options.fails = Chance::NEVER;
        self.options.slow = Chance::NEVER;
        if let Some(shared) = &self.shared {
            shared.heal();
        }
    }

    /// The process has ended. Of the requests that were begun, some take effect; the cache may be lost.
    pub(crate) fn process_ended(&mut self) {
        if let Some(shared) = &self.shared {
            shared.process_ended(self.true_now, self.owner);
        }
        for index in 0..self.requests.len() {
            if self.requests[index].done.is_none() && self.rng.chance(Chance::percent(50)) {
                self.execute(index);
            }
        }
        self.requests.clear();
        self.copier = Copier::Off;
        self.is_broken = false;
        if self.rng.chance(Chance::percent(30)) {
            self.cache = self.durable;
        }
    }

    /// When the next request is done.
    pub(crate) fn due(&mut self, now: Time) -> Option<Time> {
        self.work(now);
        // One that is due, and is not done, waits for an earlier one.
        let times = self.requests.iter().flat_map(|request| [request.due, request.seen]);
        times.filter(|&at| at > now).min()
    }

    /// Does what is due at `now`.
    fn work(&mut self, now: Time) {
        loop {
            let ready = (0..self.requests.len()).filter(|&index| {
                let request = &self.requests[index];
                request.done.is_none() && request.due <= now && !self.waits(index)
            });
            let Some(index) = ready.min_by_key(|&index| self.requests[index].due) else { break };
            self.execute(index);
        }
        self.requests.retain(|request| !request.orphan || request.done.is_none());
    }

    /// Whether an earlier request must take effect before the one at `index`.
    fn waits(&self, index: usize) -> bool {
        let changes = |request: &Request| request.operation == DiskOperation::Write;
        let own = &self.requests[index];
        own.operation != DiskOperation::Flush
            && !self.ignores_order
            && self.requests[..index].iter().any(|before| {
                before.done.is_none()
                    && before.operation != DiskOperation::Flush
                    && before.block == own.block
                    && (changes(before) || changes(own))
            })
    }

    fn execute(&mut self, index: usize) {
        let Request { number, operation, block, value, .. } = self.requests[index];
        let may_fail = operation != DiskOperation::Read;
        let fails = self.is_broken || may_fail && self.rng.chance(self.options.fails);
        let mut data = [0; VALUE_BYTES];
        match operation {
            DiskOperation::Read => data = self.cache[block].0.to_le_bytes(),
            // A write that fails may have had an effect.
            DiskOperation::Write if !fails || !self.is_broken && number.is_multiple_of(2) => {
                self.cache[block] = (value, number);
            }
            DiskOperation::Flush if !fails => self.durable = self.cache,
            DiskOperation::Write
            | DiskOperation::Flush
            | DiskOperation::Discard
            | DiskOperation::WriteZeroes => {}
        }
        self.executed += 1;
        let status = if fails { DiskStatus::Failed } else { DiskStatus::Done };
        self.requests[index].done = Some((status, data));
    }

    pub(crate) fn begin_request(&mut self, now: Time, request: &DiskRequest<'_>) {
        if let Some(shared) = &self.shared {
            return shared.begin(self.true_now, self.owner, request);
        }
        let is_slow = self.rng.chance(self.options.slow);
        let most = if is_slow { self.options.slow_ns } else { self.options.takes_ns_max };
        let due = now + Duration::from_nanos(self.rng.within(1..=most.max(1)));
        let value = request.data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let &DiskRequest { number, operation, sector, .. } = request;
        let block = sector as usize;
        if let Copier::Send { dirty, .. } = &mut self.copier
            && operation == DiskOperation::Write
        {
            dirty[block] = true;
        }
        let (orphan, done) = (false, None);
        let seen = due + Duration::from_nanos(self.rng.below(self.options.unseen_ns_max));
        self.requests.push(Request { number, operation, block, value, due, seen, orphan, done });
    }

    fn find(&mut self, now: Time, number: u64) -> Option<usize> {
        self.work(now);
        let is_it = |request: &Request| request.number == number && !request.orphan;
        let index = self.requests.iter().position(is_it)?;
        self.requests[index].is_seen(now).then_some(index)
    }

    pub(crate) fn done(&mut self, now: Time, number: u64) -> Option<DiskStatus> {
        if let Some(shared) = &self.shared {
            return shared.status(self.true_now, self.owner, number);
        }
        let index = self.find(now, number)?;
        self.requests[index].done.map(|(status, _data)| status)
    }

    pub(crate) fn take_done(&mut self, now: Time, number: u64) -> Option<DiskCompletion<'_>> {
        let (operation, status, data) = match &self.shared {
            Some(shared) => shared.take(self.true_now, self.owner, number)?,
            None => {
                let index = self.find(now, number)?;
                let Request { operation, done, .. } = self.requests.remove(index);
                let (status, data) = done?;
                (operation, status, data)
            }
        };
        self.taken = data;
        let has_data = operation == DiskOperation::Read && status == DiskStatus::Done;
        let data = if has_data { &self.taken[..] } else { &[] };
        Some(DiskCompletion { disk: 0, number, status, data })
    }

    /// The number of a request that is done and not taken, and since when.
    pub(crate) fn any_done(&mut self, now: Time) -> Option<(u64, Time)> {
        if let Some(shared) = &self.shared {
            let (number, since) = shared.done(self.true_now, self.owner).first().copied()?;
            let ago = self.true_now - since;
            return Some((number, Time::from_nanos(now.as_nanos().saturating_sub(ago))));
        }
        self.work(now);
        let mut done = self.requests.iter().filter(|request| request.is_seen(now));
        done.next().map(|request| (request.number, request.seen))
    }

    pub(crate) fn forget_requests(&mut self) {
        if let Some(shared) = &self.shared {
            shared.forget(self.owner);
        }
        self.requests.retain(|request| request.done.is_none());
        self.requests.iter_mut().for_each(|request| request.orphan = true);
    }

    pub(crate) fn begin_copy(&mut self, end: CopyEnd) {
        self.copier = match end {
            CopyEnd::Send => Copier::Send {
                dirty: [true; BLOCKS],
                asked: 0,
                done: 0,
                must_ask: false,
                message: vec![0; SECTOR_BYTES],
            },
            CopyEnd::Receive => Copier::Receive { answer: None },
        };
    }

    pub(crate) fn end_copy(&mut self) {
        self.copier = Copier::Off;
    }

    /// Whether a write to `block` was begun and has not taken effect.
    fn is_changing(&self, block: usize) -> bool {
        self.requests.iter().any(|request| {
            request.done.is_none()
                && request.operation == DiskOperation::Write
                && request.block == block
        })
    }

    pub(crate) fn copy_out(&mut self, now: Time) -> Option<DiskCopy<'_>> {
        self.work(now);
        let ready = (0..BLOCKS).find(|&block| {
            matches!(&self.copier, Copier::Send { dirty, .. } if dirty[block])
                && !self.is_changing(block)
        });
        match &mut self.copier {
            Copier::Off => None,
            Copier::Receive { answer } => {
                answer.take().map(|mark| DiskCopy::Flushed { disk: 0, mark })
            }
            Copier::Send { dirty, asked, must_ask, message, .. } => match ready {
                Some(block) => {
                    dirty[block] = false;
                    *must_ask = true;
                    let (value, number) = self.cache[block];
                    message[..8].copy_from_slice(&value.to_le_bytes());
                    message[8..16].copy_from_slice(&number.to_le_bytes());
                    Some(DiskCopy::Data { disk: 0, sector: block as u64, data: message })
                }
                None if *must_ask && !dirty.contains(&true) => {
                    *must_ask = false;
                    *asked += 1;
                    Some(DiskCopy::Flush { disk: 0, mark: *asked })
                }
                None => None,
            },
        }
    }

    /// A block is written only after the requests of an earlier machine have taken effect.
    pub(crate) fn copy_takes(&mut self, now: Time) -> bool {
        self.work(now);
        !self.requests.iter().any(|request| request.orphan)
    }

    pub(crate) fn copy_in(&mut self, message: &DiskCopy<'_>) -> Result<(), UnexpectedMessage> {
        match (&mut self.copier, *message) {
            (Copier::Receive { .. }, DiskCopy::Data { sector, data, .. }) => {
                let word = |from: usize| {
                    u64::from_le_bytes(std::array::from_fn(|index| data[from + index]))
                };
                self.cache[sector as usize] = (word(0), word(8));
                Ok(())
            }
            (Copier::Receive { answer }, DiskCopy::Flush { mark, .. }) => {
                self.durable = self.cache;
                *answer = Some(mark);
                Ok(())
            }
            (Copier::Send { done, asked, .. }, DiskCopy::Flushed { mark, .. })
                if mark <= *asked =>
            {
                *done = mark;
                Ok(())
            }
            (Copier::Off | Copier::Send { .. } | Copier::Receive { .. }, _) => {
                Err(UnexpectedMessage)
            }
        }
    }

    pub(crate) fn copy_state(&self) -> CopyState {
        match &self.copier {
            _ if self.is_broken => CopyState::Failed { disk: 0 },
            Copier::Off | Copier::Receive { .. } => CopyState::Running { bytes_left: 0 },
            Copier::Send { dirty, asked, done, must_ask, .. } => {
                let left = dirty.iter().filter(|&&dirty| dirty).count() as u64;
                match left == 0 && !must_ask && asked == done {
                    true => CopyState::Whole,
                    false => CopyState::Running { bytes_left: left * BLOCK_COUNTS_BYTES },
                }
            }
        }
    }
}
