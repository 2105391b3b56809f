//! [`Exposition`]: all metrics of a host of a pair. `docs/metrics.md` lists them, and a test compares the two.

use super::families::Families;
use super::sample::{PeerSample, SUPERVISOR_STATES, Sample};
use crate::metrics::{Outcome, ServedCounts};
use crate::telemetry::Stage;
use crate::witness::{AnswerTimes, WitnessTimes};
use logchan::channel::FrameVerdict;
use logchan::handshake::LinkStats;
use logchan::health::Unfit;
use logchan::ids::VmId;
use logchan::time::{Duration as Span, Time};
use netpath::PacketStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;
use replication::replica::{ReplicaStats, RoleName, WitnessState};
use std::fmt;
use std::sync::Arc;

/// What every name begins with.
const PREFIX: &str = "understudy";

/// Values of the label `reason` of a host that is unfit, in the order of [`Unfit::ALL`].
const REASONS: [&str; Unfit::ALL.len()] = ["lan", "witness", "disk"];

/// The metrics at one time.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// Number of the VM: a label of every metric.
    pub vm: VmId,
    /// When the process started, seconds since 1970.
    pub started_s: f64,
    /// The time.
    pub now: Time,
    /// What `vcpu0` knew last; `None` before its first sample.
    pub sample: Option<Sample>,
    /// How long the witness takes to answer.
    pub witness: Arc<WitnessTimes>,
    /// Clients of the metrics.
    pub served: ServedCounts,
    /// Lines for standard output or standard error that could not be written.
    pub messages_dropped: u64,
}

impl Exposition {
    /// Returns the text.
    pub fn text(self) -> String {
        let labels = [("vm".into(), self.vm.0.to_string().into())];
        let mut registry = Registry::with_prefix_and_labels(PREFIX, labels.into_iter());
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("a string takes every text");
        text
    }

    fn process(&self, out: &mut Families<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.info(("build", "Version of the program"), &version)?;
        out.gauge(
            ("start_time_seconds", "When the process started, in seconds since 1970"),
            self.started_s,
        )?;
        out.counters(
            ("scrapes", "Clients of the metrics, by what became of them"),
            "outcome",
            Outcome::ALL.map(|outcome| (outcome.name(), self.served.get(outcome))),
        )?;
        out.counter(
            (
                "messages_dropped",
                "Lines for standard output or standard error that could not be written",
            ),
            self.messages_dropped,
        )?;
        let parts =
            [("claim", &self.witness.claims), ("confirmation", &self.witness.confirmations)];
        let answered = |(name, times): (_, &AnswerTimes)| (name, times.answered());
        out.times_by(
            (
                "witness_answer_seconds",
                "How long the witness took to answer a question of this host; a claim contains the command of --fence",
            ),
            "question",
            parts.map(answered),
        )?;
        out.counters(
            ("witness_questions_failed", "Questions to the witness that had no answer"),
            "question",
            parts.map(|(name, times)| (name, times.failed())),
        )
    }
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        self.process(&mut out)?;
        let Some(sample) = &self.sample else { return Ok(()) };
        out.gauge(
            (
                "sample_age_seconds",
                "Age of the values of the VM's thread; it makes new ones for each scrape",
            ),
            seconds(self.now.since(sample.taken_at)),
        )?;
        pair(sample, &mut out)?;
        health(sample, &mut out)?;
        outputs(sample, &mut out)?;
        log(sample, &mut out)?;
        checkpoints(sample, &mut out)?;
        if let Some(peer) = &sample.peer {
            channel(peer, &mut out)?;
        }
        link(&sample.link, &sample.port, &mut out)?;
        guest(sample, &mut out)
    }
}

fn seconds(span: Span) -> f64 {
    span.as_nanos() as f64 / 1e9
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// The part of this host in the pair.
fn pair(sample: &Sample, out: &mut Families<'_>) -> fmt::Result {
    let Sample { protection, stats, .. } = sample;
    out.one_of(
        ("role", "Role of this host for the VM: 1 for the one that it has"),
        ("role", sample.role.as_str()),
        RoleName::ALL.map(RoleName::as_str),
    )?;
    out.gauge(
        ("term", "Term of the primary; on a backup, the newest term that it knows of"),
        sample.term as f64,
    )?;
    out.gauge(
        ("protected", "1 if the other host could continue the VM now, as far as this host knows"),
        flag(protection.is_protected),
    )?;
    out.seconds_counters(
        ("protection_seconds", "How long the VM was in this state while this process ran"),
        "state",
        [
            ("protected", seconds(protection.protected)),
            ("unprotected", seconds(protection.unprotected)),
        ],
    )?;
    out.counter(("takeovers", "Times that this host took the VM over"), stats.takeovers)?;
    out.counters(
        (
            "handovers",
            "Handovers that this host has begun, has refused because no backup could take over, and after which it continued the VM",
        ),
        "outcome",
        [
            ("begun", stats.handovers),
            ("refused", stats.handovers_refused),
            ("failed", stats.handovers_failed),
        ],
    )?;
    out.counter(("backups_lost", "Backups that this host has lost"), stats.backups_lost)?;
    out.counter(
        (
            "divergences",
            "Times that this host, as a backup, found its VM to differ from the primary's",
        ),
        stats.divergences,
    )?;
    out.counter(
        ("disk_faults", "Times that this host left as a backup because of a disk"),
        stats.disk_faults,
    )
}

/// Whether both hosts could run the VM.
fn health(sample: &Sample, out: &mut Families<'_>) -> fmt::Result {
    out.one_of(
        ("witness", "How this host stands with the witness: 1 for the state that it has"),
        ("state", sample.witness.as_str()),
        [WitnessState::Unknown, WitnessState::Reachable, WitnessState::Unreachable]
            .map(WitnessState::as_str),
    )?;
    out.one_of(
        ("supervisor", "State of the supervisor of this process: 1 for the one that it has"),
        ("state", sample.supervisor),
        SUPERVISOR_STATES,
    )?;
    let reasons = |host, unfit: Unfit| {
        let reasons = Unfit::ALL.into_iter().zip(REASONS);
        reasons.map(move |((reason, _), name)| ([host, name], flag(unfit.has(reason))))
    };
    let peer = sample.peer.iter().flat_map(|peer| reasons("peer", peer.unfit));
    out.gauges(
        (
            "host_unfit",
            "1 if this host, or its peer while there is a channel to it, can't run the VM for this reason",
        ),
        ["host", "reason"],
        reasons("this", sample.unfit).chain(peer),
    )?;
    out.gauge(
        ("peer_connected", "1 if there is a channel to the other host"),
        flag(sample.peer.is_some()),
    )
}

/// What the VM sends, and how long it takes.
fn outputs(sample: &Sample, out: &mut Families<'_>) -> fmt::Result {
    let stats = &sample.stats;
    out.times(
        (
            "hold_seconds",
            "How long outputs of the VM were held until they could leave: the output hold",
        ),
        &sample.hold,
    )?;
    out.times_by(
        (
            "stage_seconds",
            "How long sampled frames took through a stage of the machine, while the VM runs live on this host",
        ),
        "stage",
        Stage::ALL.map(Stage::name).into_iter().zip(sample.stages),
    )?;
    out.gauge(("outputs_held", "Outputs that are held now"), sample.held as f64)?;
    out.counter(("outputs_released", "Outputs that were released to the LAN"), stats.released)?;
    out.counter(
        (
            "outputs_released_early",
            "Outputs that were released before their own log entry was acknowledged, because the backup would reproduce them",
        ),
        stats.released_early,
    )?;
    out.counter(
        ("outputs_sent_again", "Outputs that this host sent again when it took the VM over"),
        stats.sent_again,
    )?;
    out.counter(
        (
            "outputs_dropped",
            "Outputs that were dropped because too many were held while the VM was blocked without a backup",
        ),
        stats.outputs_dropped,
    )?;
    out.counters(
        ("waits", "Times that the VM had to wait, by what it waited for"),
        "cause",
        [("lag", stats.lag_waits), ("hold", stats.hold_waits)],
    )?;
    out.counters(
        (
            "passed_frames",
            "Frames that reached the tap of the old primary in a handover: passed on by this host, received by the VM here, and dropped here",
        ),
        "outcome",
        [
            ("passed-on", stats.frames_passed_on),
            ("taken", stats.passed_frames_taken),
            ("dropped", stats.passed_frames_dropped),
        ],
    )
}

/// The log.
fn log(sample: &Sample, out: &mut Families<'_>) -> fmt::Result {
    let kinds = || sample.log.iter().map(|(kind, stats)| (kind.name(), stats));
    out.counters(
        (
            "log_bytes",
            "Encoded log by kind of entry: what this host has sent as a primary, or executed as a backup",
        ),
        "kind",
        kinds().map(|(kind, stats)| (kind, stats.bytes)),
    )?;
    out.counters(
        ("log_entries", "Log entries by kind, as log_bytes"),
        "kind",
        kinds().map(|(kind, stats)| (kind, stats.count)),
    )?;
    out.gauge(
        (
            "lag_bytes",
            "Log that the backup has not executed; on a backup, log that has arrived and was not executed",
        ),
        sample.lag_bytes as f64,
    )
}

/// Checkpoints and syncs.
fn checkpoints(sample: &Sample, out: &mut Families<'_>) -> fmt::Result {
    let ReplicaStats {
        syncs,
        syncs_broken,
        pages_copied,
        guests_slowed,
        checkpoints_sent,
        checkpoint_pages,
        checkpoints_applied,
        ..
    } = sample.stats;
    out.counter(
        ("checkpoints_sent", "Checkpoints sent, with the closing ones of syncs"),
        checkpoints_sent,
    )?;
    out.counter(("checkpoints_applied", "Checkpoints applied"), checkpoints_applied)?;
    out.counter(("checkpoint_pages_sent", "Pages in the checkpoints sent"), checkpoint_pages)?;
    out.pages(
        ("checkpoint_pages", "Pages of each checkpoint sent, without the closing ones of syncs"),
        &sample.pages,
    )?;
    out.times(
        (
            "checkpoint_capture_seconds",
            "Sent checkpoints: from the vCPU's stop until the machine's state was read",
        ),
        &sample.capture,
    )?;
    out.times(
        ("checkpoint_pause_seconds", "Sent checkpoints: how long the guest was stopped"),
        &sample.pause,
    )?;
    out.times(
        (
            "checkpoint_apply_seconds",
            "Applied checkpoints: how long it took until the machine was in their state",
        ),
        &sample.apply,
    )?;
    out.counters(
        ("syncs", "Copies of the whole VM to a backup, by their end"),
        "outcome",
        [("completed", syncs), ("aborted", syncs_broken)],
    )?;
    out.counter(("sync_pages", "Pages copied while the VM ran"), pages_copied)?;
    out.counter(("guest_slowed", "Syncs in which the guest was slowed"), guests_slowed)?;
    out.gauge(
        (
            "sync_pause_seconds",
            "The VM's last pause for the closing checkpoint of a sync; 0 before the first",
        ),
        sample.last_sync_pause.map_or(0.0, seconds),
    )?;
    out.gauge(
        (
            "copy_pages_left",
            "Pages that the current pass of a sync has to copy still; 0 without a sync",
        ),
        sample.copy.map_or(0.0, |copy| copy.pages_left as f64),
    )?;
    out.gauge(
        ("guest_share_ratio", "The guest's share of time: less than 1 while a sync slows it"),
        sample.copy.map_or(1.0, |copy| 1.0 / copy.share.divisor() as f64),
    )
}

/// The channel to the other host.
fn channel(peer: &PeerSample, out: &mut Families<'_>) -> fmt::Result {
    let stats = &peer.stats;
    out.gauge(
        ("peer_silence_seconds", "Time since the other host was last heard"),
        seconds(peer.silence),
    )?;
    if let Some(round_trip) = peer.round_trip {
        out.gauge(
            ("peer_round_trip_seconds", "Smoothed time from a frame to its acknowledgement"),
            seconds(round_trip),
        )?;
    }
    out.counters(
        (
            "channel_frames_received",
            "Frames of this session that have arrived, by what became of them",
        ),
        "verdict",
        FrameVerdict::NAMES.into_iter().zip(stats.verdicts),
    )?;
    out.counters(
        (
            "channel_segments_lost",
            "Pieces of log that counted as lost, because later ones were acknowledged or no acknowledgement came in time",
        ),
        "cause",
        [("overtaken", stats.lost_overtaken), ("timeout", stats.lost_timeout)],
    )?;
    out.counter(("channel_segments_resent", "Pieces of log that were sent again"), stats.resent)?;
    out.counter(
        ("channel_leases_lost", "Times that the lease ended, so that no output could leave"),
        stats.leases_lost,
    )
}

/// Frames on the log link.
fn link(link: &LinkStats, port: &PacketStats, out: &mut Families<'_>) -> fmt::Result {
    out.counters(
        ("link_frames", "Frames that the log interface has received or sent"),
        "direction",
        [("received", port.rx_frames), ("sent", port.tx_frames)],
    )?;
    out.counters(
        ("link_bytes", "Bytes of these frames, with Ethernet headers"),
        "direction",
        [("received", port.rx_bytes), ("sent", port.tx_bytes)],
    )?;
    out.counters(
        ("link_frames_discarded", "Frames that did not pass the log interface, by the reason"),
        "reason",
        [
            ("receive-buffer-full", port.rx_kernel_drops),
            ("received-length", port.rx_bad_length),
            ("own", port.rx_own),
            ("other-station", port.rx_foreign_mac),
            ("other-ethertype", port.rx_foreign_ethertype),
            ("vlan", port.rx_foreign_vlan),
            ("not-sent", port.tx_dropped),
            ("sent-length", port.tx_bad_length),
        ],
    )?;
    let open = &link.open;
    out.counters(
        (
            "link_frames_invalid",
            "Frames from the log link that are none of the other host's in this session, by the reason: damaged, forged, repeated or late",
        ),
        "reason",
        [
            ("malformed", open.malformed),
            ("other-protection", open.other_protection),
            ("stale-session", open.stale_session),
            ("replayed", open.replayed),
            ("bad-tag", open.bad_tag),
            ("forged-handshake", link.forged_handshakes),
            ("reflected", link.reflected),
            ("stranger", link.strangers),
            ("stale-initiation", link.stale_initiations),
            ("over-budget", link.over_budget),
            ("stale-response", link.stale_responses),
            ("refused-peer", link.refused),
        ],
    )?;
    out.counter(("link_sessions", "Sessions with the other host"), link.sessions)?;
    out.counter(
        ("link_downs", "Times that the log interface stopped passing frames"),
        port.link_downs,
    )
}

/// What the guest wanted beyond its limits.
fn guest(sample: &Sample, out: &mut Families<'_>) -> fmt::Result {
    let over = &sample.over_limit;
    out.counter(
        ("entropy_requests_limited", "Requests of the guest for entropy beyond --limit-rng"),
        over.entropy_requests,
    )?;
    out.counter(("tap_frames_dropped", "Frames for the guest beyond --limit-tap"), over.frames)?;
    out.counter(
        ("console_bytes_dropped", "Bytes of the guest's console beyond --limit-console"),
        over.console_bytes,
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::sample;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    fn exposition(sample: Option<Sample>) -> Exposition {
        Exposition {
            vm: VmId(7),
            started_s: 1.5e9,
            now: Time::from_nanos(1_000_000_000),
            sample,
            witness: Arc::default(),
            served: ServedCounts::default(),
            messages_dropped: 5,
        }
    }

    fn text() -> String {
        exposition(Some(sample(Time::from_nanos(0)))).text()
    }

    /// A family, by what is in the text.
    #[derive(Debug, Default)]
    struct Family {
        kind: String,
        help: String,
        labels: BTreeSet<String>,
    }

    /// Reads a text with the simplest parser.
    fn families(text: &str) -> BTreeMap<String, Family> {
        let mut families = BTreeMap::<String, Family>::new();
        let mut current = String::new();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                    let help = help.to_owned();
                    let family = Family { help, ..Family::default() };
                    assert!(families.insert(name.into(), family).is_none(), "{name} twice");
                    current = name.into();
                }
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    assert_eq!(name, current);
                    families.get_mut(name).unwrap().kind = kind.into();
                }
                _sample => {
                    let (name, rest) = line.split_once('{').expect("the VM is a label");
                    assert!(name.starts_with(&current), "{name} is in {current}");
                    let labels = rest.rsplit_once('}').expect("labels end").0;
                    let labels = labels.split("\",").map(|label| label.split('=').next().unwrap());
                    let labels = labels.filter(|label| *label != "le").map(String::from);
                    families.get_mut(&current).unwrap().labels.extend(labels);
                }
            }
        }
        families
    }

    #[test]
    fn metrics_have_the_values_of_the_sample_in_base_units() {
        let text = text();
        for line in [
            "understudy_role{vm=\"7\",role=\"protected\"} 1.0",
            "understudy_role{vm=\"7\",role=\"alone\"} 0.0",
            "understudy_term{vm=\"7\"} 3.0",
            "understudy_protected{vm=\"7\"} 1.0",
            "understudy_protection_seconds_total{vm=\"7\",state=\"protected\"} 7.5",
            "understudy_protection_seconds_total{vm=\"7\",state=\"unprotected\"} 2.0",
            "understudy_host_unfit{vm=\"7\",host=\"peer\",reason=\"witness\"} 1.0",
            "understudy_host_unfit{vm=\"7\",host=\"this\",reason=\"witness\"} 0.0",
            "understudy_witness{vm=\"7\",state=\"reachable\"} 1.0",
            "understudy_outputs_released_total{vm=\"7\"} 100",
            "understudy_hold_seconds_bucket{vm=\"7\",le=\"2.5e-05\"} 0",
            "understudy_hold_seconds_bucket{vm=\"7\",le=\"5e-05\"} 1",
            "understudy_hold_seconds_bucket{vm=\"7\",le=\"+Inf\"} 1",
            "understudy_hold_seconds_count{vm=\"7\"} 1",
            "understudy_sync_pause_seconds{vm=\"7\"} 0.003",
            "understudy_sample_age_seconds{vm=\"7\"} 1.0",
            "understudy_link_frames_total{vm=\"7\",direction=\"sent\"} 1000",
            "understudy_messages_dropped_total{vm=\"7\"} 5",
        ] {
            let found = text.lines().any(|found| same(found, line));
            assert!(found, "{line} is not in\n{text}");
        }
    }

    /// Returns whether two samples are equal, however their numbers are written and their labels are ordered.
    fn same(a: &str, b: &str) -> bool {
        let parts = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let (name, labels) = name.split_once('{')?;
            let labels: BTreeSet<_> =
                labels.trim_end_matches('}').split(',').map(String::from).collect();
            Some((name.to_owned(), labels, value.parse::<f64>().ok()?))
        };
        parts(a).is_some() && parts(a) == parts(b)
    }

    #[test]
    fn one_role_is_the_current_one_whatever_it_is() {
        for role in RoleName::ALL {
            let sample = Sample { role, ..sample(Time::from_nanos(0)) };
            let text = exposition(Some(sample)).text();
            let sum: f64 = text
                .lines()
                .filter(|line| line.starts_with("understudy_role{"))
                .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum();
            assert_eq!(sum, 1.0, "{role}");
        }
    }

    #[test]
    fn before_the_first_sample_the_process_is_described() {
        let families = families(&exposition(None).text());
        assert!(families.contains_key("understudy_build_info"));
        assert!(!families.contains_key("understudy_role"));
    }

    /// A series costs the memory of whoever collects it.
    #[test]
    fn number_of_series_is_bounded() {
        let series = text().lines().filter(|line| !line.starts_with('#')).count();
        assert!(series < 700, "{series}");
    }

    /// `UNDERSTUDY_WRITE_DOCS=1` writes the table.
    #[test]
    fn table_in_the_documentation_has_every_metric() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- metrics -->\n", "<!-- /metrics -->\n");
        let (before, rest) = page.split_once(begin).expect("the table has a beginning");
        let (table, after) = rest.split_once(end).expect("the table has an end");
        let mut expected = String::from("| metric | type | labels | |\n|---|---|---|---|\n");
        for (name, Family { kind, help, mut labels }) in families(&text()) {
            assert!(labels.remove("vm"), "{name}");
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = labels.join(", ");
            expected += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
        }
        if std::env::var_os("UNDERSTUDY_WRITE_DOCS").is_some() {
            std::fs::write(&path, [before, begin, &expected, end, after].concat()).unwrap();
        } else {
            assert_eq!(table, expected, "UNDERSTUDY_WRITE_DOCS=1 writes the table");
        }
    }
}
