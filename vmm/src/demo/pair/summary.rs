//! The results of a demonstration.

use serde_json::{Map, Value, json};
use testbed::Guest;
use testbed::clients::probe::Probe;
use testbed::figures::{ms, percentile, spread_ms};
use testbed::pace::Pace;
use testbed::pair::Spread;

/// Times of one failover or handover, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Failover {
    /// From the kill until the other host detected the silence, or from the order until the primary sent no more
    /// output, by their event logs.
    pub detect_ns: u64,
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
    pub(super) guest: Guest,
    pub(super) kills: u32,
    pub(super) handovers_planned: u32,
    pub(super) seed: u64,
    /// How fast the guest is on this host, and the limits that followed from that.
    pub(super) pace: Option<Pace>,
    /// Completed failovers, in order.
    pub failovers: Vec<Failover>,
    /// Completed handovers, in order.
    pub handovers: Vec<Failover>,
    pub(super) pauses_ns: Vec<u64>,
    pub(super) requests: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) resets: u64,
    pub(super) probes_sent: u64,
    pub(super) probes_answered: u64,
    pub(super) probes_wrong: u64,
    pub(super) ping_sent: u64,
    pub(super) ping_received: u64,
    pub(super) echoes: u64,
    pub(super) pages: u64,
    pub(super) redis_cli: u64,
    pub(super) redis_benchmarks: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    pub(super) divergences: u64,
    pub(super) overlaps_in_event_logs: u64,
    pub(super) unexplained_on_lan: u64,
    pub(super) lan_frames: u64,
    pub(super) lan_missed: u64,
    /// Takeovers without a kill.
    pub unplanned: u64,
    /// As [`Failover::late_ns`], over the whole demonstration.
    pub(super) late_ns: u64,
    /// Backups that were lost without a kill.
    pub backups_lost: u64,
    /// How long the last primary held its outputs.
    pub(super) hold: Option<Spread>,
}

impl Summary {
    fn all(&self, value: impl Fn(&Failover) -> u64) -> Vec<u64> {
        self.failovers.iter().map(value).collect()
    }

    fn of_handovers(&self, value: impl Fn(&Failover) -> u64) -> Vec<u64> {
        self.handovers.iter().map(value).collect()
    }

    /// Returns the results as a JSON object.
    pub fn json(&self) -> Map<String, Value> {
        let outages = spread_ms(&self.all(|f| f.outage_ns), &[50, 99, 100]);
        let probe = self.guest.probe();
        let probed = json!({
            "sent": self.probes_sent,
            "lost": self.probes_sent.saturating_sub(self.probes_answered),
            "wrong": self.probes_wrong,
        });
        let redis = json!({ "cli": self.redis_cli, "benchmarks": self.redis_benchmarks });
        let result = json!({
            "guest": self.guest.name(),
            "kills": self.kills,
            "completed_failovers": self.failovers.len(),
            "outage_ms": outages,
            "handovers": {
                "ordered": self.handovers_planned,
                "completed": self.handovers.len(),
                "outage_ms": spread_ms(&self.of_handovers(|f| f.outage_ns), &[50, 99, 100]),
                "golive_ms": spread_ms(&self.of_handovers(|f| f.golive_ns), &[50, 99]),
                "tcp_gap_ms": spread_ms(&self.of_handovers(|f| f.tcp_gap_ns), &[50, 99, 100]),
            },
            "tcp_gap_ms": spread_ms(&self.all(|f| f.tcp_gap_ns), &[50, 99, 100]),
            "detect_ms": spread_ms(&self.all(|f| f.detect_ns), &[50, 99]),
            "golive_ms": spread_ms(&self.all(|f| f.golive_ns), &[50, 99]),
            "sync_pause_ms": spread_ms(&self.pauses_ns, &[50, 100]),
            "host_late_ms": { "in_outages": spread_ms(&self.all(|f| f.late_ns), &[50, 100]), "max": ms(self.late_ns) },
            "sync_gap_ms": spread_ms(&self.all(|f| f.sync_gap_ns), &[50, 100]),
            "output_hold_ms": {
                "p50": self.hold.map(|hold| ms(hold.p50_ns)),
                "p99": self.hold.map(|hold| ms(hold.p99_ns)),
            },
            "tcp": {
                "requests": self.requests,
                "lost": self.lost,
                "repeated": self.repeated,
                "resets": self.resets,
            },
            "udp": (probe == Probe::Udp).then_some(&probed),
            "icmp": (probe == Probe::Icmp).then_some(&probed),
            "ping": {
                "sent": self.ping_sent,
                "lost": self.ping_sent.saturating_sub(self.ping_received),
            },
            "echo": { "transfers": self.echoes },
            "http": { "pages": self.pages },
            "redis": matches!(self.guest, Guest::Linux(_)).then_some(redis),
            "failed_clients": self.failed,
            "divergences": self.divergences,
            "double_live": self.overlaps_in_event_logs + self.unexplained_on_lan,
            "unplanned_takeovers": self.unplanned,
            "backups_lost": self.backups_lost,
            "lan": { "frames": self.lan_frames, "missed": self.lan_missed },
            "silence_ms": self.pace.map(|pace| pace.silence_ms()),
            "pace": self.pace.map(|pace| pace.json()),
            "seed": self.seed,
        });
        match result {
            Value::Object(map) => map,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => unreachable!("it is an object"),
        }
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
        let probe = self.guest.probe().name();
        let echo = match self.guest {
            Guest::Reference => "TCP echo, 64 KiB each",
            Guest::Linux(_) => "redis ECHO, 16 KiB each",
        };
        let (without, probed) = (format!("outage ({probe})"), format!("{probe} echo"));
        let mut rows = vec![
            ("failovers", format!("{} of {}", self.failovers.len(), self.kills)),
            (without.as_str(), spread(self.all(|f| f.outage_ns))),
            ("  kill to silence detected", spread(self.all(|f| f.detect_ns))),
            ("  silence detected to live", spread(self.all(|f| f.golive_ns))),
            ("outage (TCP)", spread(self.all(|f| f.tcp_gap_ns))),
            ("pause of the VM per sync", spread(self.pauses_ns.clone())),
            ("counter connection (TCP)", format!("{} requests", self.requests)),
            (
                "  lost, repeated, resets",
                format!("{}, {}, {}", self.lost, self.repeated, self.resets),
            ),
            (echo, format!("{} correct", self.echoes)),
            ("pages fetched with curl", format!("{}", self.pages)),
            ("ping", format!("{} of {} answered", self.ping_received, self.ping_sent)),
            (&probed, format!("{} of {} answered", self.probes_answered, self.probes_sent)),
        ];
        if self.handovers_planned > 0 {
            let outages = spread(self.of_handovers(|f| f.outage_ns));
            let done =
                format!("{} of {}; outage {outages}", self.handovers.len(), self.handovers_planned);
            rows.push(("handovers", done));
        }
        if let Guest::Linux(_) = self.guest {
            let runs = format!("{} numbers, {} runs", self.redis_cli, self.redis_benchmarks);
            rows.push(("redis-cli, redis-benchmark", runs));
        }
        rows.extend([
            ("failed or wrong transfers", format!("{}", self.failed)),
            ("divergences", format!("{}", self.divergences)),
            (
                "two hosts live at once",
                format!(
                    "{} by the event logs, {} by the {} frames on the LAN",
                    self.overlaps_in_event_logs, self.unexplained_on_lan, self.lan_frames
                ),
            ),
            ("takeovers without a kill", format!("{}", self.unplanned)),
            ("scheduling delay of the prober", format!("{:.1} ms maximum", ms(self.late_ns))),
            ("seed", format!("{}", self.seed)),
        ]);
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }

    /// Describes everything that is not as it must be in one line. `None` if everything is.
    pub fn fault(&self) -> Option<String> {
        let counts = [
            (self.lost, "numbers were lost on the counter connection"),
            (self.repeated, "numbers were repeated on the counter connection"),
            (self.resets, "times the counter connection was reset"),
            (self.probes_wrong, "answers to the prober were wrong"),
            (self.divergences, "divergences"),
            (self.overlaps_in_event_logs, "times two hosts were live at once, by the event logs"),
            (
                self.unexplained_on_lan,
                "times frames of a host that was not live were seen on the LAN",
            ),
            (self.failed, "transfers failed"),
        ];
        let wrong: Vec<_> = counts.iter().filter(|(count, _)| *count > 0).collect();
        if wrong.is_empty() {
            return None;
        }
        let mut text: Vec<_> =
            wrong.iter().map(|(count, what)| format!("{count} {what}")).collect();
        text.extend(self.first_failure.clone());
        Some(text.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_that_must_be_zero_is_a_fault() {
        assert_eq!(Summary::default().fault(), None);
        let faults: [fn(&mut Summary) -> &mut u64; 8] = [
            |s| &mut s.lost,
            |s| &mut s.repeated,
            |s| &mut s.resets,
            |s| &mut s.probes_wrong,
            |s| &mut s.divergences,
            |s| &mut s.overlaps_in_event_logs,
            |s| &mut s.unexplained_on_lan,
            |s| &mut s.failed,
        ];
        for (index, fault) in faults.into_iter().enumerate() {
            let mut summary = Summary::default();
            *fault(&mut summary) = 1;
            assert!(summary.fault().is_some_and(|text| text.starts_with("1 ")), "{index}");
        }
    }

    #[test]
    fn figures_without_failovers_are_null() {
        let json = Summary::default().json();
        assert_eq!(json["completed_failovers"], 0);
        assert_eq!(json["outage_ms"], json!({ "p50": null, "p99": null, "max": null }));
        assert!(Summary::default().table().contains("outage (UDP)"));
    }
}
