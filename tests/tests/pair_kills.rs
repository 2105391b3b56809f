//! Hosts of a pair die at random moments, and no client notices.
//!
//! `PAIR_KILLS=50` makes it longer, `PAIR_SEED=N` repeats a run's moments.

use nix::sys::signal::Signal;
use std::time::Duration;
use tests::pair::{Clients, Couple, PATIENCE, Rig};
use tests::wait_for;
use vmm::demo::clients;
use vmm::demo::pair::member::Part;
use vmm::demo::pair::network::Host;
use vmm::demo::standalone::GUEST_ADDRESS;
use vmm::pair::event::PairEvent;

/// A kill comes so many milliseconds after the VM was protected.
const KILL_AFTER_MS: std::ops::Range<u64> = 0..700;

fn variable(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn killed_primaries_and_backups_are_replaced_and_no_client_notices() {
    let kills = variable("PAIR_KILLS", 6);
    let seed = variable("PAIR_SEED", fastrand::u64(..1 << 32));
    println!(
        "again: PAIR_KILLS={kills} PAIR_SEED={seed} cargo test --release -p tests --test pair_kills killed_"
    );
    let mut random = fastrand::Rng::with_seed(seed);
    let rig = Rig::default();
    let mut couple = Couple::start(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        for kill in 0..kills {
            std::thread::sleep(Duration::from_millis(random.u64(KILL_AFTER_MS)));
            let lives_on = couple.protect();
            // Both kinds, whatever the seed.
            let is_primary = if kill < 2 { kill == 0 } else { random.bool() };
            couple.kill(if is_primary { lives_on } else { lives_on.other() });
            couple.protect();
            clients.are_served();
        }
    });
    println!("{} requests on one connection", clients.counting.tally().requests);
    let account = couple.stop();
    println!("{kills} kills; {account:?}");
    assert_eq!(account.divergences, 0);
    assert!(clients.turns().len() > 1, "the VM moved");
}

#[test]
fn guest_that_computes_without_exits_moves_and_finishes() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected { .. });
    let before = primary.figure("checkpoints.sent");
    std::thread::scope(|scope| {
        let burn = scope.spawn(|| {
            let client = rig.network.client();
            client.enter(|| clients::fetch(GUEST_ADDRESS, "/burn?ms=4000"))
        });
        let end = std::time::Instant::now() + PATIENCE;
        // One is not enough to know that it burns.
        while primary.figure("checkpoints.sent") < before + 20.0 {
            assert!(std::time::Instant::now() < end, "no checkpoint: {}", primary.story());
            std::thread::sleep(Duration::from_millis(5));
        }
        primary.signal(Signal::SIGKILL);
        assert!(!burn.is_finished(), "the burn was to last longer");
        wait_for!(backup, PairEvent::WentLive { .. });
        let page = burn.join().unwrap().unwrap();
        assert!(page.contains("4000"), "{page}");
    });
    assert!(backup.figure("checkpoints.applied") >= 20.0, "{}", backup.story());
    let answers = rig.network.client().enter(|| clients::count(GUEST_ADDRESS, 100));
    answers.unwrap();
    assert_eq!(backup.count(|event| matches!(event, PairEvent::Diverged)), 0);
}

#[test]
fn backup_attaches_in_the_middle_of_a_computation_without_exits() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let client = rig.network.client();
    client.enter(|| clients::count(GUEST_ADDRESS, 10)).unwrap();
    std::thread::scope(|scope| {
        // Its end is counted in ticks, each of which takes a kick.
        let burn = scope.spawn(|| client.enter(|| clients::fetch(GUEST_ADDRESS, "/burn?ms=6000")));
        std::thread::sleep(Duration::from_millis(500));
        let _backup = rig.start(Part::Backup, Host::B, &[]);
        wait_for!(primary, PairEvent::Protected { .. });
        assert!(!burn.is_finished(), "the burn was to last longer");
        burn.join().unwrap().unwrap_or_else(|error| panic!("{error}: {}", primary.story()));
        assert_eq!(primary.count(|event| matches!(event, PairEvent::BackupSilent { .. })), 0);
    });
}

#[test]
fn survivor_goes_on_when_the_witness_can_be_reached_again() {
    let rig = Rig::default();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected { .. });
    let (witness, away) = (rig.path("witness"), rig.path("away"));
    let ((), clients) = Clients::during(&rig, |clients| {
        std::fs::rename(&witness, &away).unwrap();
        primary.signal(Signal::SIGKILL);
        wait_for!(backup, PairEvent::WitnessUnreachable);
        // It asks again and again, and says nothing to the LAN meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(clients.turns(), [Host::A]);
        assert_eq!(backup.count(|event| matches!(event, PairEvent::WentLive { .. })), 0);
        std::fs::rename(&away, &witness).unwrap();
        wait_for!(backup, PairEvent::WentLive { .. });
        clients.are_served();
    });
    assert_eq!(clients.turns(), [Host::A, Host::B]);
    let told = backup.words().iter().filter(|line| line.contains("can't be reached")).count();
    assert_eq!(told, 1, "{}", backup.story());
}
