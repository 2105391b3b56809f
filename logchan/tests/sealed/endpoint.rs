//! Two endpoints on a wire that a test may cut or make lossy. Time is virtual.

use logchan::channel::Event;
use logchan::endpoint::{Endpoint, EndpointEvent, EndpointVerdict, Settings};
use logchan::ids::{Lane, Role, Term, VmId};
use logchan::seal::{SEAL_OVERHEAD_BYTES, VERSION};
use logchan::time::{Duration, Time};

use crate::pair::shared_key;
use crate::rng::Rng;

fn settings(role: Role, term: u64) -> Settings {
    Settings::new(role, VmId(7), Term(term))
}

fn endpoint(settings: Settings, seed: u64) -> Endpoint {
    let mut rng = Rng(seed);
    let entropy = Box::new(move |bytes: &mut [u8]| rng.fill(bytes));
    Endpoint::new(settings, shared_key(), entropy, Time::from_nanos(1)).unwrap()
}

pub(crate) struct Pair {
    pub(crate) ends: [Endpoint; 2],
    pub(crate) events: [Vec<EndpointEvent>; 2],
    pub(crate) now: Time,
    longest: usize,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Pair {
        let primary = endpoint(settings(Role::Primary, 3), 2 * seed);
        Pair::of(primary, endpoint(settings(Role::Backup, 0), 2 * seed + 1))
    }

    fn of(first: Endpoint, second: Endpoint) -> Pair {
        let events = [vec![], vec![]];
        Pair { ends: [first, second], events, now: Time::from_nanos(1), longest: 0 }
    }

    /// Lets `duration` pass. `passes` is called with the sender of every frame; if it returns false, the
    /// frame is lost.
    pub(crate) fn run(&mut self, duration: Duration, mut passes: impl FnMut(usize) -> bool) {
        let until = self.now + duration;
        loop {
            let now = self.now;
            let mut is_idle = true;
            for from in 0..2 {
                let mut buffer = [0; 1500];
                while let Some(length) = self.ends[from].poll_transmit(now, &mut buffer) {
                    is_idle = false;
                    self.longest = self.longest.max(length);
                    if passes(from) {
                        self.ends[1 - from].handle_frame(now, &mut buffer[..length]);
                    }
                }
            }
            for (end, events) in self.ends.iter_mut().zip(&mut self.events) {
                end.handle_timeout(now);
                events.extend(std::iter::from_fn(|| end.poll_event()));
            }
            if !is_idle {
                continue;
            }
            let next = self.ends.iter().filter_map(Endpoint::poll_timeout).min();
            match next.filter(|next| *next <= until) {
                // A timeout that is due now and sends nothing must not stop the clock.
                Some(next) => self.now = next.max(now + Duration::from_nanos(1)),
                None => break,
            }
        }
        self.now = until;
    }

    fn met(&self, end: usize) -> Vec<Term> {
        let term = |event: &EndpointEvent| match *event {
            EndpointEvent::Met { term, .. } => Some(term),
            EndpointEvent::Refused { .. } | EndpointEvent::Channel(_) => None,
        };
        self.events[end].iter().filter_map(term).collect()
    }

    fn saw_silence(&self, end: usize) -> bool {
        let silent =
            |e: &EndpointEvent| matches!(e, EndpointEvent::Channel(Event::PeerSilent { .. }));
        self.events[end].iter().any(silent)
    }

    /// Returns whether the other end reads what end `from` appends.
    fn carries(&mut self, from: usize, text: &[u8]) -> bool {
        let now = self.now;
        let Some(channel) = self.ends[from].channel_mut() else { return false };
        if channel.append(now, Lane::Latency, text).is_err() {
            return false;
        }
        self.run(Duration::from_millis(30), |_| true);
        let Some(channel) = self.ends[1 - from].channel_mut() else { return false };
        let arrived = channel.received(Lane::Latency) == text;
        channel.consume(Lane::Latency, channel.received(Lane::Latency).len());
        arrived
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn endpoints_on_a_lossy_wire_open_one_channel() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let mut pair = Pair::new(seed);
        pair.run(MS * 3000, |_| rng.below(3) == 0);
        pair.run(MS * 3000, |_| true);
        // With two thirds of the frames lost, the ends may time out; then both report it.
        for end in 0..2 {
            assert_eq!(pair.met(end), [Term(3)], "seed {seed}, end {end}");
        }
        let sessions = pair.ends.each_ref().map(|end| end.channel().unwrap().config().session);
        assert_eq!(sessions[0], sessions[1], "seed {seed}");
    }
}

#[test]
fn frames_fit_the_smaller_mtu() {
    let small = Settings { frame_bytes_max: 600, ..settings(Role::Backup, 0) };
    let mut pair = Pair::of(endpoint(settings(Role::Primary, 1), 1), endpoint(small, 2));
    pair.run(MS * 20, |_| true);
    assert!(pair.carries(0, &[7; 5000]) && pair.carries(1, &[8; 5000]));
    assert_eq!(pair.longest, 600);
    for end in &pair.ends {
        let config = end.channel().unwrap().config();
        assert_eq!(config.frame_bytes_max, 600 - SEAL_OVERHEAD_BYTES);
    }
}

#[test]
fn restarted_peer_waits_until_the_survivor_renews() {
    for restarted in 0..2 {
        let survivor = 1 - restarted;
        let mut pair = Pair::new(5);
        pair.run(MS * 20, |_| true);
        assert!(pair.carries(restarted, b"last entry"), "the last entry must arrive");
        let now = pair.now;
        let last = pair.ends[restarted].channel_mut().unwrap();
        last.append(now, Lane::Latency, b"unread").unwrap();
        pair.run(MS, |_| true);

        let role = [Role::Primary, Role::Backup][restarted];
        pair.ends[restarted] = endpoint(settings(role, if restarted == 0 { 3 } else { 0 }), 99);
        pair.run(MS * 500, |_| true);
        assert!(pair.saw_silence(survivor), "the survivor must report the silence");
        assert_eq!(pair.met(survivor).len(), 1);
        let channel = pair.ends[survivor].channel().unwrap();
        assert_eq!(channel.received(Lane::Latency), b"unread");

        let settings = pair.ends[survivor].settings().clone();
        pair.ends[survivor].renew(pair.now, settings).unwrap();
        pair.run(MS * 20, |_| true);
        assert_eq!(pair.met(survivor).len(), 2);
        assert!(pair.carries(0, b"log") && pair.carries(1, b"ack"));
    }
}

#[test]
fn false_alarm_costs_both_ends_a_new_session_only() {
    let mut pair = Pair::new(6);
    pair.run(MS * 20, |_| true);
    pair.run(MS * 200, |_| false);
    assert!(pair.saw_silence(0) && pair.saw_silence(1));
    // The ends time out at different times, and one of them is renewed long before the other.
    let again = pair.ends[1].settings().clone();
    pair.ends[1].renew(pair.now, again).unwrap();
    pair.run(MS * 700, |_| true);
    assert_eq!(pair.met(0).len(), 1, "an end must not answer before it is renewed");
    let again = pair.ends[0].settings().clone();
    pair.ends[0].renew(pair.now, again).unwrap();
    pair.run(MS * 20, |_| true);
    assert_eq!((pair.met(0).len(), pair.met(1).len()), (2, 2));
    assert!(pair.carries(0, b"log") && pair.carries(1, b"ack"));
}

#[test]
fn backup_that_went_live_is_accepted_as_the_primary_of_its_term() {
    let mut pair = Pair::new(7);
    pair.run(MS * 20, |_| true);
    pair.run(MS * 200, |_| false);
    pair.ends[1].renew(pair.now, settings(Role::Primary, 4)).unwrap();
    // The old primary does not know yet that it was replaced. It is refused, with the reason.
    pair.ends[0].renew(pair.now, settings(Role::Primary, 3)).unwrap();
    pair.run(MS * 20, |_| true);
    let refused = |e: &EndpointEvent| matches!(e, EndpointEvent::Refused { .. });
    assert!(pair.events[0].iter().any(refused));
    pair.ends[0].renew(pair.now, settings(Role::Backup, 3)).unwrap();
    pair.run(MS * 20, |_| true);
    assert_eq!(pair.met(0), [Term(3), Term(4)]);
    assert_eq!(pair.ends[1].term(), Some(Term(4)));
    assert!(pair.carries(1, b"log"));
}

#[test]
fn renew_with_invalid_settings_changes_nothing() {
    let mut pair = Pair::new(8);
    pair.run(MS * 20, |_| true);
    let tiny = Settings { frame_bytes_max: 100, ..settings(Role::Primary, 4) };
    assert!(pair.ends[0].renew(pair.now, tiny).is_err());
    assert!(pair.carries(0, b"log"));
}

#[test]
fn frames_not_of_the_peer_are_dropped() {
    let mut pair = Pair::new(9);
    pair.run(MS * 20, |_| true);
    let mut rng = Rng(4);
    for _ in 0..2000 {
        let mut bytes = vec![0; rng.below(1500)];
        rng.fill(&mut bytes);
        if let Some(head) = bytes.first_chunk_mut::<2>() {
            *head = [VERSION, rng.below(9) as u8];
        }
        let verdict = pair.ends[0].handle_frame(pair.now, &mut bytes);
        assert!(!matches!(verdict, EndpointVerdict::Channel(_)));
    }
    assert!(pair.carries(0, b"log") && pair.carries(1, b"ack"));
    assert_eq!(pair.met(0).len(), 1);
}
