//! The benchmarks of a frame's stages, with small counts: all requests were answered and traced, and
//! the structure of the results. No times are checked, because other tests run at the same time.

use crate::running::{measure, number};
use serde_json::Value;
use std::fs;

fn check_times(times: &Value) {
    let [p50, p99, p999] = ["/p50_ns", "/p99_ns", "/p999_ns"].map(|pointer| number(times, pointer));
    assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{times}");
}

#[test]
fn irq_delivery_accounts_for_every_frame_sent() {
    let result =
        measure(&["irq-delivery", "--json", "--rounds=1", "--frames=20", "--deadlines-us=3000"]);
    assert_eq!(result["deadline_us"], 1000);
    for state in ["idle", "computing", "mix"] {
        check_times(&result[state]);
        for kind in ["standalone", "protected"] {
            for deadline in ["1000", "3000"] {
                let figures = &result["by_deadline_us"][kind][deadline][state];
                check_times(figures);
                let [seen, not_seen, shadowed] =
                    ["/frames", "/not_seen", "/shadowed"].map(|pointer| number(figures, pointer));
                assert_eq!(
                    seen + not_seen + shadowed,
                    20.0,
                    "{kind} {deadline} {state}: {figures}"
                );
            }
        }
    }
}

#[test]
fn output_hold_covers_send_and_ack_and_is_absent_without_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let result = measure(&[
        "output-hold",
        "--json",
        "--rounds=1",
        "--requests=40",
        "--slow-requests=1",
        "--round-trips=200",
        "--out",
        out,
    ]);
    for kind in ["protected", "protected-strict", "protected-insecure", "standalone"] {
        for (load, requests) in [("1", 1), ("100", 40), ("1000", 40), ("saturating", 40)] {
            let under = &result[kind][load];
            assert_eq!(under["requests"], requests, "{kind} {load}");
            check_times(&under["service"]);
            let p50 = |stage: &str| under["stages"][stage]["p50_ns"].as_f64();
            assert!(p50("inject").is_some() && p50("guest").is_some() && p50("leave").is_some());
            let [send, ack, hold] = ["send", "ack", "hold"].map(p50);
            match kind {
                "standalone" => assert_eq!([send, ack, hold], [None; 3]),
                _ => assert!(hold.unwrap() >= send.unwrap().max(ack.unwrap()), "{under}"),
            }
        }
    }
    let p50 = |name: &str| number(&result, &format!("/{name}/p50"));
    let ratio = p50("hold_ns") / p50("log_rtt_ns");
    assert!((number(&result, "/ratio_p50") - ratio).abs() < 0.001, "{result}");
    let hold = |kind: &str| number(&result, &format!("/{kind}/100/hold_ns/p50"));
    let ratio = hold("protected-strict") / hold("protected");
    assert!((number(&result, "/ratio_p50_strict_to_early") - ratio).abs() < 0.001, "{result}");
    assert!(p50("log_rtt_back_to_back_ns") > 0.0 && p50("hold_ns") > 0.0);
    let saved = fs::read_to_string(folder.path().join("output-hold.protected.100.hold.hgrm"));
    assert!(saved.unwrap().contains("Total count"));
}

#[test]
fn throughput_counts_the_work_of_each_vm() {
    let result = measure(&["throughput", "--json", "--rounds=1", "--requests=160", "--echo-mib=1"]);
    let bytes = number(&result["work"]["counter-1"]["protected"], "/log/bytes_each");
    assert!((20.0..2000.0).contains(&bytes), "{bytes} bytes of log for each request");
    for (work, count) in [("counter-1", 160), ("counter-16", 160), ("echo", 4)] {
        let by_kind = &result["work"][work];
        for kind in ["standalone", "no-stages", "protected"] {
            assert_eq!(by_kind[kind]["count"], count, "{work} {kind}");
            check_times(&by_kind[kind]["latency"]);
        }
        let rate = |kind: &str| number(&by_kind[kind], "/per_second");
        let ratio = number(by_kind, "/ratio_protected_to_standalone");
        assert!((ratio - rate("protected") / rate("standalone")).abs() < 0.001);
        // One value for the primary and one for the backup.
        assert_eq!(by_kind["protected"]["cpu_us_each"].as_array().map(Vec::len), Some(2));
    }
    for connections in ["/1", "/16"] {
        number(&result["ratio_protected_to_standalone"], connections);
    }
}
