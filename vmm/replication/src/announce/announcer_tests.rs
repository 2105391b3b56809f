use super::*;
use crate::MacAddr;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;

const MS: u64 = 1_000_000;
const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);
/// An arbitrary start time other than zero.
const START: u64 = 1 << 40;

/// The rounds after the first second, in ms from the start.
const LATE: [u64; 6] = [10_000, 20_000, 30_000, 40_000, 50_000, 60_000];

fn addresses_with_ipv4(count: u8) -> GuestAddresses {
    let mut addresses = GuestAddresses::new(CARD);
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    for number in 1..=count {
        let address = core::net::Ipv4Addr::new(10, 9, 9, number);
        let station = super::super::Station { mac: CARD, vlan: 0 };
        let length = Announcement::ArpReply { station, address }.build(&mut buffer);
        addresses.learn(&buffer[..length]);
    }
    addresses
}

fn announcer() -> Announcer {
    let mut announcer = Announcer::new();
    announcer.start(START);
    announcer
}

/// Polls at `now_ns` until nothing is due, and returns the number of frames.
fn poll(announcer: &mut Announcer, now_ns: u64) -> usize {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let mut frames = 0;
    let addresses = GuestAddresses::new(CARD);
    while let Some(length) = announcer.poll_transmit(now_ns, &addresses, &mut buffer) {
        assert!(length >= 60 && buffer[6..12] == CARD.octets());
        frames += 1;
        assert!(frames < 1000, "frames without end");
    }
    frames
}

/// Returns when rounds begin, in ms from the start. The caller polls at the times `polls` (ms) first,
/// and on time after that.
fn rounds(polls: &[u64]) -> Vec<u64> {
    let mut announcer = announcer();
    let mut times = Vec::new();
    let mut polls = polls.iter().map(|at| START + at * MS);
    let mut count = 0;
    while let Some(due) = announcer.poll_timeout() {
        count += 1;
        assert!(count < 1000, "rounds without end");
        let now = polls.next().unwrap_or(due);
        if poll(&mut announcer, now) > 0 {
            times.push((now - START) / MS);
        }
    }
    let stats = announcer.stats();
    assert_eq!(stats.rounds as usize, times.len());
    assert_eq!(stats.rounds + stats.rounds_skipped, ANNOUNCE_ROUNDS_NS.len() as u64);
    assert!(announcer.is_idle());
    times
}

/// Requires that the rounds begin at `early`, and then on time for the rest of the minute.
fn expect_rounds(polls: &[u64], early: &[u64]) {
    assert_eq!(rounds(polls), [early, &LATE].concat(), "{polls:?}");
}

#[test]
fn rounds_come_on_time() {
    expect_rounds(&[], &[0, 50, 200, 450, 800]);
    // Additional polls change nothing.
    let polls = [0, 0, 49, 50, 51, 199, 200, 449, 450, 799];
    expect_rounds(&polls, &[0, 50, 200, 450, 800]);
}

#[test]
fn late_polls_skip_rounds_but_never_the_first_or_last() {
    expect_rounds(&[50], &[50, 200, 450, 800]);
    expect_rounds(&[300], &[300, 450, 800]);
    expect_rounds(&[0, 300], &[0, 300, 450, 800]);
    expect_rounds(&[0, 50, 449], &[0, 50, 449, 499, 800]);
    expect_rounds(&[430], &[430, 480, 800]);
    expect_rounds(&[799], &[799, 849]);
    expect_rounds(&[5000], &[5000]);
    expect_rounds(&[0, 5000], &[0, 5000]);
    expect_rounds(&[0, 50, 200, 450, 9000], &[0, 50, 200, 450, 9000]);
    expect_rounds(&[0, 50, 200, 800], &[0, 50, 200, 800]);
    assert_eq!(rounds(&[100_000]), [100_000, 100_050]);
    assert_eq!(rounds(&[0, 100_000]), [0, 100_000]);
}

/// For random poll times: the first and last round are sent, rounds are at least 50 ms apart, and no
/// round is early.
#[test]
fn random_polls_keep_the_rules_of_rounds() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..10_000 {
        let (mut at, mut polls) = (0, Vec::new());
        for _ in 0..rng.usize(..20) {
            let gap_end = [10, 100, 1000, 10_000][rng.usize(..4)];
            at += rng.u64(..gap_end);
            polls.push(at);
        }
        let times = rounds(&polls);
        assert!((2..=ANNOUNCE_ROUNDS_NS.len()).contains(&times.len()), "{polls:?}: {times:?}");
        assert!(times[0] == polls.first().copied().unwrap_or(0), "{polls:?}: {times:?}");
        assert!(times.last() >= Some(&60_000), "{polls:?}: {times:?}");
        assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + 50), "{polls:?}: {times:?}");
        for (round, time) in times.iter().enumerate() {
            assert!(time * MS >= ANNOUNCE_ROUNDS_NS[round], "{polls:?}: {times:?}");
        }
    }
}

#[test]
fn round_sends_each_announcement_once_and_resumes_after_a_pause() {
    let addresses = addresses_with_ipv4(3);
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let mut announcer = Announcer::new();
    assert_eq!((announcer.poll_timeout(), poll(&mut announcer, START)), (None, 0));
    announcer.start(START);
    let all: Vec<_> = addresses.announcements().collect();
    assert_eq!((all.len(), all[0].is_rarp()), (7, true));
    for (number, round) in ANNOUNCE_ROUNDS_NS.into_iter().enumerate() {
        let expected = if number < ANNOUNCE_IP_ROUNDS { &all[..] } else { &all[..1] };
        let due = START + round;
        assert_eq!(announcer.poll_timeout(), Some(due));
        for (index, announcement) in expected.iter().enumerate() {
            let mut golden = [0; ANNOUNCEMENT_BYTES_MAX];
            let golden_length = announcement.build(&mut golden);
            // The caller may poll for the frames of a round one at a time, each later than the last.
            let now = due + index as u64 * MS;
            let length = announcer.poll_transmit(now, &addresses, &mut buffer).unwrap();
            assert_eq!(buffer[..length], golden[..golden_length]);
            if index + 1 < expected.len() {
                assert!(announcer.poll_timeout().unwrap() <= now);
            }
        }
        assert_eq!(announcer.poll_transmit(due + 7 * MS, &addresses, &mut buffer), None);
    }
    let stats = announcer.stats();
    assert_eq!((stats.rounds, stats.rounds_skipped, stats.frames), (11, 0, 5 * 7 + 6));
    assert!(announcer.is_idle() && announcer.poll_timeout().is_none());
}

#[test]
fn stop_ends_the_rounds_and_start_begins_them_again() {
    let mut announcer = announcer();
    assert_eq!(poll(&mut announcer, START), 1);
    assert!(!announcer.is_idle());
    announcer.stop();
    assert!(announcer.is_idle());
    assert_eq!((announcer.poll_timeout(), poll(&mut announcer, START + 900 * MS)), (None, 0));
    let again = START + 1000 * MS;
    announcer.start(again);
    assert_eq!(poll(&mut announcer, again), 1);
    announcer.start(again + 10 * MS);
    assert_eq!(poll(&mut announcer, again + 10 * MS), 1);
    assert_eq!(announcer.poll_timeout(), Some(again + 60 * MS));
    assert_eq!(announcer.stats().starts, 3);
}

#[test]
fn round_announces_addresses_known_when_it_begins() {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let mut announcer = announcer();
    assert_eq!(poll(&mut announcer, START), 1);
    let addresses = addresses_with_ipv4(1);
    let second = START + 50 * MS;
    let frames = std::iter::from_fn(|| announcer.poll_transmit(second, &addresses, &mut buffer));
    assert_eq!(frames.count(), addresses.announcements().count());
}

/// The guest may have left an IP address to another host since.
#[test]
fn only_first_rounds_after_going_live_announce_ip_addresses() {
    let addresses = addresses_with_ipv4(1);
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let mut frames_at = |announcer: &mut Announcer, now: u64| {
        std::iter::from_fn(|| announcer.poll_transmit(now, &addresses, &mut buffer)).count()
    };
    let mut announcer = announcer();
    assert_eq!(frames_at(&mut announcer, START), 3);
    assert_eq!(frames_at(&mut announcer, START + 800 * MS), 3);
    assert_eq!(frames_at(&mut announcer, START + 10_000 * MS), 1);
    announcer.request_round(START + 12_000 * MS);
    assert_eq!(frames_at(&mut announcer, START + 12_000 * MS), 1);
    announcer.start_again(START + 13_000 * MS);
    assert_eq!(frames_at(&mut announcer, START + 13_000 * MS), 1);
    announcer.start(START + 14_000 * MS);
    assert_eq!(frames_at(&mut announcer, START + 14_000 * MS), 3);
}

#[test]
fn requested_round_comes_at_once_or_a_second_after_the_round_before() {
    let mut announcer = Announcer::new();
    announcer.request_round(START);
    assert_eq!((announcer.poll_timeout(), poll(&mut announcer, START)), (Some(START), 1));
    assert!(announcer.is_idle());
    announcer.request_round(START + 10 * MS);
    announcer.request_round(START + 20 * MS);
    let due = START + 1000 * MS;
    assert_eq!(announcer.poll_timeout(), Some(due));
    assert_eq!(poll(&mut announcer, due - 1), 0);
    assert_eq!((poll(&mut announcer, due), announcer.is_idle()), (1, true));
    assert_eq!((announcer.stats().rounds, announcer.stats().extra_rounds), (2, 2));
}

#[test]
fn requested_round_and_schedule_keep_their_distance_and_satisfy_each_other() {
    let mut announcer = announcer();
    let mut begun = Vec::new();
    let mut now = START;
    // The address is seen all the time.
    while now < START + 62_000 * MS {
        announcer.request_round(now);
        if poll(&mut announcer, now) > 0 {
            begun.push((now - START) / MS);
        }
        now += MS;
    }
    assert_eq!(begun[..6], [0, 50, 200, 450, 800, 1800]);
    assert!(begun.windows(2).all(|pair| pair[1] >= pair[0] + 50), "{begun:?}");
    assert!(begun[5..].windows(2).all(|pair| pair[1] - pair[0] <= 1000), "{begun:?}");
    let stats = announcer.stats();
    assert_eq!(stats.rounds - stats.extra_rounds, ANNOUNCE_ROUNDS_NS.len() as u64, "none is lost");
    assert!((45..=60).contains(&stats.extra_rounds), "{stats:?}");
}

/// On a LAN that sends every frame back.
#[test]
fn number_of_requested_rounds_is_bounded_until_the_next_start() {
    let mut announcer = Announcer::new();
    let mut rounds = 0;
    for second in 0..10_000 {
        let now = START + second * 1000 * MS;
        announcer.request_round(now);
        rounds += poll(&mut announcer, now);
    }
    assert_eq!(rounds, ANNOUNCE_EXTRA_ROUNDS_MAX as usize);
    let now = START + 20_000 * 1000 * MS;
    announcer.start(now);
    assert_eq!(poll(&mut announcer, now), 1);
    announcer.request_round(now);
    assert_eq!(poll(&mut announcer, now + 50 * MS), 1);
}
