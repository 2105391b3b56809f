//! Prints the throughput table from the values of the JSON object.

use super::subject::Kind;
use super::work::Work;
use crate::outcome::number;
use serde_json::Value;
use vmm::outln;

/// Prints the table and the ratios.
pub(super) fn print(figures: &Value) {
    outln!(
        "{:<11} {:<11} {:>8} {:>10} {:>9} {:>9}  CPU us per request",
        "work",
        "VM",
        "count",
        "per second",
        "p50 us",
        "p99 us"
    );
    for work in Work::ALL {
        let by_kind = &figures["work"][work.name()];
        for kind in Kind::ALL {
            let of = &by_kind[kind.name()];
            if of.is_null() {
                continue;
            }
            let us = |name: &str| number(&of["latency"][name]) / 1e3;
            let cpu: Vec<String> = of["cpu_us_each"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|us| format!("{:.0}", number(us)))
                .collect();
            outln!(
                "{:<11} {:<11} {:>8} {:>10.0} {:>9.1} {:>9.1}  {}",
                work.name(),
                kind.name(),
                of["count"],
                number(&of["per_second"]),
                us("p50_ns"),
                us("p99_ns"),
                cpu.join(" + ")
            );
        }
        let ratio = |name: &str| number(&by_kind[name]);
        outln!(
            "{:<11} request rate ratio, protected / standalone: {:.3}; with / without stage timestamps: {:.3}",
            work.name(),
            ratio("ratio_protected_to_standalone"),
            ratio("ratio_measured_to_not_measured")
        );
        if let Some(kinds) = by_kind["protected"]["log"]["mbit_per_s_by_kind"].as_object() {
            let mut kinds: Vec<_> =
                kinds.iter().filter_map(|(name, mbit)| Some((name, mbit.as_f64()?))).collect();
            kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
            let kinds: Vec<String> =
                kinds.iter().map(|(name, mbit)| format!("{name} {mbit:.2}")).collect();
            let each = number(&by_kind["protected"]["log"]["bytes_each"]);
            outln!(
                "{:<11} log, Mbit/s by entry kind: {}; {each:.0} bytes per request",
                "",
                kinds.join(", ")
            );
        }
    }
}
