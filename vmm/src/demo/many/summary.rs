//! The results of a demonstration with several VMs.

use super::ManyPlan;
use crate::demo::pair::Totals;
use crate::demo::pair::totals::{object, table};
use serde_json::{Map, Value, json};
use testbed::figures::{ms, percentile, spread_ms};
use testbed::pace::Pace;
use testbed::pair::{LostPart, PairVm};

/// What the loss of a host was to one VM. Times are in nanoseconds.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The VM.
    pub vm: PairVm,
    /// Its process on that host.
    pub part: LostPart,
    /// If the other host took the VM over: from the kill until it noticed it, and from then until it was live.
    pub times_ns: Option<[u64; 2]>,
    /// The longest time without an answer to the prober.
    pub outage_ns: u64,
    /// The longest time without an answer on the counter connection.
    pub tcp_gap_ns: u64,
}

/// The results of one VM.
#[derive(Clone, Debug)]
pub struct VmResult {
    /// The VM.
    pub vm: PairVm,
    /// Counts over the whole demonstration.
    pub totals: Totals,
}

/// All results of a demonstration.
#[derive(Clone, Debug)]
pub struct ManySummary {
    plan: ManyPlan,
    pace: Pace,
    /// What each loss of a host was to each VM.
    pub losses: Vec<Loss>,
    /// From the return of a lost host until all VMs were protected, for each loss.
    pub protected_again_ns: Vec<u64>,
    /// The results of each VM.
    pub vms: Vec<VmResult>,
}

impl ManySummary {
    pub(super) fn new(plan: ManyPlan, pace: Pace) -> ManySummary {
        let (losses, protected_again_ns, vms) = (Vec::new(), Vec::new(), Vec::new());
        ManySummary { plan, pace, losses, protected_again_ns, vms }
    }

    /// Returns a time of each loss of a VM's process that was `part`.
    fn all(&self, part: LostPart, value: impl Fn(&Loss) -> Option<u64>) -> Vec<u64> {
        self.losses.iter().filter(|loss| loss.part == part).filter_map(value).collect()
    }

    fn outages(&self, part: LostPart) -> Vec<u64> {
        self.all(part, |loss| Some(loss.outage_ns))
    }

    /// Returns the results as a JSON object.
    pub fn json(&self) -> Map<String, Value> {
        use LostPart::{Backup, Primary};
        let tcp = |part| self.all(part, |loss| Some(loss.tcp_gap_ns));
        let of_takeover = |index: usize| self.all(Primary, |loss| Some(loss.times_ns?[index]));
        let per_vm: Vec<_> = self.vms.iter().map(|result| self.vm_json(result)).collect();
        object(json!({
            "vms": self.plan.vms,
            "kills": self.plan.kills,
            "completed_kills": self.protected_again_ns.len(),
            "failovers": self.outages(Primary).len(),
            "continued": self.outages(Backup).len(),
            "outage_ms": spread_ms(&self.outages(Primary), &[50, 99, 100]),
            "tcp_gap_ms": spread_ms(&tcp(Primary), &[50, 99, 100]),
            "detect_ms": spread_ms(&of_takeover(0), &[50, 99]),
            "golive_ms": spread_ms(&of_takeover(1), &[50, 99]),
            "backup_lost": {
                "outage_ms": spread_ms(&self.outages(Backup), &[50, 99, 100]),
                "tcp_gap_ms": spread_ms(&tcp(Backup), &[50, 99, 100]),
            },
            "protected_again_ms": spread_ms(&self.protected_again_ns, &[50, 100]),
            "per_vm": per_vm,
            "silence_ms": self.pace.silence_ms(),
            "pace": self.pace.json(),
            "seed": self.plan.seed,
        }))
    }

    fn vm_json(&self, VmResult { vm, totals }: &VmResult) -> Value {
        let of_vm = |loss: &&Loss| loss.vm == *vm && loss.part == LostPart::Primary;
        let outages: Vec<_> = self.losses.iter().filter(of_vm).map(|loss| loss.outage_ns).collect();
        json!({
            "vm": vm.number(),
            "failovers": outages.len(),
            "outage_ms": spread_ms(&outages, &[50, 100]),
            "tcp": {
                "requests": totals.requests,
                "lost": totals.lost,
                "repeated": totals.repeated,
                "resets": totals.resets,
            },
            "udp": {
                "sent": totals.probes_sent,
                "lost": totals.probes_sent.saturating_sub(totals.probes_answered),
                "wrong": totals.probes_wrong,
            },
            "double_live": totals.double_live(),
            "divergences": totals.divergences,
            "unplanned_takeovers": totals.unplanned,
            "output_hold_ms": {
                "p50": totals.hold.map(|hold| ms(hold.p50_ns)),
                "p99": totals.hold.map(|hold| ms(hold.p99_ns)),
            },
        })
    }

    /// Returns the results as a table.
    pub fn table(&self) -> String {
        let spread = |values: &[u64]| match percentile(values, 50) {
            None => String::from("-"),
            Some(p50) => {
                let [p99, most] = [99, 100].map(|of| percentile(values, of).unwrap_or(p50));
                format!(
                    "{:.1} ms median, {:.1} ms p99, {:.1} ms maximum",
                    ms(p50),
                    ms(p99),
                    ms(most)
                )
            }
        };
        let row = |name: &str, value: String| (name.to_string(), value);
        let (kills, vms) = (self.plan.kills, self.plan.vms);
        let [taken, continued] =
            [LostPart::Primary, LostPart::Backup].map(|part| self.outages(part));
        let mut rows = vec![
            row(
                "losses of a host",
                format!("{} of {kills}, with {vms} VMs", self.protected_again_ns.len()),
            ),
            row("VMs taken over", format!("{}", taken.len())),
            row("  outage (UDP)", spread(&taken)),
            row("VMs whose backup was lost", format!("{}", continued.len())),
            row("  outage (UDP)", spread(&continued)),
            row("all protected again after", spread(&self.protected_again_ns)),
        ];
        for VmResult { vm, totals } in &self.vms {
            let Totals { requests, lost, repeated, resets, .. } = totals;
            rows.push(row(
                &format!("VM {}", vm.number()),
                format!(
                    "{requests} requests; lost, repeated, resets: {lost}, {repeated}, {resets}; two hosts live at once: {}",
                    totals.double_live()
                ),
            ));
        }
        rows.push(row("silence timeout", format!("{} ms", self.pace.silence_ms())));
        rows.push(row("seed", format!("{}", self.plan.seed)));
        table(&rows)
    }

    /// Describes everything that is not as it must be in one line. `None` if everything is.
    pub fn fault(&self) -> Option<String> {
        let faults = self.vms.iter().filter_map(|VmResult { vm, totals }| {
            Some(format!("VM {}: {}", vm.number(), totals.fault()?))
        });
        let text = faults.collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use testbed::Guest;
    use testbed::pace::Measured;

    fn summary() -> ManySummary {
        let time = Duration::from_micros(100);
        let measured = Measured { start: time, answer: time, answers: 1 };
        let pace = Pace::new(&Guest::Reference, measured, Some(100)).unwrap();
        let mut summary =
            ManySummary::new(ManyPlan { vms: 2, kills: 1, ..ManyPlan::default() }, pace);
        summary.vms =
            PairVm::first(2).map(|vm| VmResult { vm, totals: Totals::default() }).collect();
        summary
    }

    #[test]
    fn fault_of_a_vm_names_it() {
        let mut summary = summary();
        assert_eq!(summary.fault(), None);
        summary.vms[1].totals.lost = 3;
        assert!(summary.fault().is_some_and(|text| text.starts_with("VM 1: 3 numbers were lost")));
    }

    #[test]
    fn vms_that_were_taken_over_and_that_continued_are_reported_apart() {
        let mut summary = summary();
        let [first, second] = [0, 1].map(|index| summary.vms[index].vm);
        let (outage_ns, tcp_gap_ns) = (5_000_000, 6_000_000);
        let (part, times_ns) = (LostPart::Primary, Some([1_000_000, 2_000_000]));
        summary.losses.push(Loss { vm: first, part, times_ns, outage_ns, tcp_gap_ns });
        let (part, outage_ns) = (LostPart::Backup, 4_000_000);
        summary.losses.push(Loss { vm: second, part, times_ns: None, outage_ns, tcp_gap_ns });
        summary.protected_again_ns.push(7);
        let json = summary.json();
        assert_eq!((&json["failovers"], &json["continued"]), (&json!(1), &json!(1)));
        assert_eq!(json["outage_ms"], json!({ "p50": 5.0, "p99": 5.0, "max": 5.0 }));
        assert_eq!(json["backup_lost"]["outage_ms"]["max"], 4.0);
        assert_eq!(json["golive_ms"]["p50"], 2.0);
        assert_eq!(json["per_vm"][0]["failovers"], 1);
        assert_eq!(json["per_vm"][1]["failovers"], 0);
        assert!(summary.table().contains("1 of 1, with 2 VMs"));
    }
}
