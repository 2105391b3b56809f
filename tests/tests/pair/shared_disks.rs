//! Shared disks: one image for both hosts, which only the host writes that runs the VM.
//!
//! `PAIR_KILLS=50` makes the test longer.

use crate::kills::variable;
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use testbed::TestbedError;
use testbed::pair::{Host, PairEvent, Part};
use tests::chain::{Client, append, chain, try_append};
use tests::pair::{Process, Rig};
use tests::patience::wait_until;
use tests::wait_for;

const IMAGE_BYTES: usize = 4 << 20;
/// Exit codes.
const USAGE: i32 = 2;
const DISK: i32 = 18;

/// The image, as an option of both hosts.
fn shared_image(rig: &Rig) -> String {
    let image = rig.path("shared.img");
    std::fs::write(&image, vec![0; IMAGE_BYTES]).unwrap();
    format!("{},mode=shared", image.display())
}

/// Returns a command that says in the file `asked` that it runs, and succeeds when process `pid` is gone.
fn fence(pid: u32, asked: &Path) -> String {
    format!(
        "echo >>'{}'; while test -e /proc/{pid} && ! grep -q 'State:.Z' /proc/{pid}/status; do sleep 0.02; done",
        asked.display()
    )
}

fn connect(rig: &Rig) -> Client {
    let client = rig.scene.network.client();
    client.enter(|| Ok::<_, TestbedError>(Client::connect())).unwrap()
}

/// Appends to a chain while `work` runs, and until it has. Returns what the chain has then.
fn appending(client: &mut Client, (links, hash): (u64, u64), work: impl FnOnce()) -> (u64, u64) {
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appends = scope.spawn(|| {
            let (mut links, mut hash) = (links, hash);
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                hash = try_append(client, links, hash).expect("the VM answers");
                links += 1;
            }
            (links, hash)
        });
        work();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        appends.join().unwrap()
    })
}

fn start(rig: &Rig, (part, host): (Part, Host), disk: &str, fence: &str) -> Process {
    rig.start(part, host, &["--disk", disk, "--fence", fence])
}

#[test]
fn chain_on_a_shared_disk_survives_lost_primaries_and_a_handover() {
    let rig = Rig::default();
    let disk = shared_image(&rig);
    let mut host = Host::A;
    let mut primary = start(&rig, (Part::Primary, host), &disk, "true");
    wait_for!(primary, PairEvent::TermWon);
    let mut client = connect(&rig);
    let mut links = (0, 0);
    for kill in 0..variable("PAIR_KILLS", 4) {
        let asked = rig.path(&format!("asked-{kill}"));
        let fence = fence(primary.pid(), &asked);
        let mut backup = start(&rig, (Part::Backup, host.other()), &disk, &fence);
        let pause = Duration::from_millis(100 + 70 * (kill % 4));
        links = appending(&mut client, links, || {
            wait_for!(primary, PairEvent::Protected);
            wait_for!(backup, PairEvent::Following);
            std::thread::sleep(pause);
            if kill % 2 == 0 {
                primary.signal(Signal::SIGKILL);
                assert_eq!(primary.end().code, None);
            } else {
                // It is not dead, and has the image still.
                primary.signal(Signal::SIGSTOP);
                wait_until("a fence", || asked.exists());
                std::thread::sleep(pause);
                assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
                primary.signal(Signal::SIGKILL);
                assert_eq!(primary.end().code, None);
            }
            wait_for!(backup, PairEvent::WentLive);
        });
        assert!(asked.exists(), "no fence");
        assert_eq!(chain(&mut client), links);
        // A second VM is kept away by the lock.
        start(&rig, (Part::Primary, host), &disk, "true").end().failure(DISK, "in use by");
        (primary, host) = (backup, host.other());
    }
    let mut backup = start(&rig, (Part::Backup, host.other()), &disk, "false");
    links = appending(&mut client, links, || {
        wait_for!(primary, PairEvent::Protected);
        wait_for!(backup, PairEvent::Following);
        std::thread::sleep(Duration::from_millis(200));
        // Nobody is fenced: the old primary has no request in flight.
        primary.order("handover");
        wait_for!(backup, PairEvent::WentLive);
        wait_for!(backup, PairEvent::Protected);
    });
    links.1 = append(&mut client, links.0, links.1, 5);
    links.0 += 5;
    assert_eq!(chain(&mut client), links);
    println!("{} links", links.0);
    drop(client);
    backup.order("stop");
    for process in [&mut primary, &mut backup] {
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
    let mut again = start(&rig, (Part::Primary, Host::B), &disk, "true");
    wait_for!(again, PairEvent::TermWon);
    assert_eq!(chain(&mut connect(&rig)), links);
}

#[test]
fn shared_disk_without_what_it_needs_is_refused_in_one_line() {
    let rig = Rig::default();
    let disk = shared_image(&rig);
    let other = rig.path("other.img");
    std::fs::write(&other, vec![0; IMAGE_BYTES]).unwrap();
    let (other, snapshot) = (other.to_str().unwrap(), rig.path("none.snap"));
    let snapshot = snapshot.to_str().unwrap();
    for part in [Part::Primary, Part::Backup] {
        let refused = |options: &[&str], text: &str| {
            rig.start(part, Host::A, &[&["--disk", &disk], options].concat())
                .end()
                .failure(USAGE, text);
        };
        refused(&[], "needs --fence");
        refused(&["--fence", "true", "--disk", other], "share all of them");
        refused(&["--fence", "true", "--restore", snapshot], "a VM that was saved");
    }
}
