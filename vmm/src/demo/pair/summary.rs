//! The results of a demonstration with kills and handovers.

use super::Plan;
use super::running::VmPlan;
use super::totals::{Totals, object, table};
use serde_json::{Map, Value, json};
use testbed::figures::{ms, percentile, spread_ms};
use testbed::pace::Pace;
use testbed::pair::{Death, NoticedBy};

/// Times of one failover or handover, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Failover {
    /// From the kill until the other host noticed it, or from the order until the primary sent no more output, by
    /// their event logs.
    pub detect_ns: u64,
    /// How the other host noticed it.
    pub noticed_by: NoticedBy,
    /// From then until the other host was live.
    pub golive_ns: u64,
    /// The longest time without an answer to the prober.
    pub outage_ns: u64,
    /// The longest time without an answer on the counter connection.
    pub tcp_gap_ns: u64,
    /// The longest time without an answer to the prober while a new backup was synchronized.
    pub sync_gap_ns: u64,
    /// The longest scheduling delay of the prober during the outage.
    pub late_ns: u64,
}

/// All results of a demonstration.
#[derive(Debug, Default)]
pub struct Summary {
    /// What was to be done.
    pub(super) plan: Plan,
    /// How fast the guest is on this host, and the limits that followed from that.
    pub(super) pace: Option<Pace>,
    /// Completed failovers, in order.
    pub failovers: Vec<Failover>,
    /// Completed handovers, in order.
    pub handovers: Vec<Failover>,
    pub(super) pauses_ns: Vec<u64>,
    /// Counts over the whole demonstration.
    pub totals: Totals,
}

impl Summary {
    fn all(&self, value: impl Fn(&Failover) -> u64) -> Vec<u64> {
        self.failovers.iter().map(value).collect()
    }

    fn of_handovers(&self, value: impl Fn(&Failover) -> u64) -> Vec<u64> {
        self.handovers.iter().map(value).collect()
    }

    /// Returns the number of deaths that were noticed in this way.
    fn noticed(&self, by: NoticedBy) -> usize {
        self.failovers.iter().filter(|failover| failover.noticed_by == by).count()
    }

    /// Returns the results as a JSON object.
    pub fn json(&self) -> Map<String, Value> {
        let late_ms = spread_ms(&self.all(|f| f.late_ns), &[50, 100]);
        let mut result = object(json!({
            "kills": self.plan.kills,
            "completed_failovers": self.failovers.len(),
            "outage_ms": spread_ms(&self.all(|f| f.outage_ns), &[50, 99, 100]),
            "handovers": {
                "ordered": self.plan.handovers,
                "completed": self.handovers.len(),
                "outage_ms": spread_ms(&self.of_handovers(|f| f.outage_ns), &[50, 99, 100]),
                "golive_ms": spread_ms(&self.of_handovers(|f| f.golive_ns), &[50, 99]),
                "tcp_gap_ms": spread_ms(&self.of_handovers(|f| f.tcp_gap_ns), &[50, 99, 100]),
            },
            "tcp_gap_ms": spread_ms(&self.all(|f| f.tcp_gap_ns), &[50, 99, 100]),
            "power_loss": match self.plan.death {
                Death::OfProcess => false,
                Death::OfHost => true,
            },
            "noticed_by": {
                "supervisor": self.noticed(NoticedBy::Supervisor),
                "silence": self.noticed(NoticedBy::Silence),
            },
            "detect_ms": spread_ms(&self.all(|f| f.detect_ns), &[50, 99]),
            "golive_ms": spread_ms(&self.all(|f| f.golive_ns), &[50, 99]),
            "sync_pause_ms": spread_ms(&self.pauses_ns, &[50, 100]),
            "host_late_ms": { "in_outages": late_ms, "max": ms(self.totals.late_ns) },
            "sync_gap_ms": spread_ms(&self.all(|f| f.sync_gap_ns), &[50, 100]),
            "silence_ms": self.pace.map(|pace| pace.silence_ms()),
            "pace": self.pace.map(|pace| pace.json()),
            "seed": self.plan.seed,
        }));
        result.extend(self.totals.json(&self.plan.vm.guest));
        result
    }

    /// Returns the results as a table.
    pub fn table(&self) -> String {
        let spread = |values: Vec<u64>| match percentile(&values, 50) {
            None => String::from("-"),
            Some(p50) => {
                let most = percentile(&values, 100).unwrap_or(p50);
                format!("{:.1} ms median, {:.1} ms maximum", ms(p50), ms(most))
            }
        };
        let Plan { vm: VmPlan { guest, .. }, kills, handovers, seed, .. } = &self.plan;
        let row = |name: &str, value: String| (name.to_string(), value);
        let mut rows = vec![
            row("failovers", format!("{} of {kills}", self.failovers.len())),
            (format!("outage ({})", guest.probe().name()), spread(self.all(|f| f.outage_ns))),
            row(
                "deaths noticed",
                format!(
                    "{} by the supervisor's notice, {} by silence",
                    self.noticed(NoticedBy::Supervisor),
                    self.noticed(NoticedBy::Silence)
                ),
            ),
            row("  kill to death noticed", spread(self.all(|f| f.detect_ns))),
            row("  death noticed to live", spread(self.all(|f| f.golive_ns))),
            row("outage (TCP)", spread(self.all(|f| f.tcp_gap_ns))),
            row("pause of the VM per sync", spread(self.pauses_ns.clone())),
        ];
        rows.extend(self.totals.client_rows(guest));
        if *handovers > 0 {
            let outages = spread(self.of_handovers(|f| f.outage_ns));
            let done = format!("{} of {handovers}; outage {outages}", self.handovers.len());
            rows.push(row("handovers", done));
        }
        rows.extend(self.totals.disk_rows());
        rows.extend(self.totals.host_rows());
        rows.push(row("seed", format!("{seed}")));
        table(&rows)
    }

    /// Describes everything that is not as it must be in one line. `None` if everything is.
    pub fn fault(&self) -> Option<String> {
        self.totals.fault()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_without_failovers_are_null() {
        let json = Summary::default().json();
        assert_eq!(json["completed_failovers"], 0);
        assert_eq!(json["outage_ms"], json!({ "p50": null, "p99": null, "max": null }));
        assert!(Summary::default().table().contains("outage (UDP)"));
    }

    #[test]
    fn deaths_are_counted_by_how_they_were_noticed() {
        let failover = |noticed_by| Failover {
            detect_ns: 1,
            noticed_by,
            golive_ns: 1,
            outage_ns: 1,
            tcp_gap_ns: 1,
            sync_gap_ns: 1,
            late_ns: 1,
        };
        let by = [NoticedBy::Supervisor, NoticedBy::Silence, NoticedBy::Supervisor];
        let failovers = by.map(failover).to_vec();
        let plan = Plan { death: Death::OfHost, ..Plan::default() };
        let summary = Summary { failovers, plan, ..Summary::default() };
        let json = summary.json();
        assert_eq!(json["noticed_by"], json!({ "supervisor": 2, "silence": 1 }));
        assert_eq!(json["power_loss"], true);
        assert!(summary.table().contains("2 by the supervisor's notice, 1 by silence"));
        assert_eq!(Summary::default().json()["power_loss"], false);
    }
}
