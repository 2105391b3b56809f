//! VMs that follow every frame (`--trace-stages`), and what they wrote.

use crate::error::BenchError;
use crate::series::Series;
use crate::vms::{Pair, PairOptions, Standalone, core_a};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use vmm::telemetry::{Passage, Stage};

/// How a VM is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Not at all.
    Standalone,
    /// By a backup, on a sealed link.
    Sealed,
    /// By a backup, on a link in the clear.
    Insecure,
}

/// Starts a VM with `options`, lets `work` run where its client is, and stops it: what `work` gave, and
/// everything that was followed. A primary has the core of a standalone VM.
pub(crate) fn followed<T: Send>(
    protection: Protection,
    options: &[&str],
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<(T, StageTrace), BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::os("making a temporary folder"))?;
    let file = folder.path().join("stages");
    let path = file.to_str().ok_or_else(|| {
        BenchError::Wrong(format!("{}: a temporary folder has to be UTF-8", file.display()))
    })?;
    let trace = ["--trace-stages", path];
    let result = match protection {
        Protection::Standalone => {
            let command = [&["run"][..], &trace, options].concat();
            let vm = Standalone::start("traced", core_a(), &command)?;
            let result = vm.client(work)?;
            vm.stop()?;
            result
        }
        Protection::Sealed | Protection::Insecure => {
            let owned = |words: &[&str]| words.iter().copied().map(String::from).collect();
            let pair = Pair::start(&PairOptions {
                sealed: protection == Protection::Sealed,
                options: owned(options),
                of_each: [owned(&trace), Vec::new()],
                ..PairOptions::default()
            })?;
            let result = pair.client(work)?;
            pair.stop()?;
            result
        }
    };
    Ok((result, StageTrace::read(&file)?))
}

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
    fn read(path: &Path) -> Result<StageTrace, BenchError> {
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
