//! Mirrored disks: an image on each host, a chain of writes, and hosts that are killed while they append to it.

use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::TestbedError;
use testbed::pair::{Host, PairEvent, Part};
use tests::chain::{Client, append, chain};
use tests::pair::{Process, Rig};
use tests::patience::wait_until;
use tests::wait_for;

/// Bytes of an image: the last block of 64 KiB is not whole.
const IMAGE_BYTES: usize = (4 << 20) + 512;
const KILLS: u64 = 3;
/// Exit code.
const DISK: i32 = 18;

/// An image on each host.
struct Images([PathBuf; 2]);

impl Images {
    /// Makes them: on host A zeros, and on host B what `other` returns for each block of 64 KiB.
    fn new(rig: &Rig, other: impl Fn(usize) -> u8) -> Images {
        let images = Host::ALL.map(|host| rig.path(&format!("disk-{host}.img")));
        let contents = (0..IMAGE_BYTES).map(|at| other(at >> 16)).collect::<Vec<_>>();
        std::fs::write(&images[0], vec![0; IMAGE_BYTES]).unwrap();
        std::fs::write(&images[1], contents).unwrap();
        Images(images)
    }

    fn of(&self, host: Host) -> &str {
        self.0[host.index()].to_str().unwrap()
    }

    fn start(&self, rig: &Rig, part: Part, host: Host) -> Process {
        rig.start(part, host, &["--disk", self.of(host)])
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
    let images = Images::new(&rig, |block| (block % 3) as u8);
    let mut host = Host::A;
    let mut primary = images.start(&rig, Part::Primary, host);
    wait_for!(primary, PairEvent::TermWon);
    let mut client = connect(&rig);
    let mut links = (0, 0);
    for kill in 0..KILLS {
        let mut backup = images.start(&rig, Part::Backup, host.other());
        links = appending(&mut client, links, || {
            wait_for!(primary, PairEvent::Protected);
            wait_for!(backup, PairEvent::Following);
            std::thread::sleep(Duration::from_millis(100 + 70 * kill));
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

#[test]
fn backup_with_another_disk_is_refused() {
    let rig = Rig::default();
    let images = Images::new(&rig, |_| 0);
    let mut primary = images.start(&rig, Part::Primary, Host::A);
    wait_for!(primary, PairEvent::TermWon);
    std::fs::write(images.of(Host::B), vec![0; IMAGE_BYTES + 512]).unwrap();
    let mut backup = images.start(&rig, Part::Backup, Host::B);
    wait_for!(backup, PairEvent::PeerRefused { .. });
    wait_for!(primary, PairEvent::PeerRefused { .. });
}
