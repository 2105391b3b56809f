//! What the clients, the capture on the LAN and the event logs have seen in a whole demonstration.

use serde_json::{Map, Value, json};
use testbed::Guest;
use testbed::clients::counting::Tally;
use testbed::clients::load::Load;
use testbed::clients::probe::Probe;
use testbed::disk::DiskCheck;
use testbed::figures::ms;
use testbed::pair::{Host, Hosts, Spread};

/// What the client of the database has seen.
#[derive(Clone, Debug, Default)]
pub(in crate::demo) struct Inserted {
    rows: u64,
    lost: u64,
    repeated: u64,
    resets: u64,
}

/// Counts over a whole demonstration.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub(in crate::demo) requests: u64,
    pub(in crate::demo) lost: u64,
    pub(in crate::demo) repeated: u64,
    pub(in crate::demo) resets: u64,
    /// What the database's client has seen, if the VM has a database.
    pub(in crate::demo) inserted: Option<Inserted>,
    pub(in crate::demo) probes_sent: u64,
    pub(in crate::demo) probes_answered: u64,
    pub(in crate::demo) probes_wrong: u64,
    pub(in crate::demo) ping_sent: u64,
    pub(in crate::demo) ping_received: u64,
    pub(in crate::demo) echoes: u64,
    pub(in crate::demo) pages: u64,
    pub(in crate::demo) redis_cli: u64,
    pub(in crate::demo) redis_benchmarks: u64,
    pub(in crate::demo) failed: u64,
    /// Failed transfers with a wrong answer.
    pub(in crate::demo) wrong: u64,
    pub(in crate::demo) first_failure: Option<String>,
    pub(in crate::demo) divergences: u64,
    pub(in crate::demo) overlaps_in_event_logs: u64,
    pub(in crate::demo) unexplained_on_lan: u64,
    pub(in crate::demo) lan_frames: u64,
    pub(in crate::demo) lan_missed: u64,
    /// Takeovers without a kill.
    pub unplanned: u64,
    /// The longest scheduling delay of the prober, in nanoseconds.
    pub(in crate::demo) late_ns: u64,
    /// Backups that were lost without a kill.
    pub backups_lost: u64,
    /// How long the last primary held its outputs.
    pub(in crate::demo) hold: Option<Spread>,
    /// Backups that left because of a disk.
    pub(in crate::demo) disk_faults: u64,
    /// Why the first of them left.
    pub(in crate::demo) first_disk_fault: Option<String>,
    /// What is on the images of the disk at the end, if the VM has one.
    pub(in crate::demo) disk: Option<DiskCheck>,
}

impl Totals {
    /// Returns the counts so far, without those of ping and the hold times.
    pub(in crate::demo) fn of(load: &Load, hosts: &Hosts) -> Totals {
        let (tally, traffic) = (load.counting.tally(), load.traffic.seen());
        let (probed, lan) = (load.prober.seen(), load.sniffer.seen());
        Totals {
            requests: tally.requests,
            lost: tally.lost,
            repeated: tally.repeated,
            resets: tally.resets,
            inserted: load.inserting.as_ref().map(|client| {
                let Tally { requests, lost, repeated, resets, .. } = *client.tally();
                Inserted { rows: requests, lost, repeated, resets }
            }),
            probes_sent: load.prober.sent(),
            probes_answered: probed.times.count() as u64,
            probes_wrong: probed.wrong,
            echoes: traffic.echoes,
            pages: traffic.pages,
            redis_cli: traffic.redis_cli,
            redis_benchmarks: traffic.redis_benchmarks,
            failed: traffic.failed,
            wrong: traffic.wrong,
            first_failure: traffic.first_failure.clone(),
            divergences: hosts.counts.divergences,
            overlaps_in_event_logs: hosts.leadership.overlaps(),
            unexplained_on_lan: hosts.leadership.unexplained_changes(&lan.source_changes),
            lan_frames: lan.frames,
            lan_missed: lan.missed,
            unplanned: hosts.counts.unplanned,
            late_ns: load.prober.send_delays().max_in(0, u64::MAX),
            backups_lost: hosts.counts.backups_lost,
            ping_sent: 0,
            ping_received: 0,
            hold: None,
            disk_faults: hosts.counts.disk_faults,
            first_disk_fault: hosts.counts.first_disk_fault.clone(),
            disk: None,
        }
    }

    /// Returns how often two hosts were live at once, by the event logs and by the frames on the LAN.
    pub(in crate::demo) fn double_live(&self) -> u64 {
        self.overlaps_in_event_logs + self.unexplained_on_lan
    }

    /// Returns how many answers contradicted what the client had sent, and how often the two copies of the VM
    /// contradicted each other.
    pub(in crate::demo) fn contradictory(&self) -> u64 {
        self.probes_wrong + self.wrong + self.divergences
    }

    /// Returns the counts as a JSON object; the sections depend on the guest.
    pub(in crate::demo) fn json(&self, guest: &Guest) -> Map<String, Value> {
        let probe = guest.probe();
        let probed = json!({
            "sent": self.probes_sent,
            "lost": self.probes_sent.saturating_sub(self.probes_answered),
            "wrong": self.probes_wrong,
        });
        let redis = json!({ "cli": self.redis_cli, "benchmarks": self.redis_benchmarks });
        object(json!({
            "guest": guest.name(),
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
            "redis": matches!(guest, Guest::Linux(_)).then_some(redis),
            "database": self.inserted.as_ref().map(|inserted| json!({
                "rows": inserted.rows,
                "lost": inserted.lost,
                "repeated": inserted.repeated,
                "resets": inserted.resets,
            })),
            "disk": self.disk.as_ref().map(|disk| self.disk_json(disk)),
            "failed_clients": self.failed,
            "divergences": self.divergences,
            "double_live": self.double_live(),
            "unplanned_takeovers": self.unplanned,
            "backups_lost": self.backups_lost,
            "lan": { "frames": self.lan_frames, "missed": self.lan_missed },
        }))
    }

    fn disk_json(&self, disk: &DiskCheck) -> Value {
        json!({
            "bytes": disk.bytes,
            "blocks": disk.comparison.blocks,
            "blocks_differing": disk.comparison.differing.len(),
            "answered": disk.answered,
            "on_disk": { "a": disk.on_disk[0], "b": disk.on_disk[1] },
            "lost": { "a": disk.lost(Host::A), "b": disk.lost(Host::B) },
            "damage": disk.damage,
            "backups_left": self.disk_faults,
        })
    }

    /// Returns the rows of a table about the disk; none if the VM has none.
    pub(in crate::demo) fn disk_rows(&self) -> Vec<(String, String)> {
        let Some(disk) = &self.disk else { return Vec::new() };
        let row = |name: &str, value: String| (name.to_string(), value);
        let answered: u64 = disk.answered.values().sum();
        let differing = disk.comparison.differing.len();
        let [a, b] = Host::ALL.map(|host| disk.lost(host));
        vec![
            row(
                "writes answered as stable",
                format!("{answered}; lost {a} on host A, {b} on host B"),
            ),
            row(
                "images of the disk",
                format!("{differing} of {} blocks differ", disk.comparison.blocks),
            ),
            row("backups that left because of a disk", format!("{}", self.disk_faults)),
        ]
    }

    /// Returns the rows of a table about the clients.
    pub(in crate::demo) fn client_rows(&self, guest: &Guest) -> Vec<(String, String)> {
        let probe = guest.probe().name();
        let echo = match guest {
            Guest::Reference => "TCP echo, 64 KiB each",
            Guest::Linux(_) => "redis ECHO, 16 KiB each",
        };
        let row = |name: &str, value: String| (name.to_string(), value);
        let counts = format!("{}, {}, {}", self.lost, self.repeated, self.resets);
        let mut rows = vec![
            row("counter connection (TCP)", format!("{} requests", self.requests)),
            row("  lost, repeated, resets", counts),
            row(echo, format!("{} correct", self.echoes)),
            row("pages fetched with curl", format!("{}", self.pages)),
            row("ping", format!("{} of {} answered", self.ping_received, self.ping_sent)),
            (
                format!("{probe} echo"),
                format!("{} of {} answered", self.probes_answered, self.probes_sent),
            ),
        ];
        if let Guest::Linux(_) = guest {
            let runs = format!("{} numbers, {} runs", self.redis_cli, self.redis_benchmarks);
            rows.push(row("redis-cli, redis-benchmark", runs));
        }
        if let Some(Inserted { rows: inserted, lost, repeated, resets }) = self.inserted {
            rows.push(row("database connection (TCP)", format!("{inserted} rows")));
            rows.push(row("  lost, repeated, resets", format!("{lost}, {repeated}, {resets}")));
        }
        rows
    }

    /// Returns the rows of a table about the VM and its hosts.
    pub(in crate::demo) fn host_rows(&self) -> Vec<(String, String)> {
        let row = |name: &str, value: String| (name.to_string(), value);
        let live = format!(
            "{} by the event logs, {} by the {} frames on the LAN",
            self.overlaps_in_event_logs, self.unexplained_on_lan, self.lan_frames
        );
        vec![
            row("failed or wrong transfers", format!("{}", self.failed)),
            row("divergences", format!("{}", self.divergences)),
            row("two hosts live at once", live),
            row("takeovers without a kill", format!("{}", self.unplanned)),
            row("scheduling delay of the prober", format!("{:.1} ms maximum", ms(self.late_ns))),
        ]
    }

    /// Describes everything that is not as it must be in one line. `None` if everything is.
    pub(in crate::demo) fn fault(&self) -> Option<String> {
        let inserted = self.inserted.clone().unwrap_or_default();
        let counts = [
            (self.lost, "numbers were lost on the counter connection"),
            (self.repeated, "numbers were repeated on the counter connection"),
            (self.resets, "times the counter connection was reset"),
            (inserted.lost, "rows were lost on the database connection"),
            (inserted.repeated, "rows were repeated on the database connection"),
            (inserted.resets, "times the database connection was reset"),
            (self.probes_wrong, "answers to the prober were wrong"),
            (self.divergences, "divergences"),
            (self.overlaps_in_event_logs, "times two hosts were live at once, by the event logs"),
            (
                self.unexplained_on_lan,
                "times frames of a host that was not live were seen on the LAN",
            ),
            (self.failed, "transfers failed"),
            (self.disk_faults, "backups left because of a disk"),
        ];
        let wrong = counts.iter().filter(|(count, _)| *count > 0);
        let mut text: Vec<_> = wrong.map(|(count, what)| format!("{count} {what}")).collect();
        text.extend(self.disk.as_ref().and_then(DiskCheck::fault));
        if text.is_empty() {
            return None;
        }
        text.extend(self.first_failure.clone());
        text.extend(self.first_disk_fault.clone());
        Some(text.join("; "))
    }
}

/// Returns a JSON object as a map.
pub(in crate::demo) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("it is an object")
        }
    }
}

/// Aligns the rows of a table.
pub(in crate::demo) fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use testbed::disk::{Comparison, Counts};

    #[test]
    fn every_count_that_must_be_zero_is_a_fault() {
        assert_eq!(Totals::default().fault(), None);
        let faults: [fn(&mut Totals) -> &mut u64; 12] = [
            |t| &mut t.lost,
            |t| &mut t.repeated,
            |t| &mut t.resets,
            |t| &mut t.inserted.get_or_insert_default().lost,
            |t| &mut t.inserted.get_or_insert_default().repeated,
            |t| &mut t.inserted.get_or_insert_default().resets,
            |t| &mut t.probes_wrong,
            |t| &mut t.divergences,
            |t| &mut t.overlaps_in_event_logs,
            |t| &mut t.unexplained_on_lan,
            |t| &mut t.failed,
            |t| &mut t.disk_faults,
        ];
        for (index, fault) in faults.into_iter().enumerate() {
            let mut totals = Totals::default();
            *fault(&mut totals) = 1;
            assert!(totals.fault().is_some_and(|text| text.starts_with("1 ")), "{index}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_disk_is_a_fault() {
        let answered = Counts::from([("chain".into(), 3)]);
        let found = answered.clone();
        let mut disk =
            DiskCheck { answered, on_disk: [found.clone(), found], ..DiskCheck::default() };
        let fault = |disk: &DiskCheck| {
            let totals = Totals { disk: Some(disk.clone()), ..Totals::default() };
            (totals.fault(), totals.disk_json(disk))
        };
        let (none, json) = fault(&disk);
        assert_eq!((none, &json["lost"]), (None, &json!({ "a": 0, "b": 0 })));
        disk.comparison = Comparison { blocks: 4, differing: vec![2] };
        let (differs, json) = fault(&disk);
        assert!(differs.is_some_and(|text| text.starts_with("1 of 4 blocks")));
        assert_eq!(json["blocks_differing"], 1);
        disk.comparison.differing.clear();
        disk.on_disk[1].insert("chain".into(), 2);
        let (lost, json) = fault(&disk);
        assert!(lost.is_some_and(|text| text.starts_with("1 answered writes are not")));
        assert_eq!(json["lost"], json!({ "a": 0, "b": 1 }));
    }
}
