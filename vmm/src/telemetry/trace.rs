//! [`Trace`]: the timestamps of every sampled frame, for benchmarks that compare them with their own.

use super::passage::Passage;
use std::io::{self, Write};

/// The first passages of each kind. Memory is allocated at the beginning; further passages are only counted.
pub struct Trace {
    deliveries: Vec<Passage>,
    answers: Vec<Passage>,
    not_kept: u64,
}

impl Trace {
    /// Creates a trace with room for `max` passages of each kind.
    pub fn new(max: usize) -> Trace {
        Trace { deliveries: Vec::with_capacity(max), answers: Vec::with_capacity(max), not_kept: 0 }
    }

    /// Records a frame whose interrupt the guest has acknowledged.
    pub(super) fn delivered(&mut self, passage: &Passage) {
        keep(&mut self.deliveries, passage, &mut self.not_kept);
    }

    /// Records a frame whose answer has left.
    pub(super) fn answered(&mut self, passage: &Passage) {
        keep(&mut self.answers, passage, &mut self.not_kept);
    }

    /// Returns the frames that reached the guest, with `taken`, `injected` and `served`.
    pub fn deliveries(&self) -> &[Passage] {
        &self.deliveries
    }

    /// Returns the frames whose answer has left.
    pub fn answers(&self) -> &[Passage] {
        &self.answers
    }

    /// Writes the trace as JSON lines: `{"kind":"delivery","taken":..}`, `{"kind":"answer",..}`, and last
    /// `{"kind":"end","not_kept":..}`. A file without the last line is incomplete.
    ///
    /// # Errors
    ///
    /// Errors of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (kind, passages) in [("delivery", &self.deliveries), ("answer", &self.answers)] {
            for passage in passages {
                let mut line = serde_json::to_value(passage)?;
                line["kind"] = kind.into();
                writeln!(out, "{line}")?;
            }
        }
        writeln!(out, "{}", serde_json::json!({ "kind": "end", "not_kept": self.not_kept }))
    }
}

/// Appends to `list` if that needs no allocation; otherwise counts the passage as not kept.
fn keep(list: &mut Vec<Passage>, passage: &Passage, not_kept: &mut u64) {
    if list.len() < list.capacity() {
        list.push(*passage);
    } else {
        *not_kept += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_keeps_first_passages_and_counts_others() {
        let mut trace = Trace::new(2);
        for taken in 1..=5 {
            trace.delivered(&Passage { taken, ..Passage::default() });
        }
        let mut text = Vec::new();
        trace.write(&mut text).unwrap();
        let lines: Vec<serde_json::Value> = String::from_utf8(text)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[1]["kind"], &lines[1]["taken"]), (&"delivery".into(), &2.into()));
        assert_eq!(lines[2], serde_json::json!({ "kind": "end", "not_kept": 3 }));
    }
}
