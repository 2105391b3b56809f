//! Tests of whole disks: their threads, against a model.

use super::storage::fault::{Faulty, Plan};
use super::*;
use crate::kvm::kick::KICK_SIGNAL;
use nix::sys::signal::SigSet;
use replication::boundary::DiskStatus;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

const SECTOR: usize = SECTOR_BYTES as usize;

/// A folder with an image of random contents.
pub(super) fn image(sectors: usize, random: &mut fastrand::Rng) -> (TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let mut contents = vec![0; sectors * SECTOR];
    random.fill(&mut contents);
    fs::write(&path, &contents).unwrap();
    (folder, path, contents)
}

pub(super) fn open(path: &Path, writes: Writes) -> Disks {
    Disks::open(&[DiskOptions::new(path)], writes, Kick::default()).unwrap()
}

/// A disk with the contents `storage`, as [`Disks::open`] makes one.
pub(super) fn with_storage(storage: Box<dyn Storage>, path: &Path) -> Disks {
    let mut disks = open(path, Writes::Overlay);
    let (completed_sender, completed) = channel::bounded(DISK_REQUESTS_MAX);
    let (copied_sender, copied) = channel::bounded(DISK_SLOTS_MAX);
    let (sender, requests) = channel::bounded(DISK_SLOTS_MAX + DISK_KEEPS_MAX);
    let faults = Faults::new("disk".into(), Arc::clone(&disks.disks[0].failed));
    let reporter = Reporter::new(0, (completed_sender, copied_sender), Kick::default());
    disks.completed = completed;
    disks.copied = copied;
    disks.disks[0].requests = Some(sender);
    let channel = Channel { requests, faults, reporter, keeper: None };
    let old = disks.disks[0].thread.replace(start(storage, channel).unwrap());
    old.unwrap().join().unwrap();
    disks
}

/// A client of disk 0 that numbers its requests.
pub(super) struct Client {
    pub(super) disks: Disks,
    next: u64,
}

impl Client {
    pub(super) fn new(disks: Disks) -> Client {
        Client { disks, next: 1 }
    }

    pub(super) fn begin(
        &mut self,
        operation: DiskOperation,
        sector: u64,
        bytes: usize,
        data: &[u8],
    ) -> u64 {
        let (disk, number, bytes) = (0, self.next, bytes as u32);
        self.next += 1;
        self.disks.submit(&DiskRequest { disk, number, operation, sector, bytes, data });
        number
    }

    pub(super) fn end(&mut self, number: u64) -> (DiskStatus, Vec<u8>) {
        let completion = self.disks.wait_for(0, number).unwrap();
        (completion.status, completion.data.to_vec())
    }

    pub(super) fn read(&mut self, sector: u64, bytes: usize) -> (DiskStatus, Vec<u8>) {
        let number = self.begin(DiskOperation::Read, sector, bytes, &[]);
        self.end(number)
    }

    pub(super) fn write(&mut self, sector: u64, data: &[u8]) -> DiskStatus {
        let number = self.begin(DiskOperation::Write, sector, data.len(), data);
        self.end(number).0
    }

    pub(super) fn flush(&mut self) -> DiskStatus {
        let number = self.begin(DiskOperation::Flush, 0, 0, &[]);
        self.end(number).0
    }
}

/// Makes random requests, up to the limit in flight, and compares every read with `model`, which it changes in the
/// order of the requests' numbers.
pub(super) fn random_requests(client: &mut Client, model: &mut [u8], random: &mut fastrand::Rng) {
    use DiskOperation::{Discard, Flush, Read, Write, WriteZeroes};
    let sectors = model.len() / SECTOR;
    let mut expected = BTreeMap::new();
    for _ in 0..2000 {
        let operation = match random.u8(..40) {
            0..16 => Read,
            16..32 => Write,
            32..35 => Discard,
            35..38 => WriteZeroes,
            _ => Flush,
        };
        let first = random.usize(..sectors);
        let mut count = 1 + random.usize(..(sectors - first).min(100));
        // Half of the requests are of whole blocks, as a file system makes them.
        let aligned = random.bool();
        let first = if aligned { first / 8 * 8 } else { first };
        count = if aligned { (count.div_ceil(8) * 8).min(sectors - first) } else { count };
        let range = first * SECTOR..(first + count) * SECTOR;
        let mut data = Vec::new();
        let mut read = Vec::new();
        match operation {
            Read => read = model[range.clone()].to_vec(),
            Write => {
                data.resize(range.len(), 0);
                random.fill(&mut data);
                model[range.clone()].copy_from_slice(&data);
            }
            Discard | WriteZeroes => model[range.clone()].fill(0),
            Flush => {}
        }
        let (sector, bytes) = if operation == Flush { (0, 0) } else { (first, range.len()) };
        let number = client.begin(operation, sector as u64, bytes, &data);
        expected.insert(number, read);
        let keep = if random.u8(..) < 3 { 0 } else { random.usize(1..DISK_REQUESTS_MAX) };
        while expected.len() > keep {
            if random.u8(..) < 16 {
                let &number = expected.keys().nth(random.usize(..expected.len())).unwrap();
                let (status, data) = client.end(number);
                assert_eq!(status, DiskStatus::Done);
                assert!(expected.remove(&number).unwrap() == data, "request {number}");
            } else if let Some(completion) = client.disks.next_completion() {
                assert_eq!(completion.status, DiskStatus::Done);
                let read = expected.remove(&completion.number).unwrap();
                assert!(read == completion.data, "request {}", completion.number);
            }
        }
    }
    for (number, read) in expected {
        assert!(client.end(number).1 == read, "request {number}");
    }
    assert!(client.disks.next_completion().is_none() && client.disks.wait_for(0, 1).is_none());
}

/// A generator with a random seed, which is printed, or that of `UNDERSTUDY_SEED`.
pub(super) fn random() -> fastrand::Rng {
    let seed = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("UNDERSTUDY_SEED={seed} cargo test -p vmm --lib disk::");
    fastrand::Rng::with_seed(seed)
}

#[test]
fn random_requests_to_an_image_act_as_in_the_order_of_their_numbers() {
    let mut random = random();
    let (_folder, path, mut model) = image(999, &mut random);
    let mut client = Client::new(open(&path, Writes::InPlace));
    assert!(client.disks.disks[0].wake.is_some(), "through an io_uring");
    random_requests(&mut client, &mut model, &mut random);
    drop(client);
    assert!(fs::read(&path).unwrap() == model);
    // The lock has ended.
    drop(open(&path, Writes::InPlace));
}

#[test]
fn random_requests_without_a_ring_act_as_in_the_order_of_their_numbers() {
    let mut random = random();
    let (_folder, path, mut model) = image(999, &mut random);
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let storage = Box::new(FileStorage::new(image::open(&copy, Use::Write).unwrap()));
    let mut client = Client::new(with_storage(storage, &path));
    random_requests(&mut client, &mut model, &mut random);
    drop(client);
    assert!(fs::read(&copy).unwrap() == model);
}

#[test]
fn random_requests_to_an_overlay_leave_the_image_as_it_is() {
    let mut random = random();
    let (folder, path, original) = image(999, &mut random);
    let mut model = original.clone();
    let mut client = Client::new(open(&path, Writes::Overlay));
    // Others may read the image at the same time.
    let mut other = Client::new(open(&path, Writes::Overlay));
    random_requests(&mut client, &mut model, &mut random);
    assert!(other.read(0, 4096).1 == original[..4096]);
    drop(client);
    assert!(fs::read(&path).unwrap() == original);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the private file has no name");
}

#[test]
fn digest_is_of_the_contents_and_not_of_the_holes() {
    let folder = tempfile::tempdir().unwrap();
    let [sparse, full] = ["sparse", "full"].map(|name| folder.path().join(name));
    let mut contents = vec![0; (5 << 20) + 512];
    contents[2_500_000] = 1;
    contents[5 << 20] = 2;
    fs::write(&full, &contents).unwrap();
    let file = File::create(&sparse).unwrap();
    file.set_len(contents.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 2_500_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2], 5 << 20).unwrap();
    let digest = |path: &Path, writes| open(path, writes).digest(0).unwrap();
    let expected = digest(&full, Writes::Overlay);
    for writes in [Writes::InPlace, Writes::Overlay] {
        assert_eq!((digest(&sparse, writes), digest(&full, writes)), (expected, expected));
    }
    contents[0] = 1;
    fs::write(&full, &contents).unwrap();
    assert_ne!(digest(&full, Writes::InPlace), expected);
    file.set_len(6 << 20).unwrap();
    assert_ne!(digest(&sparse, Writes::InPlace), expected, "the size counts");
}

#[test]
fn image_that_becomes_shorter_fails_every_request() {
    let mut random = random();
    for operation in [DiskOperation::Read, DiskOperation::Write, DiskOperation::Flush] {
        let (_folder, path, contents) = image(64, &mut random);
        let mut client = Client::new(open(&path, Writes::InPlace));
        assert!(
            client.read(32, 4096) == (DiskStatus::Done, contents[32 * SECTOR..][..4096].to_vec())
        );
        File::options().write(true).open(&path).unwrap().set_len(16 * SECTOR as u64).unwrap();
        let status = match operation {
            DiskOperation::Read => client.read(10, 4096).0,
            DiskOperation::Write => client.write(32, &[1; 4096]),
            _ => client.flush(),
        };
        assert_eq!(status, DiskStatus::Failed, "{operation:?}");
        assert_eq!(client.read(0, 512), (DiskStatus::Failed, Vec::new()), "also before its end");
        assert_eq!(client.write(0, &[1; 512]), DiskStatus::Failed);
        assert_eq!(client.disks.failed(0), 3);
        drop(client);
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            16 * SECTOR as u64,
            "no write made it longer"
        );
    }
}

/// Returns whether a kick of this thread is pending.
fn has_kick() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:")).unwrap();
    u64::from_str_radix(pending.trim(), 16).unwrap() >> (KICK_SIGNAL as i32 - 1) & 1 == 1
}

#[test]
fn thread_that_says_when_it_waits_is_kicked_only_then() {
    let (_folder, path, _) = image(64, &mut fastrand::Rng::with_seed(1));
    let mut kicks = SigSet::empty();
    kicks.add(KICK_SIGNAL);
    kicks.thread_block().unwrap();
    for writes in [Writes::InPlace, Writes::Overlay] {
        let kick = Kick::default();
        let open = || Disks::open(&[DiskOptions::new(&path)], writes, kick.clone()).unwrap();
        kick.attend();
        drop(kick.waiting());
        let mut client = Client::new(open());
        client.read(0, 512);
        // The threads have ended when this returns.
        drop(client);
        assert!(!has_kick());
        let mut client = Client::new(open());
        let waiting = kick.waiting();
        client.begin(DiskOperation::Read, 0, 512, &[]);
        assert_eq!(kicks.wait().unwrap(), KICK_SIGNAL);
        assert!(client.disks.has_completion());
        drop(waiting);
    }
}

#[test]
fn completion_kicks_the_thread_that_attends() {
    let (_folder, path, _) = image(64, &mut fastrand::Rng::with_seed(1));
    let mut kicks = SigSet::empty();
    kicks.add(KICK_SIGNAL);
    kicks.thread_block().unwrap();
    for writes in [Writes::InPlace, Writes::Overlay] {
        let mut client = Client::new(open(&path, writes));
        client.disks.kick().attend();
        let number = client.begin(DiskOperation::Read, 0, 512, &[]);
        assert_eq!(kicks.wait().unwrap(), KICK_SIGNAL);
        assert!(client.disks.has_completion(), "the kick comes after the completion");
        assert_eq!(client.end(number).0, DiskStatus::Done);
    }
}

#[test]
fn disks_that_are_dropped_finish_what_is_in_flight() {
    let (_folder, path, _) = image(64, &mut fastrand::Rng::with_seed(1));
    let mut client = Client::new(open(&path, Writes::InPlace));
    for sector in 0..DISK_REQUESTS_MAX as u64 {
        client.begin(DiskOperation::Write, sector, SECTOR, &[sector as u8; SECTOR]);
    }
    drop(client);
    let contents = fs::read(&path).unwrap();
    assert!(
        contents.chunks(SECTOR).enumerate().all(|(sector, data)| data == [sector as u8; SECTOR])
    );
}

#[test]
fn wrong_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let refused = |options: &[DiskOptions]| {
        Disks::open(options, Writes::InPlace, Kick::default()).unwrap_err().to_string()
    };
    let one = [DiskOptions::new(&path)];
    assert!(refused(&one).ends_with("does not exist"));
    fs::write(&path, [0; 700]).unwrap();
    assert!(refused(&one).contains("700 bytes"));
    fs::write(&path, [b"QFI\xfb".to_vec(), vec![0; 1020]].concat()).unwrap();
    assert!(refused(&one).contains("format=raw"));
    let raw = DiskOptions { format: Some(ImageFormat::Raw), ..DiskOptions::new(&path) };
    let twice = refused(&[raw.clone(), raw.clone()]);
    assert!(twice.contains(&format!("process {}", std::process::id())), "{twice}");
    drop(Disks::open(&[raw], Writes::InPlace, Kick::default()).unwrap());
    let many = DiskOptions { access: DiskAccess::ReadOnly, ..one[0].clone() };
    fs::write(&path, [0; 512]).unwrap();
    assert!(refused(&vec![many; DISKS_MAX + 1]).contains("at most 4"));
}

/// A client of a disk with faults, and the image below.
fn faulty() -> (Client, Arc<Mutex<Plan>>, TempDir, PathBuf) {
    let (folder, path, _) = image(64, &mut fastrand::Rng::with_seed(1));
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let (storage, plan) = Faulty::new(FileStorage::new(image::open(&copy, Use::Write).unwrap()));
    (Client::new(with_storage(Box::new(storage), &path)), plan, folder, copy)
}

#[test]
fn error_of_the_host_fails_its_request_alone() {
    let (mut client, plan, _folder, _path) = faulty();
    plan.lock().unwrap().write_error = Some(libc::ENOSPC);
    assert_eq!(client.write(0, &[1; 512]), DiskStatus::Failed);
    assert_eq!(client.read(0, 512).0, DiskStatus::Done);
    plan.lock().unwrap().write_error = None;
    plan.lock().unwrap().read_error = Some(libc::EIO);
    assert_eq!(client.write(0, &[2; 512]), DiskStatus::Done);
    assert_eq!(client.read(0, 512), (DiskStatus::Failed, Vec::new()));
    plan.lock().unwrap().read_error = None;
    assert_eq!(client.read(0, 512), (DiskStatus::Done, vec![2; 512]));
    assert_eq!(client.disks.failed(0), 2);
}

#[test]
fn flush_that_failed_fails_from_then_on() {
    let (mut client, plan, _folder, _path) = faulty();
    assert_eq!(client.write(0, &[1; 512]), DiskStatus::Done);
    plan.lock().unwrap().flush_error = Some(libc::EIO);
    assert_eq!(client.flush(), DiskStatus::Failed);
    plan.lock().unwrap().flush_error = None;
    assert_eq!(client.flush(), DiskStatus::Failed, "what was lost does not come back");
    assert_eq!(client.read(0, 512), (DiskStatus::Done, vec![1; 512]));
}

#[test]
fn flushed_write_survives_a_power_cut_and_others_may_not() {
    let (mut client, plan, _folder, path) = faulty();
    assert_eq!(client.write(0, &[1; 512]), DiskStatus::Done);
    assert_eq!(client.flush(), DiskStatus::Done);
    assert_eq!(client.write(1, &[2; 512]), DiskStatus::Done);
    // The thread's flush at the end is lost, too.
    plan.lock().unwrap().flush_error = Some(libc::EIO);
    drop(client);
    let contents = fs::read(path).unwrap();
    assert_eq!(contents[..512], [1; 512]);
    assert_ne!(contents[512..1024], [2; 512]);
}

#[test]
fn slow_disk_delays_nobody_who_does_not_wait_for_it() {
    let (mut client, plan, _folder, _path) = faulty();
    plan.lock().unwrap().delay = Duration::from_millis(20);
    let number = client.begin(DiskOperation::Write, 0, 512, &[1; 512]);
    assert!(!client.disks.has_completion());
    assert!(client.disks.next_completion().is_none());
    assert_eq!(client.end(number).0, DiskStatus::Done);
}
