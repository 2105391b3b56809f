//! Prints the output hold table from the values of the JSON object.

use super::load::Load;
use crate::outcome::number;
use serde_json::Value;
use vmm::outln;
use vmm::telemetry::Stage;

/// Prints the table and the ratios.
pub(super) fn print(figures: &Value) {
    let stages: String = Stage::ALL.map(|stage| format!(" {:>8}", stage.name())).concat();
    outln!(
        "{:<19} {:>10} {:>9} {:>9}{stages} {:>8}",
        "VM",
        "requests/s",
        "p50 us",
        "p99 us",
        "hold/rtt"
    );
    for name in ["protected", "protected-strict", "protected-insecure", "standalone"] {
        for load in Load::ALL {
            let under = &figures[name][load.name()];
            if under.is_null() {
                continue;
            }
            let service = &under["service"];
            let median = |stage: Stage| us(&under["stages"][stage.name()]["p50_ns"]);
            let medians = Stage::ALL.map(|stage| format!(" {:>8}", median(stage))).concat();
            let ratio = under["ratio_hold_p50_to_log_rtt"].as_f64();
            outln!(
                "{name:<19} {:>10} {:>9} {:>9}{medians} {:>8}",
                load.name(),
                us(&service["p50_ns"]),
                us(&service["p99_ns"]),
                ratio.map_or(String::from("-"), |ratio| format!("{ratio:.2}"))
            );
        }
    }
    outln!("\nStage columns are medians in us. Round trip of the bare channel:");
    if let Some(channels) = figures["channel"].as_object() {
        for (name, times) in channels {
            outln!("  {name:<21} p50 {} us, p99 {} us", us(&times["p50_ns"]), us(&times["p99_ns"]));
        }
    }
    let ratio = |name: &str| number(&figures[name]);
    outln!(
        "p50 ratio at 100 requests/s, output hold / bare channel round trip: {:.2} (round trips at the same pace), {:.2} (back to back)",
        ratio("ratio_p50"),
        ratio("ratio_p50_back_to_back")
    );
    outln!(
        "p50 ratio at 100 requests/s, output hold with --output-commit strict / early: {:.2}",
        ratio("ratio_p50_strict_to_early")
    );
}

fn us(ns: &Value) -> String {
    ns.as_f64().map_or(String::from("-"), |ns| format!("{:.1}", ns / 1e3))
}
