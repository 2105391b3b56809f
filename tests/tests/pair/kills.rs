//! Hosts of a pair are killed at random moments, and no client notices.
//!
//! `PAIR_KILLS=50` makes the test longer, `PAIR_SEED=N` reproduces a run's moments.

use nix::sys::signal::Signal;
use std::time::Duration;
use testbed::pair::{Host, PairEvent, Part};
use testbed::{GUEST_ADDRESS, clients};
use tests::pair::{Clients, Couple, Process, Rig};
use tests::patience::Waiting;
use tests::wait_for;

/// Delay from when the VM is protected to a kill, milliseconds.
const KILL_AFTER_MS: std::ops::Range<u64> = 0..700;

/// Returns the number in an environment variable.
pub(crate) fn variable(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn killed_primaries_and_backups_are_replaced_and_no_client_notices() {
    let kills = variable("PAIR_KILLS", 6);
    let seed = variable("PAIR_SEED", fastrand::u64(..1 << 32));
    println!(
        "reproduce with: PAIR_KILLS={kills} PAIR_SEED={seed} cargo test --release -p tests --test pair kills::killed_"
    );
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = Rig::default();
    let mut couple = Couple::start(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        for kill in 0..kills {
            std::thread::sleep(Duration::from_millis(random.u64(KILL_AFTER_MS)));
            let lives_on = couple.protect();
            // Kill primaries and backups, whatever the seed.
            let is_primary = if kill < 2 { kill == 0 } else { random.bool() };
            couple.kill(if is_primary { lives_on } else { lives_on.other() });
            couple.protect();
            clients.wait_until_served();
        }
    });
    println!("{} requests on one connection", clients.counting.tally().requests);
    let account = couple.stop();
    println!("{kills} kills; {account:?}");
    assert_eq!(account.divergences, 0);
    assert!(clients.host_sequence().len() > 1, "the VM moved");
}

#[test]
fn computation_without_exits_survives_a_takeover_and_finishes() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    // The guest counts ticks until the end of the computation; each tick takes a kick.
    during_burn(&rig, |burns| {
        let before = primary.figure("checkpoints.sent");
        let waiting = Waiting::default();
        // One checkpoint does not prove that the computation has begun.
        while burns() && primary.figure("checkpoints.sent") < before + 20.0 {
            waiting.pause(|| format!("checkpoints: {}", primary.transcript()));
        }
        if burns() {
            primary.signal(Signal::SIGKILL);
            wait_for!(backup, PairEvent::WentLive);
            return true;
        }
        false
    });
    assert!(backup.figure("checkpoints.applied") >= 20.0, "{}", backup.transcript());
    let answers = rig.scene.network.client().enter(|| clients::count(GUEST_ADDRESS, 100));
    answers.unwrap();
    assert_eq!(backup.count(|event| matches!(event, PairEvent::Diverged { .. })), 0);
}

#[test]
fn backup_attaches_during_a_computation_without_exits() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let client = rig.scene.network.client();
    client.enter(|| clients::count(GUEST_ADDRESS, 10)).unwrap();
    let mut backups = Vec::new();
    during_burn(&rig, |burns| {
        std::thread::sleep(Duration::from_millis(500));
        // The backups of a computation that was too short have left.
        leave(&mut primary, &mut backups);
        backups.push(rig.start(Part::Backup, Host::B, &[]));
        wait_for!(primary, PairEvent::Protected);
        burns()
    });
    assert_eq!(primary.count(|event| matches!(event, PairEvent::BackupSilent { .. })), 0);
}

/// Stops the backups.
fn leave(primary: &mut Process, backups: &mut Vec<Process>) {
    for mut backup in backups.drain(..) {
        backup.signal(Signal::SIGTERM);
        assert_eq!(backup.end().code, Some(0), "{}", backup.transcript());
        wait_for!(primary, PairEvent::BackupLeft);
    }
}

/// Runs `work` while the guest computes without exits, and checks that the computation succeeds. `work`
/// can query whether the guest still computes, and returns whether the computation lasted long enough.
/// If not, it is run again with a longer computation.
fn during_burn(rig: &Rig, mut work: impl FnMut(&dyn Fn() -> bool) -> bool) {
    for seconds in [4, 10, 10, 10] {
        let path = format!("/burn?ms={seconds}000");
        let is_enough = std::thread::scope(|scope| {
            let client = rig.scene.network.client();
            let burn = scope.spawn(|| client.enter(|| clients::fetch(GUEST_ADDRESS, &path)));
            let is_enough = work(&|| !burn.is_finished());
            let page = burn.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
            assert!(page.contains(&format!("{seconds}000")), "{page}");
            is_enough
        });
        if is_enough {
            return;
        }
    }
    panic!("no computation lasted long enough");
}

#[test]
fn survivor_takes_over_when_the_witness_is_reachable_again() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let (witness, away) = (rig.path("witness"), rig.path("away"));
    let ((), clients) = Clients::during(&rig, |clients| {
        std::fs::rename(&witness, &away).unwrap();
        primary.signal(Signal::SIGKILL);
        wait_for!(backup, PairEvent::WitnessUnreachable);
        // It retries and sends nothing to the LAN meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(clients.host_sequence(), [Host::A]);
        assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive)), 0);
        std::fs::rename(&away, &witness).unwrap();
        wait_for!(backup, PairEvent::WentLive);
        clients.wait_until_served();
    });
    assert_eq!(clients.host_sequence(), [Host::A, Host::B]);
    let reports =
        backup.words().iter().filter(|line| line.contains("has no answer: it is repeated")).count();
    assert_eq!(reports, 1, "{}", backup.transcript());
}
