//! A flood of invalid frames during a measurement changes nothing but counters.

use logchan::ids::Role;
use netpath::packet_port::CHANNEL_ETHERTYPE;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use testbed::intruder::{Attack, Intensity, Intruder, Sent};
use tests::patience::wait_until;
use tests::wire::{Side, Wire, number};

/// Fewest invalid frames of each kind to send to each end.
const FLOOD: u64 = 2500;

/// Longer than any scheduling delay on a busy host.
const SILENCE: [&str; 2] = ["--silence-ms", "60000"];

/// Ends the attacks on drop, on every path.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number_of(sent: &AtomicU64) -> u64 {
    sent.load(Ordering::Relaxed)
}

fn open(side: Side, seed: u64) -> Intruder {
    Intruder::open(side.interface(), CHANNEL_ETHERTYPE, seed).unwrap()
}

/// Captures the frames that each side sends in a session.
fn frames_of_a_session(wire: &Wire) -> [Vec<Vec<u8>>; 2] {
    let intruders = [Side::A, Side::B].map(|side| wire.enter(side, || open(side, 0)));
    wire.measure(&["--count", "300"], &SILENCE);
    intruders.map(|mut intruder| {
        intruder.capture().unwrap();
        assert!(intruder.captured().len() >= 10, "the intruder captured too few frames");
        intruder.captured().to_vec()
    })
}

/// Returns the counters that a kind of invalid frame must increment at its receiver.
fn counters_of(attack: Attack) -> &'static [(&'static str, &'static str)] {
    match attack {
        Attack::Replayed => &[("seal", "replayed")],
        Attack::OldSession => &[("seal", "stale_session")],
        Attack::Forged | Attack::BitFlipped => &[("seal", "bad_tag")],
        Attack::ForgedHandshake => &[
            ("handshake", "strangers"),
            ("handshake", "stale_initiations"),
            ("handshake", "stale_responses"),
        ],
        Attack::Unprotected => &[("seal", "other_protection")],
        Attack::Truncated | Attack::Noise => &[("seal", "malformed")],
        Attack::Oversized => &[("port", "rx_bad_length")],
        Attack::ForeignSource => &[("port", "rx_other_senders")],
        Attack::ForeignDestination => &[("port", "rx_foreign_mac")],
        Attack::ForeignVlan => &[("port", "rx_foreign_vlan")],
    }
}

/// Checks that the end with this `result` counted all attacks and that its channel was not affected.
fn withstood(result: &Value) {
    for attack in Attack::ALL {
        for (section, name) in counters_of(attack) {
            assert!(
                number(result, section, name) > 0,
                "{attack:?} did not increment {name}: {result}"
            );
        }
    }
    // Both ends may initiate at the same time, which can take two sessions; the intruder cannot cause
    // more.
    assert!(number(result, "handshake", "sessions") <= 3, "{result}");
    // Except `too_old`: a frame that the kernel dropped is new when the intruder replays it later.
    let never = ["duplicate", "stale_term", "newer_term", "wrong_vm", "wrong_session", "same_role"];
    for verdict in never.iter().chain(&["malformed", "closed"]) {
        assert_eq!(number(result, "channel", &format!("received_{verdict}")), 0, "{result}");
    }
}

#[test]
fn flood_of_invalid_frames_changes_only_counters() {
    let wire = Wire::up();
    // Allows frames that are longer than a port accepts.
    for side in [Side::A, Side::B] {
        wire.ip(side, &format!("link set {} mtu 9000", side.interface()));
    }
    let old = frames_of_a_session(&wire);
    let stop = AtomicBool::new(false);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let sent = [Sent::default(), Sent::default()];
    let attack = |side: Side| {
        let (old, sent) = (&old[side as usize], &sent[side as usize]);
        let flood =
            || open(side, seed ^ side as u64).attack(old, Intensity::FLOOD, sent, &stop).unwrap();
        wire.enter(side, flood);
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
    // The backup would have reported missing or damaged entries.
    assert_eq!(results[1]["entries"], entries);
    for result in &results {
        println!("{} {} {}", result["seal"], result["handshake"], result["port"]);
        withstood(result);
    }
    println!("ack us {}, channel {}", results[0]["ack_us"], results[0]["channel"]);
}

/// The same intruder cannot prevent two waiting ends from completing the handshake.
#[test]
fn flood_before_the_handshake_does_not_prevent_it() {
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
            wire.enter(Side::B, || {
                open(Side::B, 1).attack(&old[1], Intensity::FLOOD, &sent, &stop).unwrap();
            });
        });
        wait_until("a flood", || sent.iter().map(number_of).sum::<u64>() >= FLOOD);
        let backup = wire.start(Side::B, Role::Backup, &SILENCE);
        [primary.finish(), backup.finish()]
    });
    assert_eq!(results.map(|finished| finished.success()["entries"].clone()), [50, 50]);
}
