//! Writes the page's section for each benchmark: its description, its most important figures, and
//! plots.

use super::Topic;
use super::figures::{curves, ms, number, times, us};
use super::html::Page;
use super::plot::Row;
use crate::outcome::Outcome;
use crate::series::Series;

/// Adds the section of `outcome`, which was measured for `topic`.
pub(super) fn write(page: &mut Page, topic: Topic, outcome: &Outcome) {
    match topic {
        Topic::LogRtt => log_rtt(page, outcome),
        Topic::IrqDelivery => irq_delivery(page, outcome),
        Topic::OutputHold => output_hold(page, outcome),
        Topic::Throughput => throughput(page, outcome),
        Topic::Failover => failover(page, outcome),
        Topic::Checkpoint => checkpoint(page, outcome),
        Topic::Peers => peers(page, outcome),
    }
}

fn log_rtt(page: &mut Page, outcome: &Outcome) {
    page.title("The logging channel: round trips");
    page.note(
        "Time from handing over 64 bytes until the sender knows that the other host has them. The whole channel \
        (sealing, retransmission, acknowledgement) is compared with the port it uses (a receive ring and \
        io_uring) and with plain sockets, which echo. All variants use the same wait policy: block at once \
        (block); spin for 50 us, then block (spin); or, with one request every 10 ms, spin for 200 us, then block (idle).",
    );
    let round_trips = &outcome.figures["round_trips"];
    let mut rows = Vec::new();
    for policy in ["block", "spin", "idle", "idle-block"] {
        for variant in ["channel", "channel-insecure", "port", "udp", "tcp", "af_packet"] {
            let figures = &round_trips[variant][policy];
            if figures.is_object() {
                let [p50, p99, p999] = times(figures);
                let name = format!("{policy}: {variant}");
                let ratio =
                    |name: &str| number(&figures[format!("ratio_p50_to_{name}").as_str()], 2);
                rows.push(vec![
                    name,
                    p50,
                    p99,
                    p999,
                    ratio("udp"),
                    ratio("tcp"),
                    ratio("udp_block"),
                ]);
            }
        }
    }
    page.table(
        &[
            "policy: variant",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "p50 / UDP",
            "p50 / TCP",
            "p50 / blocking UDP",
        ],
        &rows,
    );
    page.part("Latency with policy spin: neither side blocks");
    let names = ["channel", "channel-insecure", "port", "udp", "tcp", "af_packet"];
    let series = names.map(|name| format!("{name}-spin"));
    let named: Vec<(&str, &str)> =
        names.into_iter().zip(series.iter().map(String::as_str)).collect();
    page.percentiles(&curves(outcome, &named));
    page.part("Acknowledgement latency of log entries during a bulk transfer");
    page.note(
        "1000 entries per second, on an otherwise idle link and on a link saturated with checkpoint pages.",
    );
    page.percentiles(&curves(
        outcome,
        &[
            ("sealed, idle link", "channel-entries-idle"),
            ("sealed, during bulk", "channel-entries-bulk"),
            ("insecure, idle link", "channel-insecure-entries-idle"),
            ("insecure, during bulk", "channel-insecure-entries-bulk"),
        ],
    ));
    let bulk = &outcome.figures["bulk"];
    let rows: Vec<Vec<String>> = ["channel", "channel-insecure", "tcp"]
        .iter()
        .map(|way| {
            let bytes = bulk[way]["bytes_per_second"].as_f64().unwrap_or(f64::NAN);
            vec![
                (*way).into(),
                format!("{:.0}", bytes / 1e6),
                number(&bulk[way]["ratio_to_tcp"], 2),
            ]
        })
        .collect();
    page.table(&["bulk, one way", "MB/s", "MB/s / TCP"], &rows);
}

fn irq_delivery(page: &mut Page, outcome: &Outcome) {
    page.title("Interrupt delivery");
    page.note(
        "Time from just before the client hands a frame to its kernel until the guest's interrupt handler \
        acknowledges it at the NIC. A guest that makes no exit is stopped for a pending frame only after the \
        deadline, so the deadline dominates the figures of a computing guest.",
    );
    let mut rows = Vec::new();
    for kind in ["standalone", "protected"] {
        let Some(deadlines) = outcome.figures["by_deadline_us"][kind].as_object() else { continue };
        let mut deadlines: Vec<_> = deadlines.iter().collect();
        deadlines.sort_by_key(|(us, _)| us.parse::<u64>().unwrap_or(u64::MAX));
        for (deadline, states) in deadlines {
            for state in ["idle", "computing", "mix"] {
                let [p50, p99, p999] = times(&states[state]);
                let frames = states[state]["frames"].to_string();
                rows.push(vec![
                    format!("{kind}, {state}"),
                    deadline.clone(),
                    frames,
                    p50,
                    p99,
                    p999,
                ]);
            }
        }
    }
    page.table(&["VM, guest", "deadline us", "frames", "p50 us", "p99 us", "p99.9 us"], &rows);
    let deadline = &outcome.figures["deadline_us"];
    page.part(&format!("Delivery latency with a deadline of {deadline} us"));
    let names = [
        ("standalone, idle", "standalone.idle"),
        ("standalone, computing", "standalone.computing"),
        ("standalone, mix", "standalone.mix"),
        ("protected, idle", "protected.idle"),
        ("protected, computing", "protected.computing"),
        ("protected, mix", "protected.mix"),
    ];
    let series = names.map(|(_, name)| format!("{name}.{deadline}us"));
    let labels = names.into_iter().map(|(label, _)| label);
    let named: Vec<(&str, &str)> = labels.zip(series.iter().map(String::as_str)).collect();
    page.percentiles(&curves(outcome, &named));
}

/// The stages of an answer, in order.
const STAGES: [&str; 6] = ["inject", "handler", "guest", "send", "ack", "leave"];

fn output_hold(page: &mut Page, outcome: &Outcome) {
    page.title("Output hold");
    page.note(
        "A protected VM's output is held until the backup has acknowledged the log that the output depends on. \
        The hold lasts from the guest's transmission of the output to the acknowledgement (send and ack below); \
        an unprotected VM has none. The bars show the median of each stage: inject (from the tap to the \
        interrupt), handler (until the guest's handler acknowledges it), guest (until the guest transmits its \
        answer), send (until the log is sent), ack (until the acknowledgement), leave (until the answer is on the tap).",
    );
    let figures = &outcome.figures;
    page.note(&format!(
        "At 100 requests per second, sealed: hold p50 {} us. p50 ratio, hold / bare channel round trip at the \
        same pace: {} (round trip {} us). p50 ratio, hold / bare channel round trip back to back, with warm caches: \
        {} (round trip {} us).",
        us(&figures["hold_ns"]["p50"]),
        number(&figures["ratio_p50"], 2),
        us(&figures["log_rtt_ns"]["p50"]),
        number(&figures["ratio_p50_back_to_back"], 2),
        us(&figures["log_rtt_back_to_back_ns"]["p50"]),
    ));
    page.note(&format!(
        "With protected-strict (--output-commit strict) each output waits for the acknowledgement of its own log \
        entry. p50 ratio at 100 requests per second, hold of protected-strict / protected: {}.",
        number(&figures["ratio_p50_strict_to_early"], 2),
    ));
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for kind in ["protected", "protected-strict", "protected-insecure", "standalone"] {
        for load in ["1", "100", "1000", "saturating"] {
            let under = &figures[kind][load];
            if !under.is_object() {
                continue;
            }
            let name = if load == "saturating" { load.into() } else { format!("{load}/s") };
            let name = format!("{kind}, {name}");
            let [p50, p99, p999] = times(&under["service"]);
            let hold = ["p50", "p99", "p999"].map(|quantile| us(&under["hold_ns"][quantile]));
            let [hold50, hold99, hold999] =
                if kind == "standalone" { ["-"; 3].map(String::from) } else { hold };
            rows.push(vec![name.clone(), p50, p99, p999, hold50, hold99, hold999]);
            let part =
                |stage: &&str| under["stages"][stage]["p50_ns"].as_f64().unwrap_or(0.0) / 1e3;
            bars.push(Row { name, parts_us: STAGES.iter().map(part).collect() });
        }
    }
    page.table(
        &["VM, load", "request p50 us", "p99", "p99.9", "hold p50 us", "p99", "p99.9"],
        &rows,
    );
    page.part("Median of each stage");
    page.waterfall(&STAGES, &bars);
    page.part("Output hold at 100 requests per second, and round trip of the bare channel");
    page.percentiles(&curves(
        outcome,
        &[
            ("hold, sealed", "protected.100.hold"),
            ("hold, sealed, strict", "protected-strict.100.hold"),
            ("hold, insecure", "protected-insecure.100.hold"),
            ("channel, 100/s", "channel-poll"),
            ("channel, back to back", "channel-spin"),
        ],
    ));
    page.part("Request latency at the client, 1000 requests per second");
    page.percentiles(&curves(
        outcome,
        &[
            ("standalone, response", "standalone.1000.response"),
            ("protected, response", "protected.1000.response"),
            ("standalone, service", "standalone.1000.service"),
            ("protected, service", "protected.1000.service"),
        ],
    ));
}

fn throughput(page: &mut Page, outcome: &Outcome) {
    page.title("What protection costs");
    page.note(
        "Requests per second of the same VM with a backup, without a backup, and without stage timestamps. \
        Client, primary and backup share this machine's cores; on two physical hosts they would not.",
    );
    let mut rows = Vec::new();
    for work in ["counter-1", "counter-16", "echo"] {
        for kind in ["standalone", "no-stages", "protected"] {
            let figures = &outcome.figures["work"][work][kind];
            if !figures.is_object() {
                continue;
            }
            let [p50, p99, _] = times(&figures["latency"]);
            let cpu: Vec<String> = figures["cpu_us_each"]
                .as_array()
                .map_or(Vec::new(), |each| each.iter().map(|us| number(us, 0)).collect());
            let rate = number(&figures["per_second"], 0);
            rows.push(vec![format!("{work}: {kind}"), rate, p50, p99, cpu.join(" + ")]);
        }
    }
    page.table(&["work: VM", "per second", "p50 us", "p99 us", "CPU us per request"], &rows);
    let rows: Vec<Vec<String>> = ["counter-1", "counter-16", "echo"]
        .iter()
        .map(|work| {
            let of = |name: &str| number(&outcome.figures["work"][work][name], 3);
            vec![
                (*work).into(),
                of("ratio_protected_to_standalone"),
                of("ratio_measured_to_not_measured"),
            ]
        })
        .collect();
    page.table(
        &["request rate ratio", "protected / standalone", "with / without stage timestamps"],
        &rows,
    );
    page.part("Request latency, counter, one connection");
    page.percentiles(&curves(
        outcome,
        &[("standalone", "standalone.counter-1"), ("protected", "protected.counter-1")],
    ));
}

fn failover(page: &mut Page, outcome: &Outcome) {
    page.title("Failover");
    page.note(
        "The primary and its supervisor are killed (SIGKILL) under traffic, as by a loss of power. Detect: from the \
        kill until the backup declares the primary dead. Go live: from there until the backup releases the VM's outputs. Outage: the longest gap \
        between two answers to a client that sends a UDP request every millisecond. TCP gap: the same on one TCP \
        connection, where the sender's retransmission timer (200 ms and more) dominates. False alarms: takeovers \
        and lost backups without a kill, per minute of protected time.",
    );
    let (mut rows, empty) = (Vec::new(), Vec::new());
    for point in outcome.figures["silences"].as_array().unwrap_or(&empty) {
        let mut row = vec![format!("{} ms", point["silence_ms"]), point["kills"].to_string()];
        for stage in ["detect", "golive", "outage", "tcp_gap"] {
            row.push(format!("{} / {}", ms(&point[stage]["p50_ns"]), ms(&point[stage]["max_ns"])));
        }
        for host in ["idle", "loaded"] {
            row.push(number(&point["false_alarms"][host]["alarms_per_protected_minute"], 1));
        }
        rows.push(row);
    }
    page.table(
        &[
            "silence timeout",
            "kills",
            "detect ms, p50 / max",
            "go live ms",
            "UDP outage ms",
            "TCP gap ms",
            "false alarms/min, idle hosts",
            "false alarms/min, loaded hosts",
        ],
        &rows,
    );
}

fn checkpoint(page: &mut Page, outcome: &Outcome) {
    page.title("Checkpoints");
    page.note(
        "A guest that computes without exits is kept identical on both hosts by checkpoints: one for each input \
        that is pending for longer than the deadline. Size and duration by working set, the memory that the guest \
        keeps writing.",
    );
    let (mut rows, empty) = (Vec::new(), Vec::new());
    for point in outcome.figures["points"].as_array().unwrap_or(&empty) {
        rows.push(vec![
            format!("{} KiB, {}/s", point["kib"], point["inputs_per_s"]),
            point["deadline_us"].to_string(),
            number(&point["checkpoints_per_s"], 0),
            number(&point["pages_each"]["mean"], 1),
            number(&point["mbit_per_s"], 1),
            us(&point["still"]["p50_ns"]),
            us(&point["still"]["p99_ns"]),
            us(&point["apply"]["p50_ns"]),
            us(&point["apply"]["p99_ns"]),
        ]);
    }
    page.table(
        &[
            "working set, inputs",
            "deadline us",
            "checkpoints/s",
            "pages, mean",
            "Mbit/s",
            "guest stopped us, p50",
            "p99",
            "apply us, p50",
            "p99",
        ],
        &rows,
    );
}

fn peers(page: &mut Page, outcome: &Outcome) {
    page.title("The same guest under QEMU/KVM");
    page.note(&format!(
        "All VMs run at once on one core, unprotected; the client runs on the other core and measures them in \
        interleaved rounds. {}. QEMU blocks when its guest is idle. understudy-blocking does the same; understudy \
        spins for a moment first.",
        outcome.figures["qemu"].as_str().unwrap_or("QEMU")
    ));
    let mut rows = Vec::new();
    if let Some(subjects) = outcome.figures["subjects"].as_object() {
        for (name, figures) in subjects {
            let mut row = vec![name.clone()];
            row.extend(times(&figures["ping"]));
            row.extend(times(&figures["counter"]));
            rows.push(row);
        }
    }
    page.table(&["VM", "ping p50 us", "p99", "p99.9", "counter p50 us", "p99", "p99.9"], &rows);
    page.note(&format!(
        "p50 latency ratio, understudy-blocking / fastest QEMU: ping {}, counter {}.",
        number(&outcome.figures["ratio_ping_p50_to_qemu"], 3),
        number(&outcome.figures["ratio_counter_p50_to_qemu"], 3)
    ));
    let all: Vec<(&str, &Series)> = outcome
        .series
        .iter()
        .filter(|(name, _)| name.contains("ping"))
        .map(|(name, series)| (name.trim_start_matches("peers."), series))
        .collect();
    page.part("Ping latency");
    page.percentiles(&all);
}
