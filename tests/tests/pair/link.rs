//! The log link fails or is faulty while both hosts are alive.

#![expect(clippy::print_stdout, reason = "the test harness takes it")]

use netpath::middleware::fault::FaultRates;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::pair::{Host, LOG_LINK, LogSwitch};
use tests::pair::{Clients, Couple, Rig, RigOptions};
use tests::patience::Waiting;
use vmm::demo::relay;

/// Cuts the link at `host` while both hosts are alive, and checks that exactly one of them continues.
fn cut_at(host: Host) {
    let rig = Rig::default();
    let mut couple = Couple::start(&rig);
    let ((), clients) = Clients::during(&rig, |clients| {
        rig.ip(host, &format!("link set {LOG_LINK} down"));
        let waiting = Waiting::default();
        let speaks = |couple: &mut Couple<'_>, host| {
            let state = couple.on(host).expect("it is there").state();
            state.holds_term && state.term == 2
        };
        let winner = loop {
            let winners = Host::ALL.map(|host| speaks(&mut couple, host));
            assert_ne!(winners, [true; 2], "only one host may get term 2");
            if let Some(index) = winners.iter().position(|&wins| wins) {
                break Host::ALL[index];
            }
            waiting.pause(|| String::from("a host that speaks in term 2"));
        };
        clients.wait_until_served();
        println!("the link was cut at {host}; host {winner} continued");
        let loser = couple.on(winner.other()).expect("it is there");
        if winner == Host::A {
            // The old backup did not get the term and looks for a primary.
            loser.wait_for_role("seeking");
        } else {
            let ended = loser.end();
            assert_eq!(ended.code, Some(14), "{ended:?}");
        }
        rig.ip(host, &format!("link set {LOG_LINK} up"));
        assert_eq!(couple.protect(), winner);
        clients.wait_until_served();
    });
    let turns = clients.host_sequence();
    assert!(turns == [Host::A] || turns == [Host::A, Host::B], "{turns:?}");
    assert_eq!(couple.stop().divergences, 0);
}

#[test]
fn link_cut_at_the_primary_leaves_one_host_live() {
    cut_at(Host::A);
}

#[test]
fn link_cut_at_the_backup_leaves_one_host_live() {
    cut_at(Host::B);
}

#[test]
fn lost_duplicated_and_reordered_log_frames_have_no_effect() {
    const REQUESTS: u64 = 1500;
    let rig = Rig::new(RigOptions { silence_ms: 100, turn: tests::alone, ..RigOptions::default() });
    let switch = LogSwitch::insert(&rig.scene.network).unwrap();
    switch.take_out().unwrap();
    let rates = FaultRates { drop: 500, duplicate: 200, reorder: 500, ..FaultRates::default() };
    let seed = fastrand::u64(..);
    let stop = AtomicBool::new(false);
    let (counts, account) = std::thread::scope(|scope| {
        let passing = scope.spawn(|| relay::run(&switch, [rates; 2], seed, &stop));
        let mut couple = Couple::start(&rig);
        let ((), clients) = Clients::during(&rig, |clients| {
            while clients.counting.tally().requests < REQUESTS {
                couple.protect();
                clients.wait_until_served();
            }
        });
        println!("{} requests", clients.counting.tally().requests);
        let account = couple.stop();
        stop.store(true, Ordering::Relaxed);
        (passing.join().unwrap().unwrap(), account)
    });
    println!("seed {seed}: {counts:?}; false alarms: {account:?}");
    for count in counts {
        assert!(count.dropped > 0 && count.duplicated > 0 && count.reordered > 0, "{count:?}");
    }
    assert_eq!(account.divergences, 0);
}
