//! A flood of wrong frames while entries flow: nothing changes but the counters.

use logchan::ids::Role;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::intruder::{Attack, Intruder};
use tests::wire::{Side, Wire, number};

const ENTRIES: &str = "4000";

/// Longer than a busy host keeps anybody waiting.
const SILENCE: [&str; 2] = ["--silence-ms", "5000"];

/// What `side` says in a session.
fn frames_of_a_session(wire: &Wire) -> [Vec<Vec<u8>>; 2] {
    let mut intruders = [Side::A, Side::B].map(|side| wire.enter(side, || Intruder::open(side, 0)));
    wire.measure(&["--count", "300"], &SILENCE);
    intruders.iter_mut().for_each(Intruder::listen);
    intruders.map(|intruder| {
        assert!(intruder.heard().len() >= 10, "an intruder that hears nothing");
        intruder.heard().to_vec()
    })
}

/// The counters that each kind of frame must move at whoever it is sent to.
fn counters_of(attack: Attack) -> &'static [(&'static str, &'static str)] {
    match attack {
        Attack::Replayed => &[("seal", "replayed")],
        Attack::OldSession => &[("seal", "stale_session")],
        Attack::Forged | Attack::BitFlipped => &[("seal", "bad_tag")],
        Attack::ForgedHandshake => &[("handshake", "forged"), ("handshake", "stale_responses")],
        Attack::Unprotected => &[("seal", "other_protection")],
        Attack::Truncated | Attack::Noise => &[("seal", "malformed")],
        Attack::Oversized => &[("port", "rx_bad_length")],
        Attack::ForeignSource => &[("port", "rx_other_senders")],
        Attack::ForeignDestination => &[("port", "rx_foreign_mac")],
        Attack::ForeignVlan => &[("port", "rx_foreign_vlan")],
    }
}

/// The end that `result` is of was attacked and knows it, and its channel does not.
fn withstood(result: &Value, sent: &[u64; Attack::ALL.len()]) {
    for (attack, sent) in Attack::ALL.into_iter().zip(sent) {
        assert!(*sent > 100, "{attack:?}: only {sent} sent");
        for (section, name) in counters_of(attack) {
            assert!(number(result, section, name) > 0, "{attack:?} moved no {name}: {result}");
        }
    }
    // Both may begin at once, which can take two; the intruder has no part in it.
    assert!(number(result, "handshake", "sessions") <= 3, "{result}");
    // Not `too_old`: a frame that the kernel dropped is new when the intruder sends it late.
    let never = ["duplicate", "stale_term", "newer_term", "wrong_vm", "wrong_session", "same_role"];
    for verdict in never.iter().chain(&["malformed", "closed"]) {
        assert_eq!(number(result, "channel", &format!("received_{verdict}")), 0, "{result}");
    }
}

#[test]
fn flood_of_wrong_frames_changes_nothing_but_counters() {
    let wire = Wire::up();
    // So that there are frames longer than a port takes.
    for side in [Side::A, Side::B] {
        wire.ip(side, &["link", "set", side.interface(), "mtu", "9000"]);
    }
    let old = frames_of_a_session(&wire);
    let stop = AtomicBool::new(false);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let attack = |side: Side, old: &[Vec<u8>]| {
        wire.enter(side, || Intruder::open(side, seed ^ side as u64).attack(old, &stop))
    };
    let (results, sent, seconds) = std::thread::scope(|scope| {
        let from_a = scope.spawn(|| attack(Side::A, &old[0]));
        let from_b = scope.spawn(|| attack(Side::B, &old[1]));
        let start = Instant::now();
        let backup = wire.start(Side::B, Role::Backup, &SILENCE);
        let options = [&["--count", ENTRIES, "--interval-us", "500"], &SILENCE[..]].concat();
        let primary = wire.start(Side::A, Role::Primary, &options);
        let finished = [primary.finish(), backup.finish()];
        stop.store(true, Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        (finished, [from_b.join().unwrap(), from_a.join().unwrap()], seconds)
    });
    let total: u64 = sent.iter().flatten().sum();
    println!("{total} wrong frames in {seconds:.1} s; at the primary, by kind: {:?}", sent[0]);
    assert!(total > 50_000, "{total} frames are no flood");

    let results = results.map(|finished| finished.success());
    assert_eq!(results[0]["acknowledged"].to_string(), ENTRIES);
    // In order and whole, or the backup would have said so.
    assert_eq!(results[1]["entries"].to_string(), ENTRIES);
    for (result, sent) in results.iter().zip(&sent) {
        println!("{} {} {}", result["seal"], result["handshake"], result["port"]);
        withstood(result, sent);
    }
    println!("ack us {}, channel {}", results[0]["ack_us"], results[0]["channel"]);
}

/// The same intruder against two ends that wait: it keeps nobody from meeting.
#[test]
fn flood_while_nobody_was_met_keeps_nobody_from_meeting() {
    let wire = Wire::up();
    let old = frames_of_a_session(&wire);
    let stop = AtomicBool::new(false);
    let results = std::thread::scope(|scope| {
        let primary =
            wire.start(Side::A, Role::Primary, &["--count", "50", SILENCE[0], SILENCE[1]]);
        std::thread::sleep(Duration::from_millis(300));
        let flood = scope
            .spawn(|| wire.enter(Side::B, || Intruder::open(Side::B, 1).attack(&old[1], &stop)));
        std::thread::sleep(Duration::from_millis(500));
        let backup = wire.start(Side::B, Role::Backup, &SILENCE);
        let finished = [primary.finish(), backup.finish()];
        stop.store(true, Ordering::Relaxed);
        assert!(flood.join().unwrap().iter().sum::<u64>() > 1000);
        finished
    });
    assert_eq!(results.map(|finished| finished.success()["entries"].clone()), [50, 50]);
}
