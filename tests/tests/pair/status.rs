//! `understudy status` of a protected VM, under load and idle.

use serde_json::Value;
use std::time::Duration;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Process, Rig};
use tests::patience::wait_until;
use tests::program::{json, run};
use tests::schema;
use tests::wait_for;

/// Runs `understudy status --json` and parses its output.
fn status(process: &Process) -> Value {
    let output = run(&["status", "--socket", process.socket(), "--json"]);
    assert!(output.status.success(), "{output:?}");
    json(&String::from_utf8_lossy(&output.stdout))
}

fn number(status: &Value, pointer: &str) -> f64 {
    let value = status.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {pointer}: {status}"))
}

#[test]
fn status_of_both_hosts_matches_their_activity() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    primary.wait_for_role("alone");
    assert!(status(&primary)["peer"].is_null());
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    wait_for!(backup, PairEvent::Following);
    let ((), clients) = Clients::during(&rig, |clients| {
        // Rates cover about the last second.
        std::thread::sleep(Duration::from_millis(2500));
        wait_until("some outputs that were held", || primary.figure("hold.released") > 100.0);
        clients.wait_until_served();
        let [a, b] = [&primary, &backup].map(status);
        schema::fits("status", &[a.clone(), b.clone()]);
        let with = |name: &str, value: Value| {
            let mut status = a.clone();
            status[name] = value;
            status
        };
        for wrong in [with("more", 1.into()), with("role", "king".into()), with("term", "1".into())]
        {
            assert_ne!(schema::errors("status", &[wrong]), "");
        }
        assert_eq!((&a["role"], &b["role"]), (&"protected".into(), &"following".into()));
        for (status, role, mac) in
            [(&a, "backup", Host::B.log_mac()), (&b, "primary", Host::A.log_mac())]
        {
            assert_eq!((&status["term"], &status["divergences"]), (&1.into(), &0.into()));
            assert_eq!(
                (&status["peer"]["role"], &status["peer"]["mac"]),
                (&role.into(), &mac.into())
            );
            assert!(number(status, "/uptime_s") > 2.0, "{status}");
            assert!(number(status, "/peer/heard_ms_ago") >= 0.0, "{status}");
            assert!(number(status, "/log/wire_frames_per_s") > 1.0, "{status}");
        }
        assert!(number(&a, "/peer/round_trip_us") > 0.0, "{a}");
        assert_eq!((&a["checkpoints"]["syncs"], &a["backups_lost"]), (&1.into(), &0.into()));
        assert!(number(&a, "/checkpoints/last_sync_pause_ms") > 0.0, "{a}");
        assert!(number(&b, "/checkpoints/applied") >= 1.0, "{b}");
        // The sync's checkpoints count in the bytes, but not in the times.
        assert!(number(&a, "/checkpoints/bytes") >= 1000.0, "{a}");
        for (status, name, count) in [(&a, "still", "sent"), (&b, "apply", "applied")] {
            let timed = number(status, &format!("/checkpoints/{name}/count"));
            assert!(timed < number(status, &format!("/checkpoints/{count}")), "{status}");
        }
        assert!(number(&a, "/hold/released") > 100.0, "{a}");
        assert!(number(&a, "/hold/p50_us") <= number(&a, "/hold/p99_us"), "{a}");
        assert!(number(&a, "/hold/p99_us") <= number(&a, "/hold/max_us"), "{a}");
        for kind in ["exit", "frame", "output"] {
            assert!(number(&a, &format!("/log/mbit_per_s_by_kind/{kind}")) > 0.0, "{a}");
        }
        // The wire carries the log and more.
        assert!(number(&a, "/log/wire_mbit_per_s") > number(&a, "/log/mbit_per_s"), "{a}");
        println!("under load: {}", a["log"]);
    });
    drop(clients);
    // Without clients, only the VM's clock makes entries.
    std::thread::sleep(Duration::from_millis(3500));
    let [a, b] = [&primary, &backup].map(status);
    println!("idle, primary: {} Mbit/s on the wire; {}", a["log"]["wire_mbit_per_s"], a["log"]);
    println!("idle, backup: {} Mbit/s on the wire; {}", b["log"]["wire_mbit_per_s"], b["log"]);
    assert_eq!(number(&a, "/hold/waiting"), 0.0, "{a}");
    let text = run(&["status", "--socket", primary.socket()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.lines().any(|line| line.starts_with("log.wire_mbit_per_s ")), "{text}");
    let gone = primary.socket().to_string();
    drop(primary);
    let output = run(&["status", "--socket", &gone]);
    assert_eq!(output.status.code(), Some(15), "{output:?}");
}
