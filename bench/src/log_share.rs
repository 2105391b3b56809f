//! Log bytes that a primary wrote during some work, by kind of entry: the difference between its status
//! after and before the work.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Bytes by kind of entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogShare(BTreeMap<String, u64>);

impl LogShare {
    /// Adds the bytes written between two statuses of a host.
    pub(crate) fn add(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        let bytes = |status: &Map<String, Value>, kind: &str| {
            status["log"]["bytes_by_kind"][kind].as_u64().unwrap_or(0)
        };
        for kind in after["log"]["bytes_by_kind"].as_object().into_iter().flat_map(Map::keys) {
            let added = bytes(after, kind).saturating_sub(bytes(before, kind));
            if added > 0 {
                *self.0.entry(kind.clone()).or_default() += added;
            }
        }
    }

    /// Returns the total number of bytes.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Applies `figure` to the bytes of each kind.
    pub(crate) fn by_kind(&self, figure: impl Fn(u64) -> f64) -> Value {
        let figures = self.0.iter().map(|(kind, &bytes)| (kind.clone(), json!(figure(bytes))));
        Value::Object(figures.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(kinds: &Value) -> Map<String, Value> {
        let status = json!({ "log": { "bytes_by_kind": kinds } });
        status.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn add_ignores_bytes_written_before() {
        let before = status(&json!({ "clock": 10, "page": 5 }));
        let after = status(&json!({ "clock": 14, "page": 5, "output": 3 }));
        let mut share = LogShare::default();
        share.add(&before, &after);
        share.add(&after, &after);
        assert_eq!(share.total(), 7);
        assert_eq!(share.by_kind(|bytes| bytes as f64), json!({ "clock": 4.0, "output": 3.0 }));
    }
}
