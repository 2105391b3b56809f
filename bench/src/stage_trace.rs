//! Runs VMs that trace every frame (`--trace-stages`) and reads their trace files.

use crate::error::BenchError;
use crate::series::Series;
use crate::vms::{Protection, Vm, VmOptions};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use vmm::telemetry::{Passage, Stage};

/// Starts a VM with `options`, runs `work` in the client's namespace and stops the VM. Returns the
/// result of `work` and the trace. A primary runs on the core of a standalone VM.
pub(crate) fn run_traced<T: Send>(
    protection: Protection,
    options: &[&str],
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<(T, StageTrace), BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::os("making a temporary folder"))?;
    let file = folder.path().join("stages");
    let path = file.to_str().ok_or_else(|| {
        BenchError::Wrong(format!(
            "{}: the path of the temporary folder must be UTF-8",
            file.display()
        ))
    })?;
    let of_first = ["--trace-stages", path].map(String::from).to_vec();
    let vm = Vm::start(protection, &VmOptions { of_first, ..VmOptions::new(options) })?;
    let result = vm.client(work)?;
    vm.stop()?;
    Ok((result, StageTrace::read(&file)?))
}

/// All traced frames, in order.
#[derive(Debug, Default)]
pub(crate) struct StageTrace {
    /// Frames whose interrupt the guest acknowledged.
    pub(crate) deliveries: Vec<Passage>,
    /// Frames whose answer was written to the tap.
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
    /// Reads a trace file. Fails if it is incomplete.
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
                    return Err(wrong(format!(
                        "{not_kept} frames did not fit into the trace buffer"
                    )));
                }
            }
        }
        if is_whole { Ok(trace) } else { Err(wrong("it is incomplete".into())) }
    }

    /// Returns the times of `stage` for answers to frames that were read from the tap `within` the
    /// given interval, by the clock of `vmm::link::now`.
    pub(crate) fn spans(&self, stage: Stage, within: &Range<u64>) -> Series {
        let mut series = Series::new();
        let inside = self.answers.iter().filter(|passage| within.contains(&passage.taken));
        for span_ns in inside.filter_map(|passage| passage.span_ns(stage)) {
            series.record(span_ns);
        }
        series
    }
}
