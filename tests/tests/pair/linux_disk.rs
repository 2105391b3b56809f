//! A Linux guest with redis and SQLite on mirrored disks loses both hosts at once.
//!
//! It needs the snapshot of `scripts/linux-guest.sh --disk 256`, and some minutes:
//!
//! ```text
//! PAIR_POWER_LOSSES=20 cargo test --release -p tests --features host-tests --test pair linux_disk -- --ignored --nocapture
//! ```

use crate::disks::read_from_disk;
use crate::kills::variable;
use nix::sys::signal::Signal;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testbed::clients::{Counter, CounterService, redis, sqlite};
use testbed::disk::{Counts, DiskCheck, FirstContents, Images};
use testbed::guest::{default_snapshot, disk_image};
use testbed::pace::HANG_MAX;
use testbed::pair::{Host, PairEvent, Part};
use testbed::{GUEST_ADDRESS, Guest, GuestDisk};
use tests::pair::{Rig, RigOptions};
use tests::patience::wait_until;
use tests::wait_for;

/// Each client gets at least this many answers before the power fails.
const ANSWERS: u64 = 3;

/// Connects to `service` in the client's namespace.
fn connect(rig: &Rig, service: &'static CounterService) -> Counter {
    let connect = || Counter::connect_to(service, GUEST_ADDRESS, HANG_MAX);
    rig.scene.network.client().enter(connect).unwrap()
}

/// Sends requests on both connections until each has [`ANSWERS`] answers, and until `work` is done. Returns the last number
/// of each.
fn asking_during(counters: [Counter; 2], work: impl FnOnce()) -> [u64; 2] {
    let connections = counters.each_ref().map(|counter| counter.connection().unwrap());
    let last = [const { AtomicU64::new(0) }; 2];
    std::thread::scope(|scope| {
        for (mut counter, last) in counters.into_iter().zip(&last) {
            scope.spawn(move || {
                while let Ok(number) = counter.ask() {
                    last.store(number, Ordering::Relaxed);
                }
            });
        }
        wait_until("the clients' answers", || {
            last.iter().all(|last| last.load(Ordering::Relaxed) >= ANSWERS)
        });
        work();
        for connection in &connections {
            connection.shutdown(Shutdown::Both).unwrap();
        }
    });
    last.map(AtomicU64::into_inner)
}

#[test]
#[ignore = "needs a snapshot of scripts/linux-guest.sh --disk 256, and takes minutes"]
fn double_power_loss_leaves_clean_file_systems_with_every_answered_write() {
    let snapshot = default_snapshot(GuestDisk::Mirrored).expect("a home folder");
    let restore = ["--restore", snapshot.to_str().unwrap()];
    let (losses, mut answered_in_all) = (variable("PAIR_POWER_LOSSES", 2), 0);
    for loss in 0..losses {
        let rig = Rig::new(RigOptions { silence_ms: 5000, ..RigOptions::default() });
        let folder = rig.scene.folder();
        let images = Images::new(folder, FirstContents::Of(&disk_image(&snapshot))).unwrap();
        let start = |part, host| {
            rig.start(part, host, &[&restore[..], &["--disk", &images.option(host)]].concat())
        };
        let mut primary = start(Part::Primary, Host::A);
        wait_for!(primary, PairEvent::TermWon);
        let mut backup = start(Part::Backup, Host::B);
        wait_for!(primary, PairEvent::Protected);

        let counters = [&redis::COUNTER, &sqlite::INSERTIONS].map(|service| connect(&rig, service));
        let [increments, rows] = asking_during(counters, || {
            std::thread::sleep(Duration::from_millis(37 * (loss % 11)));
            primary.signal(Signal::SIGKILL);
            backup.signal(Signal::SIGKILL);
            for process in [&mut primary, &mut backup] {
                process.end();
            }
        });
        for host in Host::ALL {
            read_from_disk(images.of(host));
        }
        answered_in_all += increments + rows;
        let answered =
            Counts::from([(redis::COUNTER_KEY.into(), increments), (sqlite::TABLE.into(), rows)]);
        let guest = Guest::Linux(snapshot.clone());
        let found = DiskCheck::new((&images, folder), &guest, answered).unwrap();
        println!("loss {loss}: answered {:?}, on the images {:?}", found.answered, found.on_disk);
        assert_eq!(found.damage, None);
        assert_eq!(Host::ALL.map(|host| found.lost(host)), [0, 0]);
    }
    println!("{losses} losses of power, {answered_in_all} answered writes");
}
