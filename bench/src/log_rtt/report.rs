//! Prints the tables from the values of the JSON object.

use super::policy::Policy;
use super::variant::Variant;
use crate::outcome::number;
use crate::seal_cost;
use clap::ValueEnum;
use serde_json::Value;
use vmm::outln;

/// Prints one table for each part that was measured.
pub(super) fn print(result: &Value) {
    let variants = &result["round_trips"];
    if variants.is_object() {
        outln!(
            "p50 latency ratios: variant / UDP, variant / TCP, variant / UDP with policy idle-block"
        );
        outln!(
            "{:<10} {:<17} {:>8} {TIMES} {:>6} {:>6} {:>10}",
            "policy",
            "variant",
            "requests",
            "/udp",
            "/tcp",
            "/udp-block"
        );
        let all = Policy::value_variants().iter().flat_map(|policy| {
            Variant::value_variants().iter().map(|variant| (policy.name(), variant.name()))
        });
        for (policy, variant) in all {
            let figures = &variants[variant][policy];
            if figures.is_null() {
                continue;
            }
            outln!(
                "{policy:<10} {variant:<17} {:>8} {} {:>6} {:>6} {:>10}",
                figures["requests"],
                times(figures),
                text(&figures["ratio_p50_to_udp"]),
                text(&figures["ratio_p50_to_tcp"]),
                text(&figures["ratio_p50_to_udp_block"])
            );
        }
    }
    if let Some(ways) = result["bulk"].as_object() {
        outln!("\n{:<17} {:>8} {:>10} {:>12}", "bulk", "MB/s", "MB/s / tcp", "retransmits");
        for (way, figures) in ways {
            outln!(
                "{way:<17} {:>8.0} {:>10} {:>12}",
                megabytes(&figures["bytes_per_second"]),
                text(&figures["ratio_to_tcp"]),
                figures["frames_resent"]
            );
        }
    }
    if let Some(protections) = result["under_bulk"].as_object() {
        outln!(
            "\n{:<17} {:<10} {:>8} {TIMES} {:>10} {:>12}",
            "entries",
            "link",
            "entries",
            "bulk MB/s",
            "retransmits"
        );
        for (protection, both) in protections {
            for link in ["idle", "bulk"] {
                let figures = &both[link];
                outln!(
                    "{protection:<17} {link:<10} {:>8} {} {:>10.0} {:>12}",
                    figures["entries"],
                    times(&figures["ack"]),
                    megabytes(&figures["bulk_bytes_per_second"]),
                    figures["frames_resent"]
                );
            }
            let [p50, p99] =
                ["ratio_p50_bulk_to_idle", "ratio_p99_bulk_to_idle"].map(|name| text(&both[name]));
            outln!("{protection:<17} {:<10} {:>8} {p50:>9} {p99:>9}", "bulk/idle", "ratio");
        }
    }
    if result["sealing"].is_object() {
        outln!("");
        seal_cost::print(&result["sealing"]);
    }
}

/// Column heads of [`times`].
const TIMES: &str = "   p50 us    p99 us  p99.9 us";

fn times(figures: &Value) -> String {
    let us = |name: &str| number(&figures[name]) / 1000.0;
    format!("{:>9.2} {:>9.2} {:>9.2}", us("p50_ns"), us("p99_ns"), us("p999_ns"))
}

fn megabytes(bytes: &Value) -> f64 {
    number(bytes) / 1e6
}

/// Formats a ratio; `-` if there is none.
fn text(ratio: &Value) -> String {
    ratio.as_f64().map_or(String::from("-"), |ratio| format!("{ratio:.2}"))
}
