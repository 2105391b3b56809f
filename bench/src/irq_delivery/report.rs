//! Prints the interrupt delivery table from the values of the JSON object.

use super::state::GuestState;
use crate::outcome::number;
use serde_json::Value;
use vmm::outln;

/// Prints the table.
pub(super) fn print(figures: &Value) {
    outln!(
        "{:<11} {:>11} {:<10} {:>7} {:>9} {:>9} {:>9}",
        "VM",
        "deadline us",
        "guest",
        "frames",
        "p50 us",
        "p99 us",
        "p99.9 us"
    );
    for kind in ["standalone", "protected"] {
        let Some(deadlines) = figures["by_deadline_us"][kind].as_object() else { continue };
        let mut deadlines: Vec<_> = deadlines.iter().collect();
        deadlines.sort_by_key(|(us, _)| us.parse::<u64>().unwrap_or(u64::MAX));
        for (deadline, states) in deadlines {
            for state in GuestState::ALL {
                let times = &states[state.name()];
                let us = |name: &str| number(&times[name]) / 1e3;
                outln!(
                    "{kind:<11} {deadline:>11} {:<10} {:>7} {:>9.1} {:>9.1} {:>9.1}",
                    state.name(),
                    times["frames"],
                    us("p50_ns"),
                    us("p99_ns"),
                    us("p999_ns")
                );
            }
        }
    }
}
