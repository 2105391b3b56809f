//! Tests of the copy: both sides as pure code with simulated disks, and with the threads of real ones.

use super::buffers::Buffer;
use super::changes::BLOCK_BYTES;
use super::copy::{Contents, CopyAnswer, CopyRequest, CopyResult};
use super::copy_source::CopySource;
use super::copy_target::{CopyTarget, Had};
use super::order::Order;
use super::storage::fault::{Faulty, Plan};
use super::tests::{Client, open, random, with_storage};
use super::*;
use logchan::disk_copy::DiskCopy;
use logchan::entry::Entry;
use logchan::entry_codec;
use logchan::ids::{Claimant, Term};
use logchan::limits::{DISK_COPY_ENTRY_BYTES_MAX, DISK_EXTENTS_BYTES};
use replication::boundary::DiskStatus;
use std::fs;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_128;

const SECTOR: usize = SECTOR_BYTES as usize;

/// Sends `message` over a simulated wire.
fn encoded(message: DiskCopy<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry_codec::encode(&Entry::DiskCopy(message), &mut bytes);
    assert!(bytes.len() <= DISK_COPY_ENTRY_BYTES_MAX);
    bytes
}

fn decoded(bytes: &[u8]) -> DiskCopy<'_> {
    match entry_codec::decode(bytes) {
        Ok((Entry::DiskCopy(message), length)) if length == bytes.len() => message,
        other => panic!("{other:?}"),
    }
}

/// What a simulated disk does at some time.
enum Work {
    Guest(DiskOperation, Range<u64>, u8),
    Copy(CopyRequest),
}

/// A disk that is as slow as its owner likes, and does what may run at the same time in any order.
struct SlowDisk {
    contents: Vec<u8>,
    order: Order,
    slots: Vec<Option<Work>>,
    running: Vec<usize>,
}

impl SlowDisk {
    fn new(contents: Vec<u8>) -> SlowDisk {
        SlowDisk { contents, order: Order::default(), slots: Vec::new(), running: Vec::new() }
    }

    fn submit(&mut self, work: Work) {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let (operation, range) = match &work {
            Work::Guest(operation, range, _) => (*operation, range.clone()),
            Work::Copy(request) => (request.operation, request.range.clone()),
        };
        self.order.push(slot, operation, range);
        self.slots.resize_with(self.slots.len().max(slot + 1), || None);
        self.slots[slot] = Some(work);
    }

    fn is_idle(&self) -> bool {
        self.order.len() == 0
    }

    /// Does one request, any that may run. Returns the answer if it is one of a copy.
    fn step(&mut self, random: &mut fastrand::Rng) -> Option<CopyAnswer> {
        self.running.extend(std::iter::from_fn(|| self.order.start_next()));
        if self.running.is_empty() {
            return None;
        }
        let slot = self.running.swap_remove(random.usize(..self.running.len()));
        self.order.complete(slot);
        match self.slots[slot].take().unwrap() {
            Work::Guest(operation, range, fill) => {
                let range = range.start as usize..range.end as usize;
                match operation {
                    DiskOperation::Write => self.contents[range].fill(fill),
                    DiskOperation::Discard | DiskOperation::WriteZeroes => {
                        self.contents[range].fill(0);
                    }
                    DiskOperation::Read | DiskOperation::Flush => {}
                }
                None
            }
            Work::Copy(CopyRequest { disk, tag, operation, range, mut buffer }) => {
                let range = range.start as usize..range.end as usize;
                let result = match operation {
                    DiskOperation::Read => {
                        buffer = Buffer::new(range.len());
                        buffer.bytes_mut().copy_from_slice(&self.contents[range]);
                        let digest = xxh3_128(buffer.bytes());
                        let contents = Contents::of(buffer.bytes());
                        CopyResult::Read { digest, contents }
                    }
                    DiskOperation::Write => {
                        self.contents[range].copy_from_slice(buffer.bytes());
                        CopyResult::Done
                    }
                    DiskOperation::Discard | DiskOperation::WriteZeroes => {
                        self.contents[range].fill(0);
                        CopyResult::Done
                    }
                    DiskOperation::Flush => CopyResult::Done,
                };
                Some(CopyAnswer { disk, tag, operation, result, buffer })
            }
        }
    }
}

fn random_contents(bytes: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut contents = vec![0; bytes];
    for block in contents.chunks_mut(BLOCK_BYTES as usize) {
        match random.u8(..3) {
            0 => {}
            1 => block.fill(random.u8(..3)),
            _ => block[..SECTOR].fill(random.u8(..)),
        }
    }
    contents
}

/// Copies a disk whose guest writes meanwhile. Returns whether both images are equal at the end.
fn copies_equal(seed: u64, bugs: DiskBugs) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let sectors = random.usize(1..40 * 128);
    let bytes = sectors * SECTOR;
    let mut here = SlowDisk::new(random_contents(bytes, &mut random));
    let mut there = SlowDisk::new(random_contents(bytes, &mut random));
    // After a short absence, the images differ only in blocks that one of the hosts knows.
    let mut differing = BlockSet::new(bytes as u64);
    let is_partial = random.bool();
    if is_partial {
        there.contents.clone_from(&here.contents);
        for _ in 0..3 {
            let block = random.usize(..bytes.div_ceil(BLOCK_BYTES as usize));
            let start = block * BLOCK_BYTES as usize;
            let side = if random.bool() { &mut here } else { &mut there };
            side.contents[start] ^= 1;
            differing.add(block as u64..block as u64 + 1);
        }
    }
    let disk = (bytes as u64, DiskAccess::ReadWrite);
    let mut source = CopySource::new([disk].into_iter(), bugs);
    let had = Had { generation: None, extents: Box::new([0; DISK_EXTENTS_BYTES]) };
    let mut target = CopyTarget::new([(disk.0, disk.1, had)].into_iter());
    let (mut down, mut up) = (VecDeque::new(), VecDeque::new());
    let mut guest_requests = random.usize(..400);
    for step in 0_u32.. {
        assert!(step < 100_000, "seed {seed}: no end");
        match random.u8(..7) {
            0 if guest_requests > 0 => {
                guest_requests -= 1;
                let first = random.usize(..sectors);
                let count = 1 + random.usize(..(sectors - first).min(200));
                let range = (first * SECTOR) as u64..((first + count) * SECTOR) as u64;
                let operation = match random.u8(..8) {
                    0 => DiskOperation::Discard,
                    1 => DiskOperation::Read,
                    _ => DiskOperation::Write,
                };
                if modifies(operation) {
                    source.changed(0, &range);
                }
                here.submit(Work::Guest(operation, range, random.u8(..)));
            }
            1 => {
                if let Some(request) = source.next_request() {
                    here.submit(Work::Copy(request));
                }
            }
            2 => here.step(&mut random).into_iter().for_each(|answer| source.answered(answer)),
            3 => {
                down.extend(source.next_message().map(encoded));
                up.extend(target.next_message().map(encoded));
            }
            4 => {
                if target.takes()
                    && let Some(bytes) = down.pop_front()
                {
                    target.take(&decoded(&bytes), |_, bytes| Buffer::new(bytes)).unwrap();
                }
            }
            5 => {
                if let Some(request) = target.next_request() {
                    there.submit(Work::Copy(request));
                }
                there.step(&mut random).into_iter().for_each(|answer| target.answered(answer));
            }
            _ => match up.pop_front() {
                Some(bytes) => match decoded(&bytes) {
                    DiskCopy::Have { disk, .. } => {
                        source.known(disk, is_partial.then_some(&differing)).unwrap();
                    }
                    DiskCopy::Wanted { disk, block, blocks } => {
                        source.wanted(disk, block, blocks).unwrap();
                    }
                    DiskCopy::Flushed { disk, mark } => source.flushed(disk, mark).unwrap(),
                    other => panic!("{other:?}"),
                },
                None => {
                    let is_quiet = guest_requests == 0 && here.is_idle() && there.is_idle();
                    let (source, target) = (source.state(), target.state());
                    if is_quiet
                        && down.is_empty()
                        && (source, target) == (CopyState::Whole, CopyState::Whole)
                    {
                        break;
                    }
                }
            },
        }
        assert!(source.next_free().is_none_or(|(disk, _)| disk == 0));
        let _ = target.next_free();
    }
    let progress = source.progress();
    assert_eq!(progress.left, 0);
    here.contents == there.contents
}

#[test]
fn copy_beside_random_requests_ends_with_equal_images() {
    let mut random = random();
    for _ in 0..100 {
        let seed = random.u64(..);
        assert!(copies_equal(seed, DiskBugs::default()), "seed {seed}");
    }
}

#[test]
fn bitmap_that_is_cleared_early_is_found() {
    let bugs = DiskBugs::planted(DiskBug::BitmapClearedEarly);
    assert!((0..300).any(|seed| !copies_equal(seed, bugs)));
}

/// Two hosts with an image each.
struct Pair {
    primary: Client,
    backup: Disks,
    /// Messages to the backup that it has no room for yet.
    waiting: VecDeque<Vec<u8>>,
}

impl Pair {
    fn new(primary: Disks, backup: Disks) -> Pair {
        Pair { primary: Client::new(primary), backup, waiting: VecDeque::new() }
    }

    fn begin(&mut self) {
        self.waiting.clear();
        self.backup.begin_receive();
        self.primary.disks.begin_copy();
    }

    /// Carries what is there to be carried.
    fn step(&mut self) {
        while let Some(message) = self.backup.copy_out() {
            let bytes = encoded(message);
            self.primary.disks.copy_in(&decoded(&bytes)).unwrap();
        }
        if self.waiting.len() < 8 {
            self.waiting.extend(self.primary.disks.copy_out().map(encoded));
        }
        while self.backup.copy_takes()
            && let Some(bytes) = self.waiting.pop_front()
        {
            self.backup.copy_in(&decoded(&bytes)).unwrap();
        }
    }

    fn is_idle(&mut self) -> bool {
        let states = [self.primary.disks.copy_state(), self.backup.copy_state()];
        states == [CopyState::Whole; 2] && self.waiting.is_empty()
    }

    /// Ends the copy, as at a closing checkpoint.
    fn close(&mut self, generation: Generation) {
        until(|| {
            self.step();
            self.is_idle()
        });
        self.primary.disks.copy_closed();
        self.backup.end_copy();
        self.backup.base = Some(generation);
        self.primary.disks.peer_in_sync(generation);
    }
}

pub(super) fn until(mut is_done: impl FnMut() -> bool) {
    while !is_done() {
        std::thread::sleep(Duration::from_micros(50));
    }
}

const GENERATION: Generation = Generation { term: Term(3), owner: Claimant(7) };

/// Makes random writes and discards while `pair` copies.
fn write_and_copy(pair: &mut Pair, sectors: usize, random: &mut fastrand::Rng) {
    let mut numbers = VecDeque::new();
    for _ in 0..1000 {
        let first = random.usize(..sectors);
        let count = 1 + random.usize(..(sectors - first).min(100));
        let data = vec![random.u8(..4); count * SECTOR];
        let (operation, data) = match random.u8(..8) {
            0 => (DiskOperation::Discard, &[][..]),
            _ => (DiskOperation::Write, &data[..]),
        };
        numbers.push_back(pair.primary.begin(operation, first as u64, count * SECTOR, data));
        pair.step();
        if numbers.len() > random.usize(..DISK_REQUESTS_MAX) {
            assert_eq!(pair.primary.end(numbers.pop_front().unwrap()).0, DiskStatus::Done);
        }
    }
    for number in numbers {
        assert_eq!(pair.primary.end(number).0, DiskStatus::Done);
    }
}

fn two_images(sectors: usize, random: &mut fastrand::Rng) -> (TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["primary", "backup"].map(|name| folder.path().join(name));
    for path in &paths {
        fs::write(path, random_contents(sectors * SECTOR, random)).unwrap();
    }
    (folder, paths)
}

#[test]
fn disks_that_are_copied_beside_writes_are_equal() {
    let mut random = random();
    let sectors = 40 * 128 + 17;
    let (_folder, paths) = two_images(sectors, &mut random);
    let [primary, backup] = [&paths[0], &paths[1]].map(|path| open(path, Writes::InPlace));
    let mut pair = Pair::new(primary, backup);
    pair.begin();
    write_and_copy(&mut pair, sectors, &mut random);
    pair.close(GENERATION);
    assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());

    // After a short absence, only what has changed is looked at.
    assert_eq!(pair.primary.write(5 * 128, &[9; 4096]), DiskStatus::Done);
    pair.begin();
    until(|| {
        pair.step();
        pair.is_idle()
    });
    let progress = pair.primary.disks.copy_progress().unwrap();
    assert_eq!((progress.sent, progress.equal, progress.zero), (1, 0, 0), "{progress:?}");
    pair.close(GENERATION);
    assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());

    // A backup with another past gets everything that differs.
    pair.backup.base = Some(Generation { term: Term(2), ..GENERATION });
    pair.begin();
    until(|| {
        pair.step();
        pair.is_idle()
    });
    let progress = pair.primary.disks.copy_progress().unwrap();
    assert_eq!((progress.sent, progress.equal + progress.zero), (0, 41), "{progress:?}");
}

#[test]
fn copy_that_is_given_up_begins_again() {
    let mut random = random();
    let sectors = 40 * 128;
    let (_folder, paths) = two_images(sectors, &mut random);
    let [primary, backup] = [&paths[0], &paths[1]].map(|path| open(path, Writes::InPlace));
    let mut pair = Pair::new(primary, backup);
    for _ in 0..20 {
        pair.begin();
        for _ in 0..random.usize(..200) {
            pair.step();
        }
    }
    pair.begin();
    write_and_copy(&mut pair, sectors, &mut random);
    pair.close(GENERATION);
    assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn raw_and_qcow2_images_are_copied_to_each_other() {
    let mut random = random();
    let sectors = 20 * 128 + 17;
    let (folder, paths) = two_images(sectors, &mut random);
    let qcow2 = folder.path().join("disk.qcow2");
    let mut made = std::process::Command::new("qemu-img");
    made.args(["create", "-q", "-f", "qcow2"]).arg(&qcow2).arg((sectors * SECTOR).to_string());
    assert!(made.status().unwrap().success());
    for [from, to] in [[&paths[0], &qcow2], [&qcow2, &paths[1]]] {
        let [primary, backup] = [from, to].map(|path| open(path, Writes::InPlace));
        let mut pair = Pair::new(primary, backup);
        pair.begin();
        write_and_copy(&mut pair, sectors, &mut random);
        pair.close(GENERATION);
        drop(pair);
        let digest = |path| open(path, Writes::InPlace).digest(0).unwrap();
        assert_eq!(digest(from), digest(to));
    }
}

/// A pair whose images are behind storages with faults: those of the primary's and of the backup's.
fn faulty_pair() -> (Pair, [Arc<Mutex<Plan>>; 2], TempDir, [PathBuf; 2]) {
    let mut random = random();
    let (folder, paths) = two_images(20 * 128, &mut random);
    let mut plans = Vec::new();
    let disks = paths.each_ref().map(|path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).unwrap();
        let (storage, plan) =
            Faulty::new(FileStorage::new(image::open(&copy, Use::Write).unwrap()));
        plans.push(plan);
        with_storage(Box::new(storage), path)
    });
    let [primary, backup] = disks;
    let paths = paths.map(|path| path.with_extension("copy"));
    (Pair::new(primary, backup), plans.try_into().unwrap(), folder, paths)
}

#[test]
fn slow_disks_are_copied_and_delay_no_guest() {
    let (mut pair, plans, _folder, paths) = faulty_pair();
    for plan in &plans {
        plan.lock().unwrap().delay = Duration::from_millis(1);
    }
    pair.begin();
    pair.step();
    assert!(!pair.is_idle());
    assert_eq!(pair.primary.write(7, &[3; 4096]), DiskStatus::Done);
    pair.close(GENERATION);
    assert_eq!(pair.primary.flush(), DiskStatus::Done);
    assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());
}

#[test]
fn error_of_either_side_ends_the_copy_and_nothing_else() {
    for side in 0..2 {
        let (mut pair, plans, _folder, _paths) = faulty_pair();
        let mut plan = plans[side].lock().unwrap();
        match side {
            0 => plan.read_error = Some(libc::EIO),
            _ => plan.write_error = Some(libc::EIO),
        }
        drop(plan);
        pair.begin();
        let mut fault = None;
        until(|| {
            pair.step();
            let states = [pair.primary.disks.copy_state(), pair.backup.copy_state()];
            fault = states.into_iter().find_map(|state| match state {
                CopyState::Failed(fault) => Some(fault),
                CopyState::None | CopyState::Running | CopyState::Whole => None,
            });
            fault.is_some()
        });
        let text = fault.unwrap().to_string();
        assert!(text.starts_with("disk 0: "), "{text}");
        pair.primary.disks.end_copy();
        assert_eq!(pair.primary.write(0, &[1; 512]), DiskStatus::Done, "the guest goes on");
        assert_eq!(pair.primary.disks.failed(0), 0);
    }
}

#[test]
fn flush_that_fails_on_either_host_is_a_fault() {
    for side in 0..2 {
        let (mut pair, plans, _folder, _paths) = faulty_pair();
        plans[side].lock().unwrap().flush_error = Some(libc::EIO);
        pair.begin();
        until(|| {
            pair.step();
            let states = [pair.primary.disks.copy_state(), pair.backup.copy_state()];
            matches!(states[side], CopyState::Failed(_))
        });
        pair.step();
        assert_ne!(pair.primary.disks.copy_state(), CopyState::Whole, "it is not durable");
    }
}

#[test]
fn read_only_disk_is_compared_and_not_written() {
    let mut random = random();
    let (_folder, paths) = two_images(20 * 128, &mut random);
    let open = |path: &Path| {
        let access = DiskAccess::ReadOnly;
        let options = [DiskOptions { access, ..DiskOptions::new(path) }];
        Disks::open(&options, Writes::InPlace, Kick::default()).unwrap()
    };
    fs::copy(&paths[0], &paths[1]).unwrap();
    let mut pair = Pair::new(open(&paths[0]), open(&paths[1]));
    pair.begin();
    pair.close(GENERATION);
    drop(pair);
    let mut other = fs::read(&paths[1]).unwrap();
    other[9 * BLOCK_BYTES as usize + 5] ^= 1;
    fs::write(&paths[1], &other).unwrap();
    let mut pair = Pair::new(open(&paths[0]), open(&paths[1]));
    pair.begin();
    until(|| {
        pair.step();
        let fault = CopyFault::ReadOnlyDiffers { disk: 0, offset: 9 * BLOCK_BYTES };
        pair.backup.copy_state() == CopyState::Failed(fault)
    });
    drop(pair);
    assert!(fs::read(&paths[1]).unwrap() == other);
}

#[test]
fn message_that_is_not_expected_is_refused_and_changes_nothing() {
    let mut random = random();
    let (_folder, paths) = two_images(128, &mut random);
    let [primary, backup] = [&paths[0], &paths[1]].map(|path| open(path, Writes::InPlace));
    let mut pair = Pair::new(primary, backup);
    pair.begin();
    let before = fs::read(&paths[1]).unwrap();
    for message in [
        DiskCopy::Data { disk: 0, sector: 128, data: &[1; 512] },
        DiskCopy::Data { disk: 1, sector: 0, data: &[1; 512] },
        DiskCopy::Zeros { disk: 0, sector: 127, sectors: 2 },
        DiskCopy::Digests { disk: 0, block: 1, digests: &[1; 16] },
        DiskCopy::Wanted { disk: 0, block: 0, blocks: 1 },
        DiskCopy::Flushed { disk: 0, mark: 0 },
    ] {
        assert!(pair.backup.copy_in(&message).is_err(), "{message:?}");
    }
    let extents = &[0; DISK_EXTENTS_BYTES];
    for message in [
        DiskCopy::Have { disk: 1, generation: None, extents },
        DiskCopy::Wanted { disk: 0, block: 0, blocks: 1 },
        DiskCopy::Data { disk: 0, sector: 0, data: &[1; 512] },
        DiskCopy::Flush { disk: 0, mark: 0 },
        DiskCopy::Flushed { disk: 0, mark: 0 },
    ] {
        assert!(pair.primary.disks.copy_in(&message).is_err(), "{message:?}");
    }
    drop(pair);
    assert!(fs::read(&paths[1]).unwrap() == before);
}
