//! Any possible entry, built from plain values of proptest or of a seeded generator.

use logchan::disk_copy::{DISK_DIGEST_BYTES, DiskCopy, Generation};
use logchan::entry::{DiskStatus, Entry, PageBytes, REGISTERS, RegisterDelta, StateBytes};
use logchan::entry_kind::EntryKind;
use logchan::ids::{Claimant, Term};
use logchan::limits::*;
use logchan::page_delta::PageDelta;

use crate::rng::Rng;

/// The values that an entry of `kind` is built from; each kind uses those that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Ingredients {
    pub(crate) kind: EntryKind,
    pub(crate) numbers: [u64; 4],
    pub(crate) flag: bool,
    pub(crate) changed: u32,
    pub(crate) xor: [u64; REGISTERS],
    pub(crate) first: Vec<u8>,
    pub(crate) second: Vec<u8>,
    pub(crate) page: Vec<u8>,
    /// An encoded page delta.
    pub(crate) delta: Vec<u8>,
}

impl Ingredients {
    /// Returns the entry, which is within its limits whatever the values.
    pub(crate) fn entry(&self) -> Entry<'_> {
        let [a, b, c, d] = self.numbers;
        match self.kind {
            EntryKind::Exit => {
                Entry::Exit { digest: a, registers: self.flag.then(|| self.registers()) }
            }
            EntryKind::Window => Entry::Window { digest: a },
            EntryKind::CheckpointBegin => Entry::CheckpointBegin {
                full: self.flag,
                pages: up_to(a, u64::from(CHECKPOINT_PAGES_MAX)) as u32,
                vcpu: StateBytes::Whole(head(&self.first, VCPU_BYTES_MAX)),
                devices: match b % 2 {
                    0 => StateBytes::Whole(head(&self.second, DEVICES_BYTES_MAX)),
                    _ => StateBytes::Delta(self.page_delta()),
                },
            },
            EntryKind::Page => Entry::Page {
                number: up_to(a, PAGE_NUMBER_MAX),
                bytes: match b % 3 {
                    0 => PageBytes::Zero,
                    1 => PageBytes::Raw(&self.page),
                    _ => PageBytes::Delta(self.page_delta()),
                },
            },
            EntryKind::CheckpointEnd => Entry::CheckpointEnd { digest: a },
            EntryKind::Clock => Entry::Clock { advance_ns: up_to(a, CLOCK_ADVANCE_NS_MAX) },
            EntryKind::WallClock => Entry::WallClock { unix_ns: a },
            EntryKind::Entropy => Entry::Entropy(head(&self.first, ENTROPY_BYTES_MAX)),
            EntryKind::Frame => Entry::Frame(head(&self.first, FRAME_BYTES_MAX)),
            EntryKind::Console => Entry::Console(head(&self.first, CONSOLE_BYTES_MAX)),
            EntryKind::Interrupt => Entry::Interrupt { vector: a as u8 },
            EntryKind::Output => {
                Entry::Output { length: up_to(a, FRAME_BYTES_MAX as u64) as u32, digest: b }
            }
            EntryKind::End => {
                Entry::End { natural_exits: a, interrupts: b, memory_digest: c, state_digest: d }
            }
            EntryKind::HandOver => Entry::HandOver,
            EntryKind::DiskCopy => Entry::DiskCopy(self.disk_copy()),
            EntryKind::DiskDone => Entry::DiskDone {
                disk: up_to(a, DISKS_MAX as u64 - 1) as u8,
                number: b.max(1),
                status: if self.flag { DiskStatus::Done } else { DiskStatus::Failed },
                digest: c,
                data: head(&self.first, DISK_BYTES_MAX),
            },
        }
    }

    fn disk_copy(&self) -> DiskCopy<'_> {
        let [a, b, c, d] = self.numbers;
        let disk = up_to(a, DISKS_MAX as u64 - 1) as u8;
        let whole = |unit: usize, most: usize| match head(&self.first, most) {
            short if short.len() < unit => &[7; 512][..unit],
            bytes => &bytes[..bytes.len() / unit * unit],
        };
        match d % 7 {
            0 => {
                let generation = Generation { term: Term(b), owner: Claimant(c) };
                let generation = self.flag.then_some(generation);
                DiskCopy::Have { disk, generation, extents: &[0x81; DISK_EXTENTS_BYTES] }
            }
            1 => {
                let digests = whole(DISK_DIGEST_BYTES, DISK_DIGESTS_MAX * DISK_DIGEST_BYTES);
                let block = up_to(b, DISK_BLOCKS_MAX - DISK_DIGESTS_MAX as u64);
                DiskCopy::Digests { disk, block, digests }
            }
            2 => {
                let block = up_to(b, DISK_BLOCKS_MAX - DISK_DIGESTS_MAX as u64);
                DiskCopy::Wanted { disk, block, blocks: c }
            }
            3 => {
                let sectors = up_to(c, u64::from(u32::MAX) - 1) as u32 + 1;
                let sector = up_to(b, DISK_SECTORS_MAX - u64::from(sectors));
                DiskCopy::Zeros { disk, sector, sectors }
            }
            4 => DiskCopy::Flush { disk, mark: b },
            5 => DiskCopy::Flushed { disk, mark: b },
            _ => {
                let data = whole(512, DISK_COPY_BYTES_MAX);
                let sector = up_to(b, DISK_SECTORS_MAX - data.len() as u64 / 512);
                DiskCopy::Data { disk, sector, data }
            }
        }
    }

    fn page_delta(&self) -> PageDelta<'_> {
        PageDelta::new(&self.delta).expect("a valid delta")
    }

    fn registers(&self) -> RegisterDelta {
        let changed = self.changed & ((1 << REGISTERS) - 1);
        let mut xor = [0; REGISTERS];
        for (index, xor) in xor.iter_mut().enumerate() {
            if changed >> index & 1 != 0 {
                *xor = self.xor[index].max(1);
            }
        }
        RegisterDelta { changed, xor }
    }
}

/// Returns `value` reduced to `0..=max`.
fn up_to(value: u64, max: u64) -> u64 {
    value % (max + 1)
}

fn head(bytes: &[u8], max: usize) -> &[u8] {
    &bytes[..bytes.len().min(max)]
}

impl Rng {
    /// Returns the delta of a page in which up to 200 scattered bytes change.
    pub(crate) fn delta(&mut self) -> Vec<u8> {
        let mut old = [0x5a; PAGE_BYTES];
        let mut new = old;
        for _ in 0..self.below(200) {
            new[self.below(PAGE_BYTES)] = self.next() as u8;
        }
        let mut room = [0; PAGE_BYTES];
        let delta = PageDelta::make(&mut old, &new, &mut room);
        delta.expect("a delta of 200 bytes is shorter than a page").bytes().to_vec()
    }

    /// Returns ingredients with at most `blob_max` bytes in each byte string except the page.
    pub(crate) fn ingredients(&mut self, blob_max: usize) -> Ingredients {
        let kind = EntryKind::ALL[self.below(EntryKind::ALL.len())];
        let first_length = self.below(blob_max + 1);
        let second_length = self.below(blob_max + 1);
        Ingredients {
            kind,
            numbers: core::array::from_fn(|_| self.number()),
            flag: self.next() & 1 != 0,
            changed: self.next() as u32,
            xor: core::array::from_fn(|_| self.number()),
            first: self.bytes(first_length),
            second: self.bytes(second_length),
            delta: self.delta(),
            page: if kind == EntryKind::Page { self.bytes(PAGE_BYTES) } else { Vec::new() },
        }
    }
}
