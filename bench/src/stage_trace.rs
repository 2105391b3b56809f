//! Reads what `--trace-stages` wrote.

use crate::error::BenchError;
use crate::series::Series;
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use vmm::telemetry::{Passage, Stage};

/// Everything that was followed, in order.
#[derive(Debug, Default)]
pub(crate) struct StageTrace {
    /// Frames whose interrupt the guest acknowledged.
    pub(crate) deliveries: Vec<Passage>,
    /// Frames whose answer left.
    pub(crate) answers: Vec<Passage>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Delivery(Passage),
    Answer(Passage),
    End { not_kept: u64 },
}

impl StageTrace {
    /// Reads a file that is whole.
    pub(crate) fn read(path: &Path) -> Result<StageTrace, BenchError> {
        let wrong = |what: String| BenchError::Wrong(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path)
            .map_err(BenchError::os(format!("reading {}", path.display())))?;
        let mut trace = StageTrace::default();
        let mut is_whole = false;
        for line in text.lines() {
            match serde_json::from_str(line).map_err(|error| wrong(error.to_string()))? {
                Line::Delivery(passage) => trace.deliveries.push(passage),
                Line::Answer(passage) => trace.answers.push(passage),
                Line::End { not_kept: 0 } => is_whole = true,
                Line::End { not_kept } => {
                    return Err(wrong(format!("{not_kept} frames found no room")));
                }
            }
        }
        if is_whole { Ok(trace) } else { Err(wrong("it has no end".into())) }
    }

    /// The times of `stage` of answers to frames that were taken `within`, by the clock of
    /// `vmm::link::now`.
    pub(crate) fn spans(&self, stage: Stage, within: &Range<u64>) -> Series {
        let mut series = Series::new();
        let inside = self.answers.iter().filter(|passage| within.contains(&passage.taken));
        for span_ns in inside.filter_map(|passage| passage.span_ns(stage)) {
            series.record(span_ns);
        }
        series
    }
}
