//! The result of a measurement. docs/logging-channel.md explains each number.

use super::backup::Received;
use super::drive::End;
use super::meet::Met;
use super::options::LinkArgs;
use super::primary::Sent;
use crate::cli::exit_code::CliError;
use crate::cli::output;
use crate::link::LogLink;
use hdrhistogram::Histogram;
use logchan::channel::{Channel, FrameVerdict};
use logchan::frame::FrameKind;
use logchan::handshake::LinkStats;
use logchan::ids::Role;
use logchan::seal::OpenStats;
use logchan::stats::Stats;
use logchan::time::Duration;
use netpath::{PacketStats, PortError};
use serde_json::{Map, Value, json};

/// The counts of this side.
#[derive(Debug)]
pub(super) enum Measured {
    Sent(Sent),
    Received(Received),
}

/// A measurement and its circumstances.
pub(super) struct Report<'a> {
    pub(super) args: &'a LinkArgs,
    pub(super) met: &'a Met,
    pub(super) measured: &'a Measured,
    pub(super) end: &'a Result<End, PortError>,
    /// Time from the handshake to the end.
    pub(super) elapsed: Duration,
}

impl Report<'_> {
    /// Prints the whole result as JSON, or as a table without the counters that are zero.
    pub(super) fn print(&self, link: &mut LogLink) -> Result<(), CliError> {
        let result = self.result(link);
        let text = if self.args.json {
            output::text(&result.into_iter().collect(), true)
        } else {
            output::table(flat(result).iter().map(|(name, value)| (name, value)))
        };
        output::write(&text)
    }

    fn result(&self, link: &mut LogLink) -> Vec<(String, Value)> {
        let Report { args, met, measured, end, elapsed } = self;
        let role = match args.role() {
            Role::Primary => "primary",
            Role::Backup => "backup",
        };
        let end = match end {
            Ok(End::Left) => "left",
            Ok(End::PeerLeft) => "peer_left",
            Ok(End::Silent { .. }) => "peer_silent",
            Ok(End::UnexpectedEntry { .. }) => "foreign_entry",
            Err(_) => "port_failed",
        };
        let mut result = Vec::new();
        let mut put = |name: &str, value: Value| result.push((name.to_string(), value));
        put("role", role.into());
        put("interface", args.interface.clone().into());
        put("peer", args.peer.to_string().into());
        put("vm", args.vm().0.into());
        put("protection", args.protection().into());
        put("session", output::hex(met.peer.session.0));
        put("term", met.term.0.into());
        put("met_ms", json!(met.after.as_nanos() as f64 / 1e6));
        put("seconds", json!(elapsed.as_nanos() as f64 / 1e9));
        put("end", end.into());
        match measured {
            Measured::Sent(sent) => {
                put("entries", sent.entries.into());
                put("entry_bytes", args.plan().bytes.into());
                put("acknowledged", sent.ack_ns.len().into());
                put("ack_us", times(&sent.ack_ns));
            }
            Measured::Received(received) => {
                put("entries", received.entries.into());
                put("bytes", received.bytes.into());
            }
        }
        let report = link.report();
        put("channel", channel(link.channel().expect("a peer was met")));
        put("seal", seal(&report.link.open));
        put("handshake", handshake(&report.link));
        put("port", port(&report.port, report.other_senders));
        result
    }
}

/// Returns quantiles in microseconds, or null if nothing was measured.
fn times(ns: &Histogram<u64>) -> Value {
    if ns.is_empty() {
        return Value::Null;
    }
    let us = |ns: u64| ns as f64 / 1000.0;
    let at = |quantile| us(ns.value_at_quantile(quantile));
    json!({ "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": us(ns.max()) })
}

fn channel(channel: &Channel) -> Value {
    let Stats {
        sent,
        sent_bytes,
        verdicts,
        malformed: _,
        received_bytes,
        lost_overtaken,
        lost_timeout,
        resent,
        appends_refused,
        leases_lost,
    } = channel.stats();
    let mut counts = Map::new();
    let mut put = |name: String, count: u64| counts.insert(name, count.into());
    for kind in FrameKind::ALL {
        put(format!("sent_{kind:?}").to_lowercase(), sent[kind.index()]);
    }
    put("sent_bytes".into(), *sent_bytes);
    put("resent".into(), *resent);
    put("lost_overtaken".into(), *lost_overtaken);
    put("lost_timeout".into(), *lost_timeout);
    for (name, count) in FrameVerdict::NAMES.into_iter().zip(verdicts) {
        put(format!("received_{name}").replace(' ', "_").to_lowercase(), *count);
    }
    put("received_bytes".into(), *received_bytes);
    put("appends_refused".into(), *appends_refused);
    put("leases_lost".into(), *leases_lost);
    let round_trip = channel.round_trip().map(|time| time.as_nanos() as f64 / 1000.0);
    counts.insert("round_trip_us".into(), json!(round_trip));
    Value::Object(counts)
}

fn seal(stats: &OpenStats) -> Value {
    let OpenStats { opened, malformed, other_protection, stale_session, replayed, bad_tag } = stats;
    json!({
        "opened": opened,
        "malformed": malformed,
        "other_protection": other_protection,
        "stale_session": stale_session,
        "replayed": replayed,
        "bad_tag": bad_tag,
    })
}

fn handshake(stats: &LinkStats) -> Value {
    let LinkStats {
        open: _,
        forged_handshakes,
        reflected,
        crossed,
        strangers,
        stale_initiations,
        over_budget,
        stale_responses,
        refused,
        requests,
        challenges,
        initiations,
        sessions,
    } = stats;
    json!({
        "requests": requests,
        "challenges": challenges,
        "initiations": initiations,
        "sessions": sessions,
        "forged": forged_handshakes,
        "reflected": reflected,
        "crossed": crossed,
        "strangers": strangers,
        "stale_initiations": stale_initiations,
        "over_budget": over_budget,
        "stale_responses": stale_responses,
        "refused": refused,
    })
}

fn port(stats: &PacketStats, other_senders: u64) -> Value {
    let PacketStats {
        rx_frames,
        rx_bytes,
        rx_kernel_drops,
        rx_bad_length,
        rx_own,
        rx_foreign_mac,
        rx_foreign_ethertype,
        rx_foreign_vlan,
        tx_frames,
        tx_bytes,
        tx_dropped,
        tx_bad_length,
        link_downs,
        enters,
    } = stats;
    json!({
        "rx_frames": rx_frames,
        "rx_bytes": rx_bytes,
        "rx_kernel_drops": rx_kernel_drops,
        "rx_bad_length": rx_bad_length,
        "rx_own": rx_own,
        "rx_foreign_mac": rx_foreign_mac,
        "rx_foreign_ethertype": rx_foreign_ethertype,
        "rx_foreign_vlan": rx_foreign_vlan,
        "rx_other_senders": other_senders,
        "tx_frames": tx_frames,
        "tx_bytes": tx_bytes,
        "tx_dropped": tx_dropped,
        "tx_bad_length": tx_bad_length,
        "link_downs": link_downs,
        "enters": enters,
    })
}

/// Flattens the result into rows of a table, without the counters that are zero.
fn flat(result: Vec<(String, Value)>) -> Vec<(String, Value)> {
    let mut rows = Vec::new();
    for (name, value) in result {
        let Value::Object(counts) = value else {
            rows.push((name, value));
            continue;
        };
        let counts = counts.into_iter().filter(|(_, count)| *count != 0 && !count.is_null());
        rows.extend(counts.map(|(inner, count)| (format!("{name}.{inner}"), count)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_omits_counters_that_are_zero() {
        let row = |name: &str, value| (name.to_string(), value);
        let port = json!({ "a": 0, "b": 3, "c": null });
        let result = vec![row("end", json!("left")), row("entries", json!(0)), row("port", port)];
        let expected =
            [row("end", json!("left")), row("entries", json!(0)), row("port.b", json!(3))];
        assert_eq!(flat(result), expected);
    }

    #[test]
    fn times_without_values_are_null() {
        let mut ns = Histogram::new(3).unwrap();
        assert_eq!(times(&ns), Value::Null);
        ns.record(5_000).unwrap();
        assert_eq!(times(&ns)["max"].as_f64().map(f64::round), Some(5.0));
    }
}
