//! [`Trace`]: every passage one by one, for a benchmark that compares them with its own times.

use super::passage::Passage;
use std::io::{self, Write};

/// Passages that are kept of each kind when a trace is asked for.
pub const TRACE_MAX: usize = 1 << 17;

/// The first frames that were followed. Memory is taken at the beginning; what finds no room is counted.
pub struct Trace {
    deliveries: Vec<Passage>,
    answers: Vec<Passage>,
    not_kept: u64,
}

impl Trace {
    /// Room for `max` of each kind.
    pub fn new(max: usize) -> Trace {
        Trace { deliveries: Vec::with_capacity(max), answers: Vec::with_capacity(max), not_kept: 0 }
    }

    /// A frame's interrupt was acknowledged by the guest.
    pub(super) fn delivered(&mut self, passage: &Passage) {
        keep(&mut self.deliveries, passage, &mut self.not_kept);
    }

    /// The answer to a frame left.
    pub(super) fn answered(&mut self, passage: &Passage) {
        keep(&mut self.answers, passage, &mut self.not_kept);
    }

    /// Frames that reached the guest: `taken`, `injected` and `served`.
    pub fn deliveries(&self) -> &[Passage] {
        &self.deliveries
    }

    /// Frames whose answer left.
    pub fn answers(&self) -> &[Passage] {
        &self.answers
    }

    /// Writes it as JSON lines: `{"kind":"delivery","taken":..}`, `{"kind":"answer",..}`, and last
    /// `{"kind":"end","not_kept":..}`, without which it is not whole.
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

/// Adds to a list if that needs no memory.
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
    fn keeps_the_first_and_counts_the_others() {
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
