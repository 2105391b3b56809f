//! The table for people, made of the same values as the JSON.

use super::load::Load;
use serde_json::Value;
use vmm::telemetry::Stage;

/// Prints what was measured.
pub(super) fn print(figures: &Value) {
    print!("{:<19} {:>10} {:>9} {:>9}", "VM", "requests/s", "p50 us", "p99 us");
    for stage in Stage::ALL {
        print!(" {:>8}", stage.name());
    }
    println!(" {:>8}", "hold/rtt");
    for name in ["protected", "protected-insecure", "standalone"] {
        for load in Load::ALL {
            let under = &figures[name][load.name()];
            if under.is_null() {
                continue;
            }
            let service = &under["service"];
            print!(
                "{name:<19} {:>10} {:>9} {:>9}",
                load.name(),
                us(&service["p50_ns"]),
                us(&service["p99_ns"])
            );
            for stage in Stage::ALL {
                print!(" {:>8}", us(&under["stages"][stage.name()]["p50_ns"]));
            }
            let ratio = under["ratio_hold_p50_to_log_rtt"].as_f64();
            println!(" {:>8}", ratio.map_or(String::from("-"), |ratio| format!("{ratio:.2}")));
        }
    }
    println!("\nstages: medians in us. The bare channel:");
    if let Some(channels) = figures["channel"].as_object() {
        for (name, times) in channels {
            println!(
                "  {name:<21} p50 {} us, p99 {} us",
                us(&times["p50_ns"]),
                us(&times["p99_ns"])
            );
        }
    }
    let ratio = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    println!(
        "hold at 100 requests/s to the bare channel's round trip: {:.2} at the same pace, {:.2} back to back",
        ratio("ratio_p50"),
        ratio("ratio_p50_back_to_back")
    );
}

fn us(ns: &Value) -> String {
    ns.as_f64().map_or(String::from("-"), |ns| format!("{:.1}", ns / 1e3))
}
