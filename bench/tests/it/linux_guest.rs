//! `bench linux-guest` with few requests: the structure of its result, and that it measured what it
//! claims. Needs the snapshot of `scripts/linux-guest.sh`, and fails without it.

use crate::running::{bench, measure, number};

#[test]
fn linux_guest_measures_both_vms_and_only_the_protected_one_has_a_log() {
    let result = measure(&["linux-guest", "--json", "--rounds=1", "--requests=20"]);
    for kind in ["standalone", "protected"] {
        let of = |what: &str| number(&result, &format!("/{kind}/{what}"));
        assert_eq!(of("count"), 20.0, "{result}");
        assert!(0.0 < of("latency/p50_ns") && of("per_second") > 0.0, "{result}");
    }
    let p50 = |kind: &str| number(&result, &format!("/{kind}/latency/p50_ns"));
    let ratio = number(&result, "/ratio_protected_to_standalone_p50");
    assert!((ratio - p50("protected") / p50("standalone")).abs() < 1e-9, "{result}");
    let bytes = number(&result, "/protected/log/bytes_each");
    let kinds = result["protected"]["log"]["bytes_each_by_kind"].as_object().expect("kinds");
    let sum: f64 = kinds.values().filter_map(serde_json::Value::as_f64).sum();
    assert!(bytes > 0.0 && (sum - bytes).abs() < 1.0, "{result}");
    // A request arrives in a frame, and its answer is an output.
    for kind in ["frame", "output", "interrupt"] {
        assert!(number(&result, &format!("/protected/log/bytes_each_by_kind/{kind}")) > 0.0);
    }
    assert!(result["standalone"]["log"].is_null(), "{result}");
}

#[test]
fn linux_guest_without_a_snapshot_fails_with_one_line() {
    let output = bench(&["linux-guest", "--snapshot=/nonexistent"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("scripts/linux-guest.sh"), "{errors}");
}
