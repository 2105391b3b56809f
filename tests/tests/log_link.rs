//! A logging channel's two ends on a veth pair, driven by hand: what a link does by itself.

use logchan::channel::{Event, Timing};
use logchan::endpoint::{EndpointEvent, Settings};
use logchan::handshake::Security;
use logchan::ids::{Lane, Role, Term, VmId};
use logchan::time::Duration;
use netpath::{MacAddr, ReceivePath, WaitPolicy};
use vmm::demo::DemoError;
use vmm::demo::lan::{Namespace, command};
use vmm::link::{LinkOptions, LogLink, UNSENT_BYTES_MAX, now};

const MACS: [MacAddr; 2] = [MacAddr(2, 0, 0, 0, 0, 0xa), MacAddr(2, 0, 0, 0, 0, 0xb)];
/// What the kernel accounts for a full frame, at most.
const FULL_FRAME_BYTES: u32 = 2560;

/// A machine that stands still for a moment must not end a channel here.
const PATIENT: Timing = Timing {
    silence: Duration::from_millis(20_000),
    lease: Duration::from_millis(10_000),
    ..Timing::DEFAULT
};

/// Two hosts and their links. The primary's comes first.
struct Pair {
    links: [LogLink; 2],
    namespaces: [Namespace; 2],
}

impl Pair {
    /// Two ends that have met, by the ring or by calls.
    fn new(receive: ReceivePath) -> Pair {
        let namespaces = ["a", "b"].map(|role| Namespace::new(role).unwrap());
        let [a, b] = &namespaces;
        a.ip(&["link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", b.name()])
            .unwrap();
        for (namespace, mac) in namespaces.iter().zip(MACS) {
            namespace.ip(&["link", "set", "lan0", "address", &mac.to_string(), "up"]).unwrap();
        }
        let open = |namespace: &Namespace, role, peer| {
            let mut settings = Settings::new(role, VmId(1), Term(1));
            settings.timing = PATIENT;
            let wait = WaitPolicy::BLOCK;
            let options = LinkOptions { interface: "lan0".into(), peer, wait, receive };
            let link = namespace.enter(|| {
                let link = LogLink::open(&options, settings, Security::Insecure);
                link.map_err(|error| DemoError::Wrong(error.to_string()))
            });
            link.unwrap()
        };
        let links = [open(a, Role::Primary, MACS[1]), open(b, Role::Backup, MACS[0])];
        let mut pair = Pair { links, namespaces };
        while pair.links.iter().any(|link| link.channel().is_none()) {
            pair.turn();
        }
        // Each end learns of the other's window.
        (0..3).for_each(|_| pair.turn());
        for link in &mut pair.links {
            while link.poll_event().is_some() {}
        }
        pair
    }

    /// Both ends send and receive what there is.
    fn turn(&mut self) {
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

    /// Bytes that the backup has received and not consumed.
    fn received(&self, lane: Lane) -> usize {
        self.links[1].channel().unwrap().received(lane).len()
    }
}

#[test]
fn log_is_acknowledged_by_receiving_it_and_bulk_is_not() {
    for path in [ReceivePath::Ring, ReceivePath::Calls] {
        let mut pair = Pair::new(path);
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

/// A wait that saw a frame spares `receive` the clock. The time that it is then handled with may be
/// one before the frame was sent, and must not stay the one that the backup's patience counts from.
#[test]
fn patience_never_counts_from_before_the_frame_was_sent() {
    let mut pair = Pair::new(ReceivePath::Ring);
    let before = now();
    std::thread::sleep(std::time::Duration::from_millis(2));
    pair.append(Lane::Latency, b"output");
    let [primary, backup] = &mut pair.links;
    let sent_at = now();
    primary.transmit_at(sent_at).unwrap();
    backup.wait_at(before, None).unwrap();
    backup.receive().unwrap();
    let heard_at = |backup: &LogLink| backup.channel().unwrap().heard_at();
    assert_eq!(heard_at(backup), before, "this test is about a time that is too early");
    backup.transmit().unwrap();
    assert!(heard_at(backup) >= sent_at);

    // Without such a wait, the clock is read when the frames are there.
    let sent_at = now();
    primary.channel_mut().unwrap().append(sent_at, Lane::Latency, b"output").unwrap();
    primary.transmit_at(sent_at).unwrap();
    backup.receive().unwrap();
    assert!(heard_at(backup) >= sent_at);
}

#[test]
fn log_waits_for_few_frames_of_bulk_in_the_queue_of_a_slow_link() {
    let mut pair = Pair::new(ReceivePath::Ring);
    // More than a millisecond for a frame: the queue is longer than any turn of ours.
    let arguments = "qdisc add dev lan0 root tbf rate 10mbit burst 1600 limit 1000000";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    command("tc", &[&["-n", pair.namespaces[0].name()], &arguments[..]].concat()).unwrap();

    pair.append(Lane::Bulk, &[7; 400_000]);
    let (mut most, mut at_append) = (0, None);
    loop {
        pair.turn();
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
    assert!(most > UNSENT_BYTES_MAX, "the queue never filled: {most} bytes");
    assert!(most <= UNSENT_BYTES_MAX + 5 * FULL_FRAME_BYTES, "{most} bytes in the queue");
    // Nothing is left behind for being held back.
    while pair.received(Lane::Bulk) < 400_000 {
        pair.links[0].wait(None).unwrap();
        pair.turn();
    }
}
