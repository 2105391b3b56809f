//! A flood of wrong frames while entries flow: nothing changes but the counters.

use logchan::ids::Role;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tests::intruder::{Attack, Intruder, Sent};
use tests::patience::wait_until;
use tests::wire::{Side, Wire, number};

/// Wrong frames of each kind that each end is sent at least.
const FLOOD: u64 = 2500;

/// Longer than a busy host keeps anybody waiting.
const SILENCE: [&str; 2] = ["--silence-ms", "60000"];

/// Ends the attacks, whatever happens.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number_of(sent: &AtomicU64) -> u64 {
    sent.load(Ordering::Relaxed)
}

/// What `side` says in a session.
fn frames_of_a_session(wire: &Wire) -> [Vec<Vec<u8>>; 2] {
    let mut intruders = [Side::A, Side::B].map(|side| wire.enter(side, || Intruder::open(side, 0)));
    wire.measure(&["--count", "300"], &SILENCE);
    intruders.iter_mut().for_each(Intruder::listen);
    intruders.map(|intruder| {
        assert!(intruder.captured().len() >= 10, "an intruder that hears nothing");
        intruder.captured().to_vec()
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
fn withstood(result: &Value) {
    for attack in Attack::ALL {
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
    let sent = [Sent::default(), Sent::default()];
    let attack = |side: Side| {
        let (old, sent) = (&old[side as usize], &sent[side as usize]);
        wire.enter(side, || Intruder::open(side, seed ^ side as u64).attack(old, sent, &stop));
    };
    let results = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| attack(Side::A));
        scope.spawn(|| attack(Side::B));
        let backup = wire.start(Side::B, Role::Backup, &SILENCE);
        let options = [&["--count", "0", "--interval-us", "500"], &SILENCE[..]].concat();
        let primary = wire.start(Side::A, Role::Primary, &options);
        wait_until("a flood", || sent.iter().flatten().all(|sent| number_of(sent) >= FLOOD));
        primary.signal(Signal::SIGINT);
        [primary.finish(), backup.finish()]
    });
    println!("wrong frames by kind, of side A and of side B: {sent:?}");

    let results = results.map(|finished| finished.success());
    let entries = results[0]["entries"].as_u64().expect("a number");
    assert!(entries > 0, "{}", results[0]);
    assert_eq!(results[0]["acknowledged"], entries);
    // In order and whole, or the backup would have said so.
    assert_eq!(results[1]["entries"], entries);
    for result in &results {
        println!("{} {} {}", result["seal"], result["handshake"], result["port"]);
        withstood(result);
    }
    println!("ack us {}, channel {}", results[0]["ack_us"], results[0]["channel"]);
}

/// The same intruder against two ends that wait: it keeps nobody from meeting.
#[test]
fn flood_while_nobody_was_met_keeps_nobody_from_meeting() {
    let wire = Wire::up();
    let old = frames_of_a_session(&wire);
    let stop = AtomicBool::new(false);
    let sent = Sent::default();
    let results = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let primary =
            wire.start(Side::A, Role::Primary, &["--count", "50", SILENCE[0], SILENCE[1]]);
        wire.wait_for_frames(1);
        scope.spawn(|| {
            wire.enter(Side::B, || Intruder::open(Side::B, 1).attack(&old[1], &sent, &stop));
        });
        wait_until("a flood", || sent.iter().map(number_of).sum::<u64>() >= FLOOD);
        let backup = wire.start(Side::B, Role::Backup, &SILENCE);
        [primary.finish(), backup.finish()]
    });
    assert_eq!(results.map(|finished| finished.success()["entries"].clone()), [50, 50]);
}
