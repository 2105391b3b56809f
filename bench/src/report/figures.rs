//! Formats figures as table cells and finds series by name.

use crate::outcome::Outcome;
use crate::series::Series;
use serde_json::Value;

/// Returns the series named by the second element of each pair, with the first element as its label.
/// Names are without the benchmark's own name in front; missing series are skipped.
pub(super) fn curves<'a>(
    outcome: &'a Outcome,
    names: &[(&'a str, &str)],
) -> Vec<(&'a str, &'a Series)> {
    let find = |name: &str| {
        let full = format!("{}.{name}", outcome.name);
        outcome.series.iter().find(|(other, _)| *other == full).map(|(_, series)| series)
    };
    names.iter().filter_map(|(label, name)| Some((*label, find(name)?))).collect()
}

/// Formats nanoseconds as microseconds.
pub(super) fn us(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |ns| {
        let us = ns / 1e3;
        if us < 100.0 { format!("{us:.1}") } else { format!("{us:.0}") }
    })
}

/// Formats nanoseconds as milliseconds.
pub(super) fn ms(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |ns| format!("{:.1}", ns / 1e6))
}

pub(super) fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or("-".into(), |number| format!("{number:.digits$}"))
}

/// Formats p50, p99 and p99.9 of a series' figures in microseconds.
pub(super) fn times(figures: &Value) -> [String; 3] {
    ["p50_ns", "p99_ns", "p999_ns"].map(|name| us(&figures[name]))
}
