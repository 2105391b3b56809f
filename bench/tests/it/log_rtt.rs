//! `bench log-rtt` with small counts: the structure of its result, and that all data was exchanged. No
//! times are checked, because other tests run at the same time.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const VARIANTS: [&str; 6] = ["channel", "channel-insecure", "port", "udp", "tcp", "af_packet"];
const REQUESTS: u64 = 101;
const IDLE_REQUESTS: u64 = 5;
const ENTRIES: u64 = 30;
const BULK_BYTES: u64 = 3 << 20;

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench"))
}

/// Runs the benchmark with `arguments` and parses the JSON object on its last line.
fn run(arguments: &[&str]) -> Value {
    let output = bench().arg("log-rtt").args(arguments).output().expect("bench starts");
    let [text, errors] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(errors, "", "without a terminal there is no progress bar");
    serde_json::from_str(text.lines().last().expect("a result")).expect("JSON")
}

/// Returns a value of the result as a number.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn check_times(times: &Value) {
    let [p50, p99, p999] = ["p50_ns", "p99_ns", "p999_ns"].map(|name| number(&times[name]));
    assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{times}");
}

fn check_round_trips(result: &Value) {
    let variants = result["round_trips"].as_object().expect("round trips");
    assert_eq!(variants.len(), VARIANTS.len());
    for variant in VARIANTS {
        let policies = &variants[variant];
        for (policy, requests) in [("block", REQUESTS), ("spin", REQUESTS), ("idle", IDLE_REQUESTS)]
        {
            let figures = &policies[policy];
            assert_eq!(figures["requests"], requests, "{variant} {policy}");
            check_times(figures);
            let udp = number(&variants["udp"][policy]["p50_ns"]);
            let ratio = number(&figures["p50_ns"]) / udp;
            assert!((number(&figures["ratio_p50_to_udp"]) - ratio).abs() < 0.001, "{figures}");
        }
        assert!(number(&policies["idle"]["ratio_p50_to_udp_block"]) > 0.0);
        assert_eq!(policies["idle-block"].is_object(), variant == "udp", "{variant}");
    }
}

fn check_bulk(result: &Value) {
    for way in ["channel", "channel-insecure", "tcp"] {
        let figures = &result["bulk"][way];
        assert_eq!(figures["bytes"], BULK_BYTES, "{way}");
        assert!(
            number(&figures["bytes_per_second"]) > 0.0 && number(&figures["ratio_to_tcp"]) > 0.0
        );
    }
    for protection in ["channel", "channel-insecure"] {
        let both = &result["under_bulk"][protection];
        for link in ["idle", "bulk"] {
            assert_eq!(both[link]["entries"], ENTRIES, "{protection} {link}");
            check_times(&both[link]["ack"]);
            check_times(&both[link]["ack_since_due"]);
            let flows = number(&both[link]["bulk_bytes_per_second"]) > 0.0;
            assert_eq!(flows, link == "bulk", "{both}");
        }
        assert!(number(&both["ratio_p99_bulk_to_idle"]) > 0.0);
    }
    for cipher in ["aegis-128l", "aes-256-gcm", "insecure"] {
        for bytes in ["64", "1400"] {
            let cost = &result["sealing"][cipher][bytes];
            assert!(number(&cost["seal_ns"]) > 0.0 && number(&cost["open_ns"]) > 0.0, "{cipher}");
        }
    }
}

fn check_machine(result: &Value) {
    for name in ["kernel", "cpu", "command"] {
        assert!(!result["machine"][name].as_str().expect(name).is_empty(), "{name}");
    }
    assert!(number(&result["machine"]["cores"]) >= 1.0);
    assert!(result["machine"]["command"].as_str().expect("text").contains("log-rtt --json"));
}

#[test]
fn log_rtt_exchanges_and_reports_everything() {
    let folder = tempfile::tempdir().unwrap();
    let series = folder.path().join("series");
    let result = run(&[
        "--json",
        "--requests",
        &REQUESTS.to_string(),
        "--idle-requests",
        &IDLE_REQUESTS.to_string(),
        "--entries",
        &ENTRIES.to_string(),
        "--bulk-mib",
        &(BULK_BYTES >> 20).to_string(),
        "--rounds",
        "2",
        "--warm-up",
        "10",
        "--out",
        series.to_str().unwrap(),
    ]);
    assert_eq!((&result["benchmark"], &result["wire"]), (&"log-rtt".into(), &"bridge".into()));
    check_machine(&result);
    check_round_trips(&result);
    check_bulk(&result);
    check_series(&series);
}

/// Checks that every series exists in both formats, with as many values as were reported.
fn check_series(folder: &Path) {
    let names: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Each variant with three policies, UDP with a fourth one, and two series of entries for each
    // protection.
    assert_eq!(names.len(), 2 * (VARIANTS.len() * 3 + 1 + 4), "{names:?}");
    for name in names.iter().filter(|name| name.ends_with(".hgrm")) {
        assert!(names.contains(&name.replace(".hgrm", ".hlog")), "{names:?}");
        let count = match name {
            _ if name.contains("entries") => ENTRIES,
            _ if name.contains("idle") => IDLE_REQUESTS,
            _ => REQUESTS,
        };
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains(&format!("Total count    = {count:>12}]")), "{name}: {text}");
    }
}

#[test]
fn log_rtt_honours_wire_rate_and_selection_options() {
    let result = run(&[
        "--json",
        "--direct",
        "--rate=100mbit",
        "--parts=round-trips",
        "--variants=udp,channel",
        "--policies=spin",
        "--requests=20",
        "--rounds=1",
    ]);
    assert_eq!((&result["wire"], &result["rate"]), (&"veth".into(), &"100mbit".into()));
    assert_eq!(result["round_trips"].as_object().unwrap().len(), 2);
    assert_eq!(result["round_trips"]["channel"]["spin"]["requests"], 20);
    assert_eq!(result["bulk"], Value::Null);
}

#[test]
fn log_rtt_with_wrong_options_fails_with_one_line() {
    for (arguments, part) in [
        (["--server-core=1000", "--requests=1"], "core 1000"),
        (["--rate=fast", "--requests=1"], "tc "),
        (["--out=/proc/nowhere", "--requests=1"], "/proc/nowhere"),
    ] {
        let output = bench().arg("log-rtt").args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(part), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

/// Returns the network namespaces of the threads of process `id`.
fn namespaces(id: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let links = tasks.filter_map(|task| fs::read_link(task.path().join("ns/net")).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

#[test]
fn log_rtt_interrupted_leaves_no_namespace() {
    let mut child = bench()
        .args(["log-rtt", "--parts=round-trips", "--policies=idle"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let own = namespaces("self");
    // Wait until both sides have entered their namespaces.
    let inside = loop {
        let inside: BTreeSet<String> = namespaces(&id).difference(&own).cloned().collect();
        if inside.len() >= 2 {
            break inside;
        }
        assert!(child.try_wait().unwrap().is_none(), "it exited before the signal");
        std::thread::sleep(Duration::from_millis(1));
    };
    let kill = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(kill.success());
    assert!(!child.wait().unwrap().success());
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name().into_string().unwrap();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            assert!(namespaces(&name).is_disjoint(&inside), "process {name} is still inside");
        }
    }
    // Nor a named namespace, which can exist without a process.
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains(&id)), "{names:?}");
}
