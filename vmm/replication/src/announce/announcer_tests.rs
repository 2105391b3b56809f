use super::*;
use crate::MacAddr;
use crate::limits::ANNOUNCEMENT_BYTES_MAX;

const MS: u64 = 1_000_000;
const CARD: MacAddr = MacAddr(0x52, 0x54, 0, 0x12, 0x34, 0x56);
/// An arbitrary start time other than zero.
const START: u64 = 1 << 40;

fn announcer() -> Announcer {
    let mut announcer = Announcer::new();
    announcer.start(START, &GuestAddresses::new(CARD));
    announcer
}

/// Polls at `now_ns` until nothing is due, and returns the number of frames.
fn poll(announcer: &mut Announcer, now_ns: u64) -> usize {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let mut frames = 0;
    while let Some(length) = announcer.poll_transmit(now_ns, &mut buffer) {
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

#[test]
fn rounds_come_on_time() {
    assert_eq!(rounds(&[]), [0, 50, 200, 450, 800]);
    // Additional polls change nothing.
    assert_eq!(rounds(&[0, 0, 49, 50, 51, 199, 200, 449, 450, 799]), [0, 50, 200, 450, 800]);
}

#[test]
fn late_polls_skip_rounds_but_never_the_first_or_last() {
    assert_eq!(rounds(&[50]), [50, 200, 450, 800]);
    assert_eq!(rounds(&[300]), [300, 450, 800]);
    assert_eq!(rounds(&[0, 300]), [0, 300, 450, 800]);
    assert_eq!(rounds(&[0, 50, 449]), [0, 50, 449, 499, 800]);
    assert_eq!(rounds(&[430]), [430, 480, 800]);
    assert_eq!(rounds(&[799]), [799, 849]);
    assert_eq!(rounds(&[5000]), [5000, 5050]);
    assert_eq!(rounds(&[0, 5000]), [0, 5000]);
    assert_eq!(rounds(&[0, 50, 200, 450, 9000]), [0, 50, 200, 450, 9000]);
    assert_eq!(rounds(&[0, 50, 200, 800]), [0, 50, 200, 800]);
}

/// For random poll times: the first and last round are sent, rounds are at least 50 ms apart, and no
/// round is early.
#[test]
fn random_polls_keep_the_rules_of_rounds() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..10_000 {
        let (mut at, mut polls) = (0, Vec::new());
        for _ in 0..rng.usize(..20) {
            let gap_end = [10, 100, 1000][rng.usize(..3)];
            at += rng.u64(..gap_end);
            polls.push(at);
        }
        let times = rounds(&polls);
        assert!((2..=5).contains(&times.len()), "{polls:?}: {times:?}");
        assert!(times[0] == polls.first().copied().unwrap_or(0), "{polls:?}: {times:?}");
        assert!(times.last() >= Some(&800), "{polls:?}: {times:?}");
        assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + 50), "{polls:?}: {times:?}");
        for (round, time) in times.iter().enumerate() {
            assert!(time * MS >= ANNOUNCE_ROUNDS_NS[round], "{polls:?}: {times:?}");
        }
    }
}

#[test]
fn round_sends_each_announcement_once_and_resumes_after_a_pause() {
    let mut addresses = GuestAddresses::new(CARD);
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    for number in 1..=3 {
        let address = core::net::Ipv4Addr::new(10, 9, 9, number);
        let station = super::super::Station { mac: CARD, vlan: 0 };
        let length = Announcement::ArpReply { station, address }.build(&mut buffer);
        addresses.learn(&buffer[..length]);
    }
    let mut announcer = Announcer::new();
    assert_eq!((announcer.poll_timeout(), poll(&mut announcer, START)), (None, 0));
    announcer.start(START, &addresses);
    // `start` copied the addresses, so later changes have no effect.
    let expected: Vec<_> = addresses.announcements().collect();
    assert_eq!(expected.len(), 7);
    for round in ANNOUNCE_ROUNDS_NS {
        let due = START + round;
        assert_eq!(announcer.poll_timeout(), Some(due));
        for (index, announcement) in expected.iter().enumerate() {
            let mut golden = [0; ANNOUNCEMENT_BYTES_MAX];
            let golden_length = announcement.build(&mut golden);
            // The caller may poll for the frames of a round one at a time, each later than the last.
            let now = due + index as u64 * MS;
            let length = announcer.poll_transmit(now, &mut buffer).unwrap();
            assert_eq!(buffer[..length], golden[..golden_length]);
            if index + 1 < expected.len() {
                assert!(announcer.poll_timeout().unwrap() <= now);
            }
        }
        assert_eq!(announcer.poll_transmit(due + 7 * MS, &mut buffer), None);
    }
    let stats = announcer.stats();
    assert_eq!((stats.rounds, stats.rounds_skipped, stats.frames), (5, 0, 35));
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
    announcer.start(again, &GuestAddresses::new(CARD));
    assert_eq!(poll(&mut announcer, again), 1);
    announcer.start(again + 10 * MS, &GuestAddresses::new(CARD));
    assert_eq!(poll(&mut announcer, again + 10 * MS), 1);
    assert_eq!(announcer.poll_timeout(), Some(again + 60 * MS));
    assert_eq!(announcer.stats().starts, 3);
}
