//! [`Io`]: many requests of 4 KiB, some of them in flight at once. They are for measurements: the client takes the time.

use crate::disk::{BLOCK_SECTORS, Disk, Operation, SLOTS};

/// What the requests do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    /// A block is written and made stable, one after the other.
    Flush,
}

/// In which order the blocks are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// One behind the other, from the first on.
    Sequential,
    Random,
}

/// A command `io` in progress.
pub(super) struct Io {
    kind: Kind,
    order: Order,
    /// Most requests in flight.
    depth: usize,
    /// Requests to make, and those that were begun and that have ended.
    count: u64,
    begun: u64,
    ended: u64,
    failed: u64,
    /// A flush is in flight.
    is_flushing: bool,
    random: u64,
}

impl Io {
    /// Parses what follows `io`: `read|write|flush sequential|random DEPTH COUNT SEED`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = core::str::from_utf8(text).ok()?.split(' ');
        let kind = match words.next()? {
            "read" => Kind::Read,
            "write" => Kind::Write,
            "flush" => Kind::Flush,
            _ => return None,
        };
        let order = match words.next()? {
            "sequential" => Order::Sequential,
            "random" => Order::Random,
            _ => return None,
        };
        let depth = words.next()?.parse().ok().filter(|depth| (1..=SLOTS).contains(depth))?;
        let depth = if kind == Kind::Flush { 1 } else { depth };
        let count = words.next()?.parse().ok().filter(|count| *count > 0)?;
        let random = words.next()?.parse().ok()?;
        let is_all = words.next().is_none();
        let (begun, ended, failed, is_flushing) = (0, 0, 0, false);
        let io = Self { kind, order, depth, count, begun, ended, failed, is_flushing, random };
        is_all.then_some(io)
    }

    /// Begins as many requests as may be in flight. The disk has at least one block.
    pub(super) fn begin(&mut self, disk: &mut Disk) {
        while self.begun < self.count
            && let Some(slot) = disk.free_slot(self.depth)
        {
            let sector = self.next_block(disk.sectors() / BLOCK_SECTORS) * BLOCK_SECTORS;
            let operation = match self.kind {
                Kind::Read => Operation::ReadBlock { sector },
                Kind::Write | Kind::Flush => {
                    disk.block(slot)[..8].copy_from_slice(&self.begun.to_le_bytes());
                    Operation::WriteBlock { sector }
                }
            };
            self.begun += 1;
            disk.begin(slot, operation);
        }
        disk.notify();
    }

    /// Goes on after the request in `slot` has ended.
    pub(super) fn ended(&mut self, disk: &mut Disk, (slot, is_well): (usize, bool)) {
        self.failed += u64::from(!is_well);
        match self.kind {
            Kind::Flush if !self.is_flushing => {
                self.is_flushing = true;
                disk.begin(slot, Operation::Flush);
            }
            Kind::Read | Kind::Write | Kind::Flush => {
                self.is_flushing = false;
                self.ended += 1;
            }
        }
    }

    /// Returns how many requests have failed, once all have ended.
    pub(super) fn outcome(&self) -> Option<u64> {
        (self.ended == self.count).then_some(self.failed)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn next_block(&mut self, blocks: u64) -> u64 {
        match self.order {
            Order::Sequential => self.begun % blocks,
            Order::Random => {
                // SplitMix64.
                self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = self.random;
                word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (word ^ word >> 31) % blocks
            }
        }
    }
}
