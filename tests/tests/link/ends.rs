//! `understudy link` end to end: two processes in two namespaces, a veth pair between them.
//!
//! The silence timeout is long in tests that do not test silence, because the hosts are busy.

use logchan::ids::Role;
use nix::sys::signal::Signal;
use std::time::Duration;
use tests::patience::factor;
use tests::wire::{Side, Wire, number};

/// The longest allowed silence timeout.
const PATIENT: [&str; 2] = ["--silence-ms", "60000"];

#[test]
fn measurement_results_of_both_ends_agree() {
    let wire = Wire::up();
    for options in [
        &["--count", "2000", "--interval-us", "200"][..],
        &["--count", "2000", "--interval-us", "0", "--size", "4096"],
        &["--count", "300", "--interval-us", "0", "--size", "16", "--spin-us", "0"],
    ] {
        let [primary, backup] = wire.measure(options, &PATIENT);
        let count: u64 = options[1].parse().unwrap();
        assert_eq!(primary["end"], "left");
        assert_eq!(backup["end"], "peer_left");
        for result in [&primary, &backup] {
            assert_eq!(result["entries"], count);
            assert_eq!(result["session"], primary["session"]);
            assert_eq!((&result["term"], &result["protection"]), (&1.into(), &"sealed".into()));
            assert_eq!(number(result, "handshake", "sessions"), 1);
            assert_eq!(number(result, "channel", "leases_lost"), 0);
        }
        assert_eq!(primary["acknowledged"], count);
        let times = ["p50", "p99", "p99.9", "max"].map(|name| primary["ack_us"][name].as_f64());
        assert!(times.is_sorted() && times[0] > Some(0.0), "{times:?}");
        // Each end received the frames that the other one sent, except the last ones of a handshake.
        for (sender, receiver) in [(&primary, &backup), (&backup, &primary)] {
            let sent = number(sender, "port", "tx_frames");
            let seen =
                number(receiver, "port", "rx_frames") + number(receiver, "port", "rx_kernel_drops");
            assert!(seen <= sent && seen + 3 >= sent, "{seen} of {sent}: {primary} {backup}");
        }
    }
}

#[test]
fn start_prints_the_configuration_and_the_table_omits_zeros() {
    let wire = Wire::up();
    let key = wire.key();
    let backup = wire.start(Side::B, Role::Backup, &PATIENT);
    let options = [&["--key", &key, "--count", "10"], &PATIENT[..]].concat();
    let primary = wire.start_with(Side::A, Role::Primary, &options).finish();
    backup.finish().success();
    assert_eq!(primary.code, Some(0), "{primary:?}");
    // A process that waits for a while prints a line about it.
    let lines = primary.stderr.lines().filter(|line| !line.starts_with("waiting for the backup"));
    let lines: Vec<_> = lines.collect();
    assert!(lines[0].starts_with("va (02:00:00:00:00:0a, MTU 1500, Up): receive by TPACKET_V2"));
    assert!(lines[1].starts_with("primary of VM 0, peer 02:00:00:00:00:0b; sealed"), "{lines:?}");
    assert!(lines[2].starts_with("met 02:00:00:00:00:0b after"), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
    let has = |name: &str| primary.stdout.lines().any(|line| line.starts_with(name));
    assert!(has("ack_us.p50 ") && has("entries ") && has("seal.opened "), "{primary:?}");
    assert!(!has("seal.bad_tag"), "{primary:?}");
}

#[test]
fn insecure_prints_a_warning_even_when_quiet_and_works() {
    let wire = Wire::up();
    let options = [&["--insecure", "--json", "--quiet"], &PATIENT[..]].concat();
    let backup = wire.start_with(Side::B, Role::Backup, &options);
    let count = [&options[..], &["--count", "100"]].concat();
    let primary = wire.start_with(Side::A, Role::Primary, &count).finish();
    let backup = backup.finish();
    for finished in [primary, backup] {
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stderr.contains("WARNING: --insecure"), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1);
        let result = tests::program::json(&finished.stdout);
        assert_eq!((&result["entries"], &result["protection"]), (&100.into(), &"insecure".into()));
    }
}

#[test]
fn signal_at_either_end_stops_both_in_an_orderly_way() {
    for stopped in [Side::A, Side::B] {
        let wire = Wire::up();
        let backup = wire.start(Side::B, Role::Backup, &PATIENT);
        let endless = [&["--count", "0"], &PATIENT[..]].concat();
        let primary = wire.start(Side::A, Role::Primary, &endless);
        wire.wait_for_frames(300);
        match stopped {
            Side::A => primary.signal(Signal::SIGTERM),
            Side::B => backup.signal(Signal::SIGTERM),
        }
        let [primary, backup] = [primary.finish().success(), backup.finish().success()];
        let ends = match stopped {
            Side::A => ["left", "peer_left"],
            Side::B => ["peer_left", "left"],
        };
        assert_eq!([&primary["end"], &backup["end"]], ends);
        // Acknowledged entries have arrived.
        let acknowledged = primary["acknowledged"].as_u64().unwrap();
        assert!(acknowledged > 100, "{primary}");
        assert!(backup["entries"].as_u64().unwrap() >= acknowledged, "{primary} {backup}");
        if stopped == Side::A {
            assert_eq!(primary["acknowledged"], primary["entries"]);
        }
    }
}

#[test]
fn killed_peer_is_detected_and_its_successor_connects() {
    let wire = Wire::up();
    // One second at both ends: long for a busy host, short for a test.
    let silence_ms = (1000 * factor()).to_string();
    let both = ["--silence-ms", &silence_ms];
    let endless = [&["--count", "0"], &both[..]].concat();
    for killed in [Side::A, Side::B] {
        let backup = wire.start(Side::B, Role::Backup, &both);
        let primary = wire.start(Side::A, Role::Primary, &endless);
        wire.wait_for_frames(100);
        let (victim, survivor, name) = match killed {
            Side::A => (primary, backup, "primary"),
            Side::B => (backup, primary, "backup"),
        };
        victim.signal(Signal::SIGKILL);
        assert_eq!(victim.finish().code, None);
        // Restarted before the survivor has detected the loss, it waits until the survivor has exited.
        let (role, options) = match killed {
            Side::A => (Role::Primary, &["--silence-ms", &silence_ms, "--count", "50"][..]),
            Side::B => (Role::Backup, &both[..]),
        };
        let successor = wire.start(killed, role, options);
        let text = format!("received nothing from the {name} for ");
        let result = survivor.finish().failure(13, &text).expect("a result");
        assert_eq!(result["end"], "peer_silent");
        assert!(number(&result, "handshake", "strangers") > 0, "{result}");
        let other = match killed {
            Side::A => wire.start(Side::B, Role::Backup, &both),
            Side::B => {
                wire.start(Side::A, Role::Primary, &["--silence-ms", &silence_ms, "--count", "50"])
            }
        };
        for finished in [successor.finish(), other.finish()] {
            assert_eq!(finished.success()["entries"], 50);
        }
    }
}

#[test]
fn link_down_temporarily_loses_nothing() {
    let wire = Wire::up();
    let backup = wire.start(Side::B, Role::Backup, &PATIENT);
    let options = [&["--count", "2000"], &PATIENT[..]].concat();
    let primary = wire.start(Side::A, Role::Primary, &options);
    wire.wait_for_frames(300);
    wire.ip(Side::A, "link set va down");
    std::thread::sleep(Duration::from_millis(300));
    wire.ip(Side::A, "link set va up");
    let [primary, backup] = [primary.finish().success(), backup.finish().success()];
    for result in [&primary, &backup] {
        assert_eq!(result["entries"], 2000);
    }
    assert!(number(&primary, "port", "link_downs") >= 1, "{primary}");
    assert!(number(&primary, "port", "tx_dropped") >= 1, "{primary}");
    assert!(number(&primary, "channel", "resent") >= 1, "{primary}");
    // Entries that were due while the link was down were acknowledged when it was up again.
    assert!(primary["ack_us"]["max"].as_f64() >= Some(100_000.0), "{primary}");
}

#[test]
fn link_down_permanently_is_reported_by_both_ends() {
    let wire = Wire::up();
    // Longer than the second that the kernel takes to report a lost carrier.
    let silence_ms = (2000 * factor()).to_string();
    let both = ["--silence-ms", &silence_ms];
    let backup = wire.start(Side::B, Role::Backup, &both);
    let primary =
        wire.start(Side::A, Role::Primary, &["--silence-ms", &silence_ms, "--count", "0"]);
    wire.wait_for_frames(300);
    wire.ip(Side::A, "link set va down");
    let (primary, backup) = (primary.finish(), backup.finish());
    primary.failure(13, "interface va is down: 'ip link set va up'");
    backup.failure(13, "interface vb has no carrier");
}

#[test]
fn interface_deleted_in_use_ends_both_at_once() {
    let wire = Wire::up();
    let backup = wire.start(Side::B, Role::Backup, &PATIENT);
    let endless = [&["--count", "0"], &PATIENT[..]].concat();
    let primary = wire.start(Side::A, Role::Primary, &endless);
    wire.wait_for_frames(300);
    wire.ip(Side::A, "link delete va");
    let [primary, backup] = [primary, backup]
        .map(|process| process.finish().failure(4, "was deleted while in use").expect("a result"));
    assert_eq!([&primary["end"], &backup["end"]], ["port_failed"; 2]);
    assert!(primary["entries"].as_u64() > Some(100), "{primary}");
}
