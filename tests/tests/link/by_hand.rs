//! Both ends of a logging channel on a veth pair, driven by the test instead of by `understudy link`.

use logchan::channel::{Event, Timing};
use logchan::endpoint::{EndpointEvent, Settings};
use logchan::handshake::Security;
use logchan::ids::{Lane, Role, Term, VmId};
use logchan::time::{Duration, Time};
use netpath::{MacAddr, ReceivePath, WaitPolicy};
use replication::limits::BULK_BACKLOG_BYTES_MAX;
use std::sync::atomic::{AtomicU64, Ordering};
use testbed::{Namespace, TestbedError, command};
use vmm::link::{LinkOptions, LogLink, now};

const MACS: [MacAddr; 2] = [MacAddr(2, 0, 0, 0, 0, 0xa), MacAddr(2, 0, 0, 0, 0, 0xb)];
/// Upper bound of the bytes that the kernel accounts for a full frame.
const FULL_FRAME_BYTES: u32 = 2560;

/// Long enough that a machine that stalls for a moment does not end a channel.
const PATIENT: Timing = Timing {
    silence: Duration::from_millis(20_000),
    lease: Duration::from_millis(10_000),
    ..Timing::DEFAULT
};

/// Drives a link until the handshake is complete.
fn connect(link: &mut LogLink) {
    while link.channel().is_none() {
        link.transmit().unwrap();
        link.wait(Some(now() + Duration::from_millis(1))).unwrap();
        link.receive().unwrap();
    }
    link.transmit().unwrap();
}

/// Frames after which it is clear that none is handled with a time before it was sent. One in a hundred
/// is.
const ROUNDS_MAX: u64 = 20_000;

/// Number that marks the end of the rounds.
const OVER: u64 = u64::MAX;

/// Ends the rounds on drop, also after a panic.
struct Over<'a>(&'a AtomicU64);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(OVER, Ordering::Release);
    }
}

/// Two hosts and their links, the primary's first.
struct Pair {
    links: [LogLink; 2],
    namespaces: [Namespace; 2],
}

impl Pair {
    /// Opens two ends before the handshake; they belong to no thread yet.
    fn open(receive: ReceivePath, wait: WaitPolicy) -> Pair {
        let namespaces = ["a", "b"].map(|role| Namespace::new(role).unwrap());
        let [a, b] = &namespaces;
        a.ip(&format!("link add lan0 type veth peer name lan0 netns {}", b.name())).unwrap();
        for (namespace, mac) in namespaces.iter().zip(MACS) {
            namespace.ip(&format!("link set lan0 address {} up", &mac.to_string())).unwrap();
        }
        let open = |namespace: &Namespace, role, peer| {
            let mut settings = Settings::new(role, VmId(1), Term(1));
            settings.timing = PATIENT;
            let options =
                LinkOptions { interface: "lan0".into(), peer, vm: VmId(1), wait, receive };
            let link = namespace.enter(|| {
                let link = LogLink::open(&options, settings, Security::Insecure);
                link.map_err(|error| TestbedError::Wrong(error.to_string()))
            });
            link.unwrap()
        };
        let links = [open(a, Role::Primary, MACS[1]), open(b, Role::Backup, MACS[0])];
        Pair { links, namespaces }
    }

    /// Opens two ends and completes the handshake.
    fn met(receive: ReceivePath) -> Pair {
        let mut pair = Pair::open(receive, WaitPolicy::BLOCK);
        while pair.links.iter().any(|link| link.channel().is_none()) {
            pair.drive();
        }
        // Each end learns the other's window.
        (0..3).for_each(|_| pair.drive());
        for link in &mut pair.links {
            while link.poll_event().is_some() {}
        }
        pair
    }

    /// Makes both ends send and receive once.
    fn drive(&mut self) {
        for link in &mut self.links {
            link.transmit().unwrap();
        }
        for link in &mut self.links {
            while link.receive().unwrap() {}
        }
    }

    fn append(&mut self, lane: Lane, bytes: &[u8]) {
        let channel = self.links[0].channel_mut().unwrap();
        channel.append(now(), lane, bytes).unwrap();
    }

    /// Returns the number of bytes that the backup has received and not consumed.
    fn received(&self, lane: Lane) -> usize {
        self.links[1].channel().unwrap().received(lane).len()
    }
}

#[test]
fn log_is_acknowledged_when_received_and_bulk_when_consumed() {
    for path in [ReceivePath::Ring, ReceivePath::Calls] {
        let mut pair = Pair::met(path);
        for (lane, acknowledged) in [(Lane::Bulk, false), (Lane::Latency, true)] {
            pair.append(lane, b"some bytes");
            let end = pair.links[0].channel().unwrap().appended(lane);
            let [primary, backup] = &mut pair.links;
            primary.transmit().unwrap();
            while backup.receive().unwrap() {}
            while primary.receive().unwrap() {}
            let acked = primary.channel().unwrap().lane_acked(lane) == end;
            assert_eq!(acked, acknowledged, "{path:?} {lane:?}");
            if lane == Lane::Latency {
                let events: Vec<_> = std::iter::from_fn(|| primary.poll_event()).collect();
                let acked = EndpointEvent::Channel(Event::Acked { up_to: end });
                assert!(events.contains(&acked), "{path:?}: {events:?}");
            }
        }
    }
}

/// A wait that saw a frame while spinning lets `receive` reuse its clock reading, which may be older
/// than the frame's sending time. Such a reading must not become the start of the backup's silence
/// timeout.
#[test]
fn silence_timeout_never_starts_before_the_frame_was_sent() {
    let looking = WaitPolicy { spin: std::time::Duration::from_secs(60), ..WaitPolicy::default() };
    let Pair { links: [mut primary, mut backup], namespaces: _both } =
        Pair::open(ReceivePath::Ring, looking);
    let (round, sent_at) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = || round.load(Ordering::Acquire) == OVER;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            connect(&mut primary);
            for number in 1.. {
                while round.load(Ordering::Acquire) < number {
                    std::thread::yield_now();
                }
                if is_over() {
                    break;
                }
                // By then the backup, which spins, reads its clock as seldom as it ever does.
                let settled = now() + Duration::from_micros(50);
                while now() < settled {}
                let now = now();
                sent_at.store(now.as_nanos(), Ordering::Release);
                let appended = primary.channel_mut().unwrap().append(now, Lane::Latency, b"output");
                let end = appended.unwrap().end;
                primary.transmit_at(now).unwrap();
                while primary.channel().unwrap().acked() < end && !is_over() {
                    primary.receive().unwrap();
                    primary.transmit().unwrap();
                }
            }
        });
        let over = Over(&round);
        connect(&mut backup);
        let heard_at = |backup: &LogLink| backup.channel().unwrap().heard_at();
        let (mut early, mut number) = (0, 0);
        while early < 3 && number < ROUNDS_MAX {
            number += 1;
            round.store(number, Ordering::Release);
            let length = loop {
                match backup.channel().unwrap().received(Lane::Latency).len() {
                    0 => assert!(!sender.is_finished(), "the primary has stopped"),
                    length => break length,
                }
                backup.wait(Some(now() + Duration::from_millis(100))).unwrap();
                backup.receive().unwrap();
            };
            let sent_at = Time::from_nanos(sent_at.load(Ordering::Acquire));
            early += u32::from(heard_at(&backup) < sent_at);
            backup.transmit().unwrap();
            assert!(heard_at(&backup) >= sent_at, "round {number}");
            backup.channel_mut().unwrap().consume(Lane::Latency, length);
        }
        drop(over);
        println!("{early} of {number} frames were handled with a time before they were sent");
        // Two threads on one core alternate: no frame arrives while the other one spins.
        let both_run = testbed::cores::usable().len() > 1;
        assert!(early > 0 || !both_run, "no reading was early, so the test tested nothing");
    });
}

#[test]
fn log_entry_on_a_slow_link_waits_for_few_bulk_frames() {
    let mut pair = Pair::met(ReceivePath::Ring);
    // A frame takes more than a millisecond, so the queue outlasts any iteration of the test.
    let arguments = "qdisc add dev lan0 root tbf rate 10mbit burst 1600 limit 1000000";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    command("tc", &[&["-n", pair.namespaces[0].name()], &arguments[..]].concat()).unwrap();

    pair.append(Lane::Bulk, &[7; 400_000]);
    let (mut most, mut at_append) = (0, None);
    loop {
        pair.drive();
        most = most.max(pair.links[0].port().unsent_bytes().unwrap());
        let bulk = pair.received(Lane::Bulk);
        match at_append {
            None if bulk >= 50_000 => {
                pair.append(Lane::Latency, b"output");
                at_append = Some(bulk);
            }
            Some(at_append) if pair.received(Lane::Latency) > 0 => {
                let frames = (bulk - at_append).div_ceil(1300);
                println!("the entry waited for {frames} frames, {most} bytes were unsent at most");
                assert!(frames <= 12, "the entry waited for {frames} frames of bulk");
                break;
            }
            None | Some(_) => {}
        }
    }
    assert!(most > BULK_BACKLOG_BYTES_MAX, "the queue never filled: {most} bytes");
    assert!(most <= BULK_BACKLOG_BYTES_MAX + 5 * FULL_FRAME_BYTES, "{most} bytes in the queue");
    // Nothing that was held back is lost.
    while pair.received(Lane::Bulk) < 400_000 {
        pair.links[0].wait(None).unwrap();
        pair.drive();
    }
}
