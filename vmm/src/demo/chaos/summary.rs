//! The results of a run.

use super::ChaosPlan;
use super::kind::Kind;
use crate::demo::pair::totals::{Totals, object, table};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::ops::Range;
use std::path::PathBuf;
use testbed::figures::ms;
use testbed::pace::Pace;
use testbed::pair::Host;

/// Significant digits of the outages.
const DIGITS: u8 = 3;

/// What the faults of one kind did.
#[derive(Clone, Debug)]
struct OfKind {
    kind: Kind,
    /// The longest time without an answer to the prober during each fault, in nanoseconds.
    outages_ns: Histogram<u64>,
    /// Faults during which a host was taken for dead by mistake. Their outages have no bound.
    disturbed: u64,
}

impl OfKind {
    fn new(kind: Kind) -> OfKind {
        OfKind { kind, outages_ns: histogram(), disturbed: 0 }
    }

    fn json(&self) -> Value {
        json!({
            "count": self.outages_ns.len(),
            "disturbed": self.disturbed,
            "outage_ms": spread(&self.outages_ns),
        })
    }
}

/// Returns a quantile of times in milliseconds; `None` if there are none.
fn quantile_ms(times_ns: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!times_ns.is_empty()).then(|| ms(times_ns.value_at_quantile(quantile)))
}

/// Returns an object with the median, the 99th percentile and the maximum of times, in milliseconds.
fn spread(times_ns: &Histogram<u64>) -> Value {
    let of = |quantile| quantile_ms(times_ns, quantile);
    json!({ "p50": of(0.5), "p99": of(0.99), "max": of(1.0) })
}

/// Describes times by their median and their maximum.
fn median(times_ns: &Histogram<u64>) -> String {
    let [p50, max] = [0.5, 1.0].map(|quantile| quantile_ms(times_ns, quantile).unwrap_or(0.0));
    format!("{p50:.1} ms median, {max:.1} ms maximum")
}

fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("the number of digits is valid")
}

fn record(times_ns: &mut Histogram<u64>, time_ns: u64) {
    times_ns.record(time_ns).expect("the histogram resizes itself");
}

/// The fault that is being injected.
#[derive(Clone, Copy, Debug)]
struct Current {
    kind: Kind,
    /// Whom it hits, once that is known.
    host: Option<Host>,
}

/// All results of a run.
#[derive(Debug)]
pub struct ChaosSummary {
    plan: ChaosPlan,
    pace: Pace,
    kinds: Vec<OfKind>,
    /// How long the outputs of the VM waited at the end of each sync, in nanoseconds.
    syncs_ns: Histogram<u64>,
    /// Number of faults that were begun.
    begun: u64,
    current: Option<Current>,
    /// Why the run ended early.
    failure: Option<String>,
    /// After a failure, no other host could have continued the VM.
    pub(super) is_unprotected: bool,
    /// Divergences that faults have caused. They are not in the totals.
    pub(super) corrupted: u64,
    /// Counts over the whole run.
    pub(super) totals: Totals,
    /// The folder of the hosts' logs, after a failure.
    pub(super) logs: Option<PathBuf>,
}

impl ChaosSummary {
    /// Returns the results of a run that has not begun, with these kinds of faults.
    pub(super) fn new(plan: ChaosPlan, pace: Pace, kinds: Vec<Kind>) -> ChaosSummary {
        ChaosSummary {
            plan,
            pace,
            kinds: kinds.into_iter().map(OfKind::new).collect(),
            syncs_ns: histogram(),
            begun: 0,
            current: None,
            failure: None,
            is_unprotected: false,
            corrupted: 0,
            totals: Totals::default(),
            logs: None,
        }
    }

    /// Returns the kinds of faults.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.kinds.iter().map(|of| of.kind).collect()
    }

    /// Records that a fault of this kind is the next one. Returns its number.
    pub(super) fn begin(&mut self, kind: Kind) -> u64 {
        self.begun += 1;
        self.current = Some(Current { kind, host: None });
        self.begun
    }

    /// Records that the current fault hits `host`.
    pub(super) fn hit(&mut self, host: Host) {
        if let Some(current) = &mut self.current {
            current.host = Some(host);
        }
    }

    /// Records that a fault is repaired.
    pub(super) fn done(&mut self, kind: Kind, outage_ns: u64, is_disturbed: bool) {
        if let Some(of) = self.kinds.iter_mut().find(|of| of.kind == kind) {
            record(&mut of.outages_ns, outage_ns);
            of.disturbed += u64::from(is_disturbed);
        }
    }

    /// Records the ends of all syncs.
    pub(super) fn record_syncs(&mut self, syncs_ns: &[Range<u64>]) {
        for sync in syncs_ns {
            record(&mut self.syncs_ns, sync.end.saturating_sub(sync.start));
        }
    }

    /// Records that there are no more faults.
    pub(super) fn all_done(&mut self) {
        self.current = None;
    }

    /// Records why the run ended early.
    pub(super) fn failed(&mut self, why: &str) {
        let place = match self.current {
            None => String::from("before or after all faults"),
            Some(Current { kind, host }) => {
                let host = host.map_or(String::new(), |host| format!(" on host {host}"));
                format!("fault {} ({}{host})", self.begun, kind.name())
            }
        };
        self.failure = Some(format!("{place}: {why}"));
    }

    /// Returns whether the run ended early.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns the number of faults that were repaired.
    fn count(&self) -> u64 {
        self.kinds.iter().map(|of| of.outages_ns.len()).sum()
    }

    /// Returns the results as a JSON object.
    pub fn json(&self) -> Map<String, Value> {
        let totals = &self.totals;
        let kinds = self.kinds.iter().map(|of| (of.kind.name().to_string(), of.json()));
        let mut result = object(json!({
            "minutes": self.plan.time.as_secs_f64() / 60.0,
            "faults": self.count(),
            "by_kind": kinds.collect::<Map<_, _>>(),
            "lost": totals.lost,
            "repeated": totals.repeated,
            "contradictory": totals.contradictory(),
            "unprotected": u64::from(self.is_unprotected),
            "disturbed": self.disturbed(),
            "corrupted": self.corrupted,
            "sync_hold_ms": spread(&self.syncs_ns),
            "failure": self.failure,
            "logs": self.logs.as_ref().map(|path| path.display().to_string()),
            "silence_ms": self.pace.silence_ms(),
            "pace": self.pace.json(),
            "seed": self.plan.seed,
        }));
        result.extend(totals.json(&self.plan.vm.guest));
        result
    }

    fn disturbed(&self) -> u64 {
        self.kinds.iter().map(|of| of.disturbed).sum()
    }

    /// Returns the results as a table.
    pub fn table(&self) -> String {
        let row = |name: &str, value: String| (name.to_string(), value);
        let mut rows = vec![row("faults", self.count().to_string())];
        rows.extend(self.kinds.iter().map(|of| {
            let outages = format!("{:4}, outage {}", of.outages_ns.len(), median(&of.outages_ns));
            (format!("  {}", of.kind.name()), outages)
        }));
        rows.push(row("outputs held at the end of a sync", median(&self.syncs_ns)));
        rows.extend(self.totals.client_rows(&self.plan.vm.guest));
        rows.extend(self.totals.disk_rows());
        rows.extend(self.totals.host_rows());
        rows.extend([
            row("divergences by corrupted memory", self.corrupted.to_string()),
            row("faults with a false alarm", self.disturbed().to_string()),
            row("unprotected at the end", u64::from(self.is_unprotected).to_string()),
            row("seed", self.plan.seed.to_string()),
        ]);
        table(&rows)
    }

    /// Describes in one line what is not as it must be, and how to repeat the run. `None` if all is well.
    pub fn fault(&self) -> Option<String> {
        let why = self.failure.clone().or_else(|| self.totals.fault())?;
        let logs = self.logs.as_ref();
        let logs = logs.map_or(String::new(), |path| format!("; logs: {}", path.display()));
        let (seed, command) = (self.plan.seed, self.plan.command());
        Some(format!("{why}; seed {seed}{logs}; repeat with: {command}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use testbed::Guest;
    use testbed::pace::Measured;

    fn summary() -> ChaosSummary {
        let time = Duration::from_secs(90);
        let plan = ChaosPlan { time, seed: 7, kinds: Kind::ALL.to_vec(), ..ChaosPlan::default() };
        let ms = Duration::from_millis;
        let measured = Measured { start: ms(60), answer: ms(1), answers: 20 };
        let pace = Pace::new(&Guest::Reference, measured, None).unwrap();
        ChaosSummary::new(plan, pace, Kind::ALL.to_vec())
    }

    #[test]
    fn outages_are_reported_by_kind() {
        let mut summary = summary();
        for (outage_ms, is_disturbed) in [(100, false), (200, true)] {
            summary.begin(Kind::KillPrimary);
            summary.done(Kind::KillPrimary, outage_ms * 1_000_000, is_disturbed);
        }
        let json = summary.json();
        assert_eq!((&json["faults"], &json["disturbed"]), (&json!(2), &json!(1)));
        let kills = &json["by_kind"]["kill-primary"];
        assert_eq!((&kills["count"], &kills["disturbed"]), (&json!(2), &json!(1)));
        assert!(
            kills["outage_ms"]["max"].as_f64().is_some_and(|max| (199.0..202.0).contains(&max))
        );
        assert_eq!(json["by_kind"]["handover"]["outage_ms"]["p50"], Value::Null);
        assert_eq!(summary.fault(), None);
        assert!(summary.table().contains("kill-primary"));
    }

    #[test]
    fn failure_names_the_fault_the_seed_and_the_command() {
        let mut summary = summary();
        assert_eq!(summary.begin(Kind::CutLogLink), 1);
        summary.hit(Host::B);
        summary.failed("nothing works");
        summary.logs = Some("/tmp/logs".into());
        let text = summary.fault().unwrap();
        for part in ["fault 1 (cut-log-link on host B)", "nothing works", "seed 7", "/tmp/logs"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("understudy demo --chaos 1.5 --seed 7"), "{text}");
    }

    #[test]
    fn wrong_totals_are_a_failure() {
        let mut summary = summary();
        summary.totals.lost = 1;
        assert!(summary.fault().is_some_and(|text| text.starts_with("1 numbers were lost")));
    }
}
