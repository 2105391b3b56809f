//! Mirrored disks: an image on each host, a chain of writes, and hosts that are killed while they append to it.
//!
//! `PAIR_KILLS=50`, `PAIR_POWER_LOSSES=20` and `PAIR_ABSENCE_S=60` make the tests longer.

use crate::kills::variable;
use nix::sys::signal::Signal;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::pair::{Host, PairEvent, Part};
use testbed::{TAP, TestbedError, VmProcess};
use tests::chain::{Client, append, chain, try_append};
use tests::pair::{Process, Rig};
use tests::patience::wait_until;
use tests::program::understudy;
use tests::wait_for;

/// Bytes of an image: the last block of 64 KiB is not whole.
const IMAGE_BYTES: usize = (4 << 20) + 512;
/// Exit code.
const DISK: i32 = 18;

/// Replaces a file by what is on the disk of this host, whatever its page cache has.
pub(crate) fn read_from_disk(path: &Path) {
    let copy = path.with_extension("copy");
    let (from, to) = (format!("if={}", path.display()), format!("of={}", copy.display()));
    let arguments = ["iflag=direct", "bs=1M", "conv=sparse", "status=none", &from, &to];
    assert!(Command::new("dd").args(arguments).status().unwrap().success(), "{}", path.display());
    let owner = std::fs::metadata(path).unwrap();
    std::os::unix::fs::chown(&copy, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::set_permissions(&copy, owner.permissions()).unwrap();
    std::fs::rename(&copy, path).unwrap();
}

/// An image on each host.
struct Images([PathBuf; 2]);

impl Images {
    /// Makes them, with a byte for each block of 64 KiB.
    fn new(rig: &Rig, contents: impl Fn(Host, usize) -> u8) -> Images {
        Images(Host::ALL.map(|host| {
            let image = rig.path(&format!("disk-{host}.img"));
            let bytes = (0..IMAGE_BYTES).map(|at| contents(host, at >> 16));
            std::fs::write(&image, bytes.collect::<Vec<_>>()).unwrap();
            image
        }))
    }

    fn of(&self, host: Host) -> &str {
        self.0[host.index()].to_str().unwrap()
    }

    fn start(&self, rig: &Rig, part: Part, host: Host) -> Process {
        self.start_with(rig, (part, host), &[])
    }

    fn start_with(&self, rig: &Rig, (part, host): (Part, Host), options: &[&str]) -> Process {
        rig.start(part, host, &[&["--disk", self.of(host)], options].concat())
    }

    /// Replaces images and superblocks by what is on the disk of this host, whatever its page cache has.
    fn read_from_disk(&self) {
        for image in &self.0 {
            let superblock = PathBuf::from(format!("{}.understudy", image.display()));
            read_from_disk(image);
            read_from_disk(&superblock);
        }
    }

    /// Checks that both have the same contents.
    fn check_equal(&self) {
        let [a, b] = self.0.each_ref().map(|path| std::fs::read(path).unwrap());
        let differ = |(block, (a, b)): (usize, (&[u8], &[u8]))| (a != b).then_some(block);
        let blocks = a.chunks(1 << 16).zip(b.chunks(1 << 16)).enumerate();
        assert_eq!(blocks.filter_map(differ).collect::<Vec<_>>(), [0; 0], "blocks that differ");
        assert_eq!(a.len(), b.len());
    }
}

fn connect(rig: &Rig) -> Client {
    let client = rig.scene.network.client();
    client.enter(|| Ok::<_, TestbedError>(Client::connect())).unwrap()
}

/// Appends to a chain while `work` runs, and until it has. Returns what the chain has then.
fn appending(client: &mut Client, (links, hash): (u64, u64), work: impl FnOnce()) -> (u64, u64) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appends = scope.spawn(|| {
            let (mut links, mut hash) = (links, hash);
            while !is_over.load(Ordering::Relaxed) {
                hash = append(client, links, hash, 1);
                links += 1;
            }
            (links, hash)
        });
        work();
        is_over.store(true, Ordering::Relaxed);
        appends.join().unwrap()
    })
}

/// Appends to a chain while `work` runs, which ends the VM. Returns what was acknowledged.
fn appending_until(
    client: &mut Client,
    (links, hash): (u64, u64),
    work: impl FnOnce(),
) -> (u64, u64) {
    let connection = client.connection();
    std::thread::scope(|scope| {
        let appends = scope.spawn(|| {
            let (mut links, mut hash) = (links, hash);
            while let Some(next) = try_append(client, links, hash) {
                (links, hash) = (links + 1, next);
            }
            (links, hash)
        });
        work();
        // Nobody answers any more, and nobody says so.
        connection.shutdown(Shutdown::Both).unwrap();
        appends.join().unwrap()
    })
}

/// Waits until the log of `primary` was executed but for the last ticks of its timer, and what is known about the disks is
/// stored.
fn settle(primary: &Process) {
    const TICKS_BYTES: f64 = 500.0;
    wait_until("an executed log", || {
        primary.figure("lag_bytes") < TICKS_BYTES
            && primary.status()["disks"]["superblocks"] == "stored"
    });
}

#[test]
fn chain_on_disks_of_a_pair_survives_kills_of_the_primary() {
    let rig = Rig::default();
    // Some blocks are equal, some are zeros at host A only.
    let images = Images::new(&rig, |host, block| (block * host.index() % 3) as u8);
    let mut host = Host::A;
    let mut primary = images.start(&rig, Part::Primary, host);
    wait_for!(primary, PairEvent::TermWon);
    let mut client = connect(&rig);
    let mut links = (0, 0);
    for kill in 0..variable("PAIR_KILLS", 3) {
        let mut backup = images.start(&rig, Part::Backup, host.other());
        links = appending(&mut client, links, || {
            wait_for!(primary, PairEvent::Protected);
            wait_for!(backup, PairEvent::Following);
            std::thread::sleep(Duration::from_millis(100 + 70 * (kill % 4)));
            primary.signal(Signal::SIGKILL);
            assert_eq!(primary.end().code, None);
            wait_for!(backup, PairEvent::WentLive);
        });
        assert_eq!(chain(&mut client), links);
        // The dead primary's image is not the newest any more.
        let mut stale = images.start(&rig, Part::Primary, host);
        stale.end().failure(DISK, &format!("{}: is outdated", images.of(host)));
        (primary, host) = (backup, host.other());
    }
    let mut backup = images.start(&rig, Part::Backup, host.other());
    wait_for!(primary, PairEvent::Protected);
    links.1 = append(&mut client, links.0, links.1, 5);
    links.0 += 5;
    println!("{} links", links.0);
    assert!(primary.status()["disks"]["copy_fault"].is_null());
    settle(&primary);
    drop(client);
    primary.order("stop");
    for process in [&mut primary, &mut backup] {
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
    images.check_equal();
    let mut other = images.start(&rig, Part::Primary, host.other());
    other.end().failure(DISK, "is outdated");
    let mut again = images.start(&rig, Part::Primary, host);
    wait_for!(again, PairEvent::TermWon);
    assert_eq!(chain(&mut connect(&rig)), links);
}

/// Returns what the copy to `primary`'s new backup took: bytes of all disks, sent, zero, and those the backup had.
fn copied(primary: &mut Process) -> [u64; 4] {
    wait_for!(primary, PairEvent::Protected);
    let copied = wait_for!(primary, PairEvent::DisksCopied { .. });
    let PairEvent::DisksCopied { size, sent, zero, equal } = copied.event else { unreachable!() };
    [size, sent, zero, equal]
}

#[test]
fn backup_that_comes_back_gets_what_was_written_meanwhile_and_all_is_compared_without_its_superblock()
 {
    const BLOCK: u64 = 1 << 16;
    /// Blocks that are zero at first; the others have the same contents on both hosts.
    const ZEROS: u64 = 10;
    let rig = Rig::default();
    let images = Images::new(&rig, |_, block| u8::from(block as u64 >= ZEROS));
    let size = IMAGE_BYTES.div_ceil(1 << 16) as u64;
    let mut primary = images.start(&rig, Part::Primary, Host::A);
    wait_for!(primary, PairEvent::TermWon);
    let mut client = connect(&rig);
    let mut links = (0, 0);
    let mut append_links = |count| {
        links.1 = append(&mut client, links.0, links.1, count);
        links.0 += count;
        links.0
    };
    append_links(5);
    let backup = images.start(&rig, Part::Backup, Host::B);
    let [all, sent, zero, equal] = copied(&mut primary).map(|bytes| bytes / BLOCK);
    assert_eq!([all, sent, zero, equal], [size, 1, ZEROS - 1, size - ZEROS]);
    backup.signal(Signal::SIGKILL);
    wait_for!(primary, PairEvent::TermWon);
    let mut count = append_links(200);
    let (away, absence) = (Instant::now(), Duration::from_secs(variable("PAIR_ABSENCE_S", 0)));
    while away.elapsed() < absence {
        count = append_links(1);
    }
    // The first block says how many links there are; a link has a sector.
    let written = count * 512 / BLOCK + 1;
    let mut backup = images.start(&rig, Part::Backup, Host::B);
    let [all, sent, zero, equal] = copied(&mut primary);
    println!("away for {:?}: {all} bytes, {sent} sent", away.elapsed());
    assert_eq!([all, sent, zero, equal], [size * BLOCK, written * BLOCK, 0, 0]);
    backup.signal(Signal::SIGKILL);
    backup.end();
    wait_for!(primary, PairEvent::TermWon);
    let last = append_links(1) * 512 / BLOCK;
    std::fs::remove_file(format!("{}.understudy", images.of(Host::B))).unwrap();
    let mut backup = images.start(&rig, Part::Backup, Host::B);
    let [all, sent, zero, equal] = copied(&mut primary);
    println!("without the superblock: {all} bytes, {sent} sent, {zero} zero, {equal} equal");
    let (changed, zeros) = (1 + u64::from(last > 0), ZEROS.saturating_sub(last + 1));
    let expected = [size, changed, zeros, size - changed - zeros].map(|blocks| blocks * BLOCK);
    assert_eq!([all, sent, zero, equal], expected);
    settle(&primary);
    drop(client);
    primary.order("stop");
    for process in [&mut primary, &mut backup] {
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
    images.check_equal();
}

/// Both hosts lose power at a random moment of appends. What is left is read from the disks past the page cache.
#[test]
fn double_power_loss_leaves_what_was_acknowledged_and_a_stale_image_is_refused() {
    let losses = variable("PAIR_POWER_LOSSES", 4);
    let rig = Rig::default();
    let images = Images::new(&rig, |_, _| 0);
    let (mut host, mut acknowledged) = (Host::A, (0, 0));
    for loss in 0..losses {
        let boot: &[&str] = if loss == 0 { &[] } else { &["--boot-again"] };
        let mut primary = images.start_with(&rig, (Part::Primary, host), boot);
        wait_for!(primary, PairEvent::TermWon);
        let mut client = connect(&rig);
        let found = chain(&mut client);
        // The link that nobody has acknowledged may be there.
        let may_be = [acknowledged.0, acknowledged.0 + 1];
        assert!(may_be.contains(&found.0), "{found:?}, acknowledged {acknowledged:?}");
        assert!(found.0 > acknowledged.0 || found == acknowledged);
        let mut backup = images.start(&rig, Part::Backup, host.other());
        wait_for!(primary, PairEvent::Protected);
        let is_alone = loss % 2 == 1;
        let pause = Duration::from_millis(20 + 37 * (loss % 5));
        acknowledged = appending_until(&mut client, found, || {
            std::thread::sleep(pause);
            if is_alone {
                // The primary goes on without the backup, whose image is not the newest any more.
                backup.signal(Signal::SIGKILL);
                wait_for!(primary, PairEvent::TermWon);
                std::thread::sleep(pause);
            }
            primary.signal(Signal::SIGKILL);
            backup.signal(Signal::SIGKILL);
        });
        for process in [&mut primary, &mut backup] {
            process.end();
        }
        images.read_from_disk();
        if is_alone {
            let stale = (Part::Primary, host.other());
            let mut stale = images.start_with(&rig, stale, &["--boot-again"]);
            stale.end().failure(DISK, &format!("{}: is outdated", images.of(host.other())));
        } else {
            // Both have everything: any of them may go on.
            host = host.other();
        }
    }
    println!("{losses} losses of power, {} links", acknowledged.0);
}

/// The image of one host is cut short: each of its requests fails.
#[test]
fn disk_that_fails_on_one_host_is_not_noticed_by_the_guest() {
    for failing in Host::ALL {
        let rig = Rig::default();
        let images = Images::new(&rig, |_, _| 0);
        let mut primary = images.start(&rig, Part::Primary, Host::A);
        wait_for!(primary, PairEvent::TermWon);
        let mut backup = images.start(&rig, Part::Backup, Host::B);
        wait_for!(primary, PairEvent::Protected);
        wait_for!(backup, PairEvent::Following);
        let mut client = connect(&rig);
        let links = appending(&mut client, (0, 0), || {
            std::fs::OpenOptions::new()
                .write(true)
                .open(images.of(failing))
                .and_then(|image| image.set_len(512))
                .unwrap();
            match failing {
                Host::A => {
                    wait_for!(backup, PairEvent::WentLive);
                }
                Host::B => {
                    wait_for!(backup, PairEvent::DiskFault { .. });
                    wait_for!(primary, PairEvent::TermWon);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        });
        assert_eq!(chain(&mut client), links);
        assert!(links.0 > 0);
    }
}

#[test]
fn backup_with_another_disk_is_refused() {
    let rig = Rig::default();
    let images = Images::new(&rig, |_, _| 0);
    let mut primary = images.start(&rig, Part::Primary, Host::A);
    wait_for!(primary, PairEvent::TermWon);
    std::fs::write(images.of(Host::B), vec![0; IMAGE_BYTES + 512]).unwrap();
    let mut backup = images.start(&rig, Part::Backup, Host::B);
    wait_for!(backup, PairEvent::PeerRefused { .. });
    wait_for!(primary, PairEvent::PeerRefused { .. });
}

#[test]
fn vm_that_was_saved_with_a_disk_goes_on_as_a_pair() {
    const LINKS: u64 = 50;
    let rig = Rig::default();
    let images = Images::new(&rig, |_, _| 0);
    let snapshot = rig.path("vm.snap");
    let snapshot = snapshot.to_str().unwrap();
    let disk = ["--disk", images.of(Host::A)];
    let save = [&["save", snapshot, "--tap", TAP, "--quiet"], &disk[..]].concat();
    let namespace = rig.scene.network.host(Host::A);
    let vm = namespace.enter(|| VmProcess::spawn(&understudy(), &save)).unwrap();
    let mut client = connect(&rig);
    let hash = append(&mut client, 0, 0, LINKS);
    drop(client);
    vm.finish().unwrap();
    assert!(std::fs::read(images.of(Host::A)).unwrap().iter().all(|&byte| byte == 0));

    let start = |part, host| images.start_with(&rig, (part, host), &["--restore", snapshot]);
    let mut primary = start(Part::Primary, Host::A);
    let mut backup = start(Part::Backup, Host::B);
    wait_for!(primary, PairEvent::Protected);
    wait_for!(backup, PairEvent::Following);
    let mut client = connect(&rig);
    assert_eq!(chain(&mut client), (LINKS, hash));
    append(&mut client, LINKS, hash, 5);
    settle(&primary);
    drop(client);
    primary.order("stop");
    for process in [&mut primary, &mut backup] {
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
    images.check_equal();
    // It is not the image any more with which the VM was saved.
    start(Part::Primary, Host::A).end().failure(DISK, "is not the one of the snapshot");
}
