//! Transfers a gibibyte of pages and 1000 output entries per second on one channel: all data arrives
//! complete and in order, and the pages hardly delay the entries.
//!
//! Both ends run production code ([`LogLink`]), each on its own core that no other thread gets. The
//! idle reference is a channel with the same entries and no bulk, with the default wait policy at both
//! ends. Its ends sleep between entries, which the ends of a busy channel do not.

#![expect(clippy::print_stdout, reason = "the test harness takes it")]

use hdrhistogram::Histogram;
use logchan::channel::{Channel, Event};
use logchan::endpoint::{EndpointEvent, Settings};
use logchan::entry::{Entry, PageBytes};
use logchan::entry_codec::{decode, encode};
use logchan::error::DecodeError;
use logchan::handshake::Security;
use logchan::ids::{Lane, LogSeq, Role, Term, VmId};
use logchan::limits::PAGE_BYTES;
use logchan::time::{Duration, Time};
use netpath::{ReceivePath, WaitPolicy};
use std::collections::VecDeque;
use testbed::cores;
use tests::load::take_core;
use tests::wire::{Side, Wire};
use vmm::link::timing::{SILENCE_MS_MAX, timing};
use vmm::link::{LinkOptions, LogLink, key_file, now};

const PAGES: u64 = (1 << 30) / PAGE_BYTES as u64;

/// Idle and loaded phases alternate, so that a disturbance affects both. Rounds are short because the
/// ends are real-time threads, which the kernel stops for 50 ms if they were busy for 950 of 1000 ms
/// (`sched(7)`, sched_rt_runtime_us). A round is busy for less than that and idle for the rest.
const ROUNDS: u64 = 8;

/// Duration of the idle part of a round.
const IDLE: Duration = Duration::from_millis(500);

const INTERVAL: Duration = Duration::from_micros(1_000);

/// Largest p99 ratio of entry latency, with bulk / without bulk.
const RATIO_MAX: f64 = 3.0;

const ATTEMPTS: usize = 3;

/// Fewest entries for a meaningful 99th percentile.
const ENTRIES_MIN: u64 = 1000;

/// Gives the calling thread exclusive use of the `n`th core; does nothing if both ends share one core.
fn own_core(n: usize) {
    if cores::usable().len() > 1 {
        take_core(cores::nth(n));
    }
}

fn open(wire: &Wire, side: Side, role: Role) -> LogLink {
    let options = LinkOptions {
        interface: side.interface().into(),
        peer: side.other().mac().parse().unwrap(),
        vm: VmId(1),
        wait: WaitPolicy::default(),
        receive: ReceivePath::Auto,
    };
    let term = Term(u64::from(role == Role::Primary));
    // This test is not about silence.
    let settings =
        Settings { timing: timing(SILENCE_MS_MAX), ..Settings::new(role, VmId(1), term) };
    let key = key_file::read(&wire.path("key")).unwrap();
    LogLink::open(&options, settings, Security::Sealed(key)).unwrap()
}

/// Receives what arrived. Returns whether the channel is still open.
fn receive_all(link: &mut LogLink) -> bool {
    link.receive().unwrap();
    let mut is_open = true;
    while let Some(event) = link.poll_event() {
        match event {
            EndpointEvent::Channel(Event::PeerBye | Event::Left { .. }) => is_open = false,
            EndpointEvent::Channel(Event::PeerSilent { .. }) | EndpointEvent::Refused { .. } => {
                panic!("{event:?}");
            }
            EndpointEvent::Met { .. } | EndpointEvent::Channel(_) => {}
        }
    }
    is_open
}

fn connect(link: &mut LogLink) {
    while link.channel().is_none() {
        receive_all(link);
        link.transmit().unwrap();
        link.wait(Some(now() + Duration::from_millis(10))).unwrap();
    }
}

/// Fills a page so that every word of every page is different.
fn fill(page: &mut [u8], number: u64) {
    let first = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (index, word) in page.chunks_exact_mut(8).enumerate() {
        let value = first.wrapping_add((index as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9));
        word.copy_from_slice(&value.to_le_bytes());
    }
}

fn output(number: u64) -> Entry<'static> {
    Entry::Output {
        length: (number % 1500) as u32,
        digest: number.wrapping_mul(0x94d0_49bb_1331_11eb),
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}

struct Primary {
    link: LogLink,
    entries: u64,
    pages: u64,
    /// End and due time of each unacknowledged entry.
    under_way: VecDeque<(LogSeq, Time)>,
    page: Vec<u8>,
    encoded: Vec<u8>,
}

impl Primary {
    /// Sends an entry every millisecond until `until` and until `pages` pages were sent. Records the
    /// time from when each was due to its acknowledgement.
    fn phase(&mut self, until: Time, pages: u64, ack_ns: &mut Histogram<u64>) {
        let mut due = now();
        let mut ends = false;
        while !(ends && self.under_way.is_empty()) {
            assert!(receive_all(&mut self.link), "the backup left the channel");
            let channel = self.link.channel_mut().unwrap();
            let now = now();
            let acked = channel.acked();
            while let Some((_, due)) = self.under_way.pop_front_if(|(end, _)| *end <= acked) {
                ack_ns.saturating_record(now.since(due).as_nanos());
            }
            ends = now >= until && self.pages == pages;
            while due <= now && !ends {
                self.encoded.clear();
                encode(&output(self.entries), &mut self.encoded);
                let end = channel.append(now, Lane::Latency, &self.encoded).expect("room").end;
                self.under_way.push_back((end, due));
                self.entries += 1;
                due = due + INTERVAL;
            }
            while self.pages < pages && channel.room(Lane::Bulk) > 2 * PAGE_BYTES {
                fill(&mut self.page, self.pages);
                self.encoded.clear();
                let bytes = PageBytes::Raw(&self.page);
                encode(&Entry::Page { number: self.pages, bytes }, &mut self.encoded);
                channel.append(now, Lane::Bulk, &self.encoded).expect("room");
                self.pages += 1;
            }
            if !self.link.transmit().unwrap() {
                self.link.wait(Some(due)).unwrap();
            }
        }
    }
}

/// Returns the latencies without and with bulk over all rounds, the duration of the bulk transfer, and
/// the number of entries.
fn primary(wire: &Wire) -> ([Histogram<u64>; 2], f64, u64) {
    own_core(0);
    let mut link = open(wire, Side::A, Role::Primary);
    connect(&mut link);
    let (page, encoded) = (vec![0; PAGE_BYTES], Vec::with_capacity(2 * PAGE_BYTES));
    let under_way = VecDeque::new();
    let mut primary = Primary { link, entries: 0, pages: 0, under_way, page, encoded };
    // Warm-up, not measured: cold caches, first uses.
    primary.phase(now() + IDLE, 0, &mut histogram());
    let mut times = [histogram(), histogram()];
    let mut seconds = 0.0;
    let [idle, loaded] = &mut times;
    for round in 1..=ROUNDS {
        primary.phase(now() + IDLE, primary.pages, idle);
        let start = now();
        primary.phase(start, PAGES * round / ROUNDS, loaded);
        seconds += now().since(start).as_nanos() as f64 / 1e9;
    }
    let Primary { mut link, entries, .. } = primary;
    // The last pages may still be in flight.
    while link.channel().is_some_and(|c| c.lane_acked(Lane::Bulk) < c.appended(Lane::Bulk)) {
        assert!(receive_all(&mut link));
        if !link.transmit().unwrap() {
            link.wait(None).unwrap();
        }
    }
    link.channel_mut().unwrap().bye(now());
    while receive_all(&mut link) {
        link.transmit().unwrap();
        link.wait(None).unwrap();
    }
    let (stats, port) = (link.channel().unwrap().stats().clone(), link.report().port);
    println!("primary: {} sent again, {} bytes, {port:?}", stats.resent, stats.sent_bytes);
    (times, seconds, entries)
}

/// Decodes the complete entries in `lane` and passes each to `each`.
fn read(channel: &mut Channel, lane: Lane, mut each: impl FnMut(Entry<'_>)) {
    let bytes = channel.received(lane);
    let mut length = 0;
    loop {
        match decode(&bytes[length..]) {
            Ok((entry, bytes)) => {
                each(entry);
                length += bytes;
            }
            Err(DecodeError::Truncated) => break,
            Err(error) => panic!("byte {length} of the {lane:?} lane: {error}"),
        }
    }
    channel.consume(lane, length);
}

/// Receives and checks all entries and pages. Returns their numbers.
fn backup(wire: &Wire) -> (u64, u64) {
    own_core(1);
    let mut link = open(wire, Side::B, Role::Backup);
    connect(&mut link);
    let mut expected = vec![0; PAGE_BYTES];
    let (mut entries, mut pages) = (0, 0);
    let mut is_open = true;
    while is_open {
        is_open = receive_all(&mut link);
        let channel = link.channel_mut().unwrap();
        read(channel, Lane::Latency, |entry| {
            assert_eq!(entry, output(entries));
            entries += 1;
        });
        read(channel, Lane::Bulk, |entry| {
            fill(&mut expected, pages);
            let bytes = PageBytes::Raw(&expected);
            // Not assert_eq, which would print the whole page.
            assert!(
                entry == Entry::Page { number: pages, bytes },
                "page {pages} has wrong contents"
            );
            pages += 1;
        });
        if !link.transmit().unwrap() && is_open {
            link.wait(None).unwrap();
        }
    }
    println!("backup: {:?}", link.report().port);
    (entries, pages)
}

/// Runs one attempt and returns the p99 ratio, with bulk / without bulk.
fn attempt() -> f64 {
    let wire = &Wire::up();
    let ((times, seconds, entries), arrived) = std::thread::scope(|scope| {
        let backup = scope.spawn(|| wire.enter(Side::B, || backup(wire)));
        let primary = wire.enter(Side::A, || primary(wire));
        (primary, backup.join().unwrap())
    });
    assert_eq!(arrived, (entries, PAGES));
    let [idle, loaded] = times.map(|ns| {
        assert!(ns.len() >= ENTRIES_MIN, "{} entries are too few for a 99th percentile", ns.len());
        ns.value_at_quantile(0.99) as f64 / 1000.0
    });
    let ratio = loaded / idle;
    println!("1 GiB in {seconds:.1} s, {:.0} MB/s", 1073.7 / seconds);
    println!("p99 idle {idle:.1} us, with bulk {loaded:.1} us: {ratio:.2} times as long");
    ratio
}

#[test]
fn gibibyte_of_bulk_arrives_complete_and_does_not_delay_entries() {
    // Other work on the host, and the hypervisor below it, takes a core away in one attempt and not in
    // the next. An entry that waits for pages does so in every attempt. The completeness checks apply
    // to every attempt.
    if cores::usable().len() == 1 {
        println!("one core for both ends: with bulk, entries take {:.2} times as long", attempt());
        return;
    }
    let ratios: Vec<_> = (0..ATTEMPTS).map(|_| attempt()).take_while(|r| *r > RATIO_MAX).collect();
    assert!(
        ratios.len() < ATTEMPTS,
        "p99 latency ratio of entries, with / without bulk: {ratios:?}"
    );
}
