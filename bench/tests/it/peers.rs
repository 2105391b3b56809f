//! `bench peers` with small counts: every VM answered, and the structure of the result. No times are
//! checked, because other tests run at the same time.

use crate::running::{bench, measure, number};
use serde_json::Value;
use std::fs;

fn check_times(subject: &Value) {
    for what in ["ping", "counter"] {
        let [p50, p99, p999] = ["p50_ns", "p99_ns", "p999_ns"]
            .map(|quantile| number(subject, &format!("/{what}/{quantile}")));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{subject}");
    }
}

#[test]
fn peers_all_answer_and_ratios_are_those_of_the_medians() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let counts = ["--pings", "41", "--requests", "53", "--turns", "2", "--gap-us", "100"];
    let result = measure(&[&["peers", "--json", "--out", out], &counts[..]].concat());
    assert!(result["qemu"].as_str().is_some_and(|text| text.contains("version")), "{result}");
    let subjects = result["subjects"].as_object().expect("subjects");
    let names: Vec<&str> = subjects.keys().map(String::as_str).collect();
    let all = [
        "qemu-irqchip-off",
        "qemu-irqchip-on",
        "qemu-irqchip-split",
        "understudy",
        "understudy-blocking",
    ];
    assert_eq!(names, all);
    let booted: Vec<&str> = subjects
        .iter()
        .filter(|(_, subject)| match subject["does_not_boot"].as_str() {
            // A KVM may lack what a variant needs. The result must say so, and at least one variant
            // must boot.
            Some(why) => {
                assert!(!why.is_empty());
                false
            }
            None => {
                check_times(subject);
                true
            }
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(booted.contains(&"understudy") && booted.contains(&"understudy-blocking"));
    for what in ["ping", "counter"] {
        let p50 = |name: &str| number(&result, &format!("/subjects/{name}/{what}/p50_ns"));
        let best = result[format!("best_qemu_{what}")].as_str().expect("a QEMU");
        assert!(booted.iter().filter(|name| name.starts_with("qemu")).all(|q| p50(best) <= p50(q)));
        for (ours, suffix) in [("understudy-blocking", ""), ("understudy", "_spinning")] {
            let ratio = number(&result, &format!("/ratio_{what}_p50_to_qemu{suffix}"));
            assert!((ratio - p50(ours) / p50(best)).abs() < 0.001, "{result}");
        }
        for name in &booted {
            let file = folder.path().join(format!("peers.{name}.{what}.hgrm"));
            let text = fs::read_to_string(&file).unwrap();
            let count = if what == "ping" { 41 } else { 53 };
            assert!(text.contains(&format!("Total count    = {count:>12}]")), "{text}");
        }
    }
}

#[test]
fn peers_without_qemu_fails_with_one_line_that_names_the_package() {
    let output = bench(&["peers", "--json", "--qemu", "/nowhere/qemu-system-x86_64"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("install --no-install-recommends qemu-system-x86'"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
