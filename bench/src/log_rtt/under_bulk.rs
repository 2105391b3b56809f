//! Measures how long an output entry waits for its acknowledgement while pages are sent through the
//! bulk lane, and on the same link without pages.
//!
//! One thread appends the entries, fills the bulk lane and drives the link, as the vCPU thread does.
//! Entries follow a fixed schedule. Two times are measured for each: from its append, and from when it
//! was due, which includes delays by the thread's other work.

use super::bulk::read_pages;
use super::channel::{self, channel};
use super::variant::request;
use crate::error::BenchError;
use crate::interleave::Round;
use crate::lan::{Host, Lan};
use crate::outcome::Outcome;
use crate::series::{Series, ratio};
use logchan::channel::Event;
use logchan::endpoint::EndpointEvent;
use logchan::ids::{Lane, LogSeq};
use logchan::limits::PAGE_BYTES;
use logchan::seal::Protection;
use logchan::time::{Duration, Time};
use netpath::WaitPolicy;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use vmm::link::now;

/// Time from one entry to the next.
const PACE: Duration = Duration::from_millis(1);

/// Warm-up entries per round, which are not recorded.
const WARM_UP: u64 = 20;

/// A link with or without a bulk transfer, and its measurements.
pub(super) struct Subject {
    protection: Protection,
    bulk: bool,
    totals: Totals,
    ns: u64,
}

/// Measurements of one round, or the sum of all rounds.
struct Totals {
    from_append: Series,
    from_due: Series,
    bulk_bytes: u64,
    resent: u64,
}

impl Totals {
    fn new() -> Totals {
        let (from_append, from_due) = (Series::new(), Series::new());
        Totals { from_append, from_due, bulk_bytes: 0, resent: 0 }
    }
}

/// Returns the four subjects: with and without pages, encrypted and unencrypted.
pub(super) fn subjects() -> Vec<Subject> {
    let both = [Protection::Sealed, Protection::Insecure];
    let subject = |protection, bulk| Subject { protection, bulk, totals: Totals::new(), ns: 0 };
    both.into_iter()
        .flat_map(|protection| [false, true].map(|bulk| subject(protection, bulk)))
        .collect()
}

impl Subject {
    /// Runs one round: sends this round's share of `entries`.
    pub(super) fn run_round(
        &mut self,
        lan: &Lan,
        round: Round,
        entries: u64,
    ) -> Result<(), BenchError> {
        let entries = round.share(entries);
        if entries == 0 {
            return Ok(());
        }
        let (protection, bulk) = (self.protection, self.bulk);
        let count = WARM_UP + entries;
        let (totals, ()) = lan
            .run(|| primary(protection, bulk, count), |ready| backup(protection, count, ready))
            .map_err(|error| BenchError::Wrong(format!("entries during bulk: {error}")))?;
        self.totals.from_append.add(&totals.from_append);
        self.totals.from_due.add(&totals.from_due);
        self.totals.bulk_bytes += totals.bulk_bytes;
        self.totals.resent += totals.resent;
        self.ns += (PACE * count).as_nanos();
        Ok(())
    }

    const fn name(&self) -> &'static str {
        if self.bulk { "bulk" } else { "idle" }
    }
}

/// An entry that has not been acknowledged yet.
struct Waiting {
    number: u64,
    end: LogSeq,
    due: Time,
    appended: Time,
}

/// Appends `count` entries, one every [`PACE`], with or without pages in between.
fn primary(protection: Protection, bulk: bool, count: u64) -> Result<Totals, BenchError> {
    let mut link = channel::open(Host::Client, protection, WaitPolicy::default())?;
    channel::connect(&mut link)?;
    let page = [0x5a; PAGE_BYTES];
    let mut totals = Totals::new();
    let mut waiting = VecDeque::new();
    let start = now();
    let due = |number| start + PACE * number;
    let mut number = 0;
    loop {
        let begun = now();
        while number < count && due(number) <= begun {
            let entry = request(number);
            let end = channel::append(&mut link, begun, Lane::Latency, &entry)?.end;
            waiting.push_back(Waiting { number, end, due: due(number), appended: begun });
            number += 1;
        }
        while bulk && number < count && channel(&mut link).room(Lane::Bulk) >= PAGE_BYTES {
            channel::append(&mut link, begun, Lane::Bulk, &page)?;
        }
        if !link.transmit_at(begun)? {
            link.wait((number < count).then(|| due(number)))?;
        }
        link.receive()?;
        while let Some(event) = channel::next_event(&mut link)? {
            if let EndpointEvent::Channel(Event::Acked { up_to }) = event {
                let acked = now();
                while let Some(entry) = waiting.pop_front_if(|entry| entry.end <= up_to) {
                    if entry.number >= WARM_UP {
                        totals.from_append.record(acked.since(entry.appended).as_nanos());
                        totals.from_due.record(acked.since(entry.due).as_nanos());
                    }
                }
            }
        }
        if number == count && waiting.is_empty() {
            totals.bulk_bytes = channel(&mut link).lane_acked(Lane::Bulk).0;
            totals.resent = channel(&mut link).stats().resent;
            return Ok(totals);
        }
    }
}

/// Receives and verifies the `count` entries.
fn backup(protection: Protection, count: u64, ready: &dyn Fn()) -> Result<(), BenchError> {
    let mut link = channel::open(Host::Server, protection, WaitPolicy::default())?;
    ready();
    channel::connect(&mut link)?;
    let mut number = 0;
    while number < count {
        channel::drive(&mut link, now(), None)?;
        while channel::next_event(&mut link)?.is_some() {}
        number = channel::read_entries(&mut link, number)?;
        read_pages(&mut link);
    }
    link.transmit()?;
    Ok(())
}

/// Returns the figures by protection: on the idle link, during bulk, and their ratios.
pub(super) fn json(subjects: &[Subject]) -> Value {
    let mut protections: Map<String, Value> = Map::new();
    for subject in subjects {
        let name = channel::name(subject.protection);
        let both = protections.entry(name).or_insert_with(|| json!({}));
        let Totals { from_append, from_due, bulk_bytes, resent } = &subject.totals;
        both[subject.name()] = json!({
            "entries": from_append.len(),
            "ack": from_append.json(),
            "ack_since_due": from_due.json(),
            "bulk_bytes_per_second": (*bulk_bytes as f64 * 1e9 / subject.ns.max(1) as f64) as u64,
            "frames_resent": resent,
        });
        let idle = subjects.iter().find(|s| s.protection == subject.protection && !s.bulk);
        if let Some(idle) = idle.filter(|_| subject.bulk) {
            let ratio_at = |quantile| {
                let [bulk, idle] =
                    [subject, idle].map(|s| s.totals.from_append.quantile_ns(quantile));
                ratio(bulk, idle)
            };
            both["ratio_p50_bulk_to_idle"] = json!(ratio_at(0.5));
            both["ratio_p99_bulk_to_idle"] = json!(ratio_at(0.99));
        }
    }
    protections.into()
}

/// Adds every series to `outcome`.
pub(super) fn keep(outcome: &mut Outcome, subjects: Vec<Subject>) {
    for subject in subjects {
        let name = format!("{}-entries-{}", channel::name(subject.protection), subject.name());
        outcome.keep(&name, subject.totals.from_append);
    }
}
