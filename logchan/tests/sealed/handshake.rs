//! Two endpoints on a wire that loses, duplicates, delays and forges frames.

use logchan::handshake::{
    ANSWER_EACH, CHALLENGE_EACH, Identity, LinkEvent, Mismatch, PresharedKey, RETRY_FIRST,
    RETRY_MAX, Received, SecureLink, Security,
};
use logchan::host_profile::HostProfile;
use logchan::ids::{Role, Term, VmId, WitnessId};
use logchan::seal::{OpenError, SealKind};
use logchan::time::{Duration, Time};

use crate::pair::{BACKUP, PRIMARY, Pair, around, endpoint, events, shared_key, transmitted};
use crate::rng::Rng;

#[test]
fn one_side_starts_and_both_agree() {
    for starter in 0..2 {
        let mut pair = Pair::new(3);
        assert!(pair.ends[0].seal(&mut around(b"early")).is_err());
        pair.ends[starter].start(pair.now);
        pair.settle();
        let [a, b] = &mut pair.ends;
        let (seen_by_a, seen_by_b) = (a.peer().unwrap(), b.peer().unwrap());
        assert_eq!((seen_by_a.identity, seen_by_b.identity), (BACKUP, PRIMARY));
        assert_eq!(seen_by_a.session, seen_by_b.session);
        assert_ne!(seen_by_a.incarnation, seen_by_b.incarnation);
        assert_eq!(events(a), [LinkEvent::Established(seen_by_a)]);
        assert_eq!(events(b), [LinkEvent::Established(seen_by_b)]);
        assert!(pair.works());
        assert_eq!(pair.ends[0].poll_timeout(), None);
        assert_eq!(pair.ends[1].poll_timeout(), None);
    }
}

#[test]
fn both_sides_start_at_once_and_agree() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed);
        let now = pair.now;
        pair.ends.iter_mut().for_each(|end| end.start(now));
        pair.settle();
        assert!(pair.works(), "seed {seed}");
        assert_eq!(pair.ends[0].peer().unwrap().session, pair.ends[1].peer().unwrap().session);
        let stats = pair.ends.each_ref().map(SecureLink::stats);
        assert_eq!(stats[0].sessions + stats[1].sessions, 2, "seed {seed}: {stats:?}");
    }
}

/// Loses each of the first frames in turn, with one and with two starters.
#[test]
fn handshake_survives_the_loss_of_any_message() {
    for starters in 1..4 {
        for lost in 0..8 {
            let mut pair = Pair::new(lost);
            let (start, mut count) = (pair.now, 0);
            (0..2).filter(|end| starters >> end & 1 != 0).for_each(|e| pair.ends[e].start(start));
            for _ in 0..10 {
                pair.settle_with(|_, _| {
                    count += 1;
                    count - 1 != lost
                });
                // The first frame of the initiator takes the place of a lost confirmation.
                let _ = pair.works();
                if pair.works() {
                    break;
                }
                pair.sleep(RETRY_MAX);
            }
            assert!(pair.works(), "starters {starters}, lost {lost}");
            assert!(pair.now.since(start) <= Duration::from_millis(60));
        }
    }
}

/// Random loss, duplication and delay, with starts and restarts. Then the wire heals, and both ends must
/// agree.
#[test]
fn endpoints_agree_after_a_faulty_wire_heals() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let mut pair = Pair::new(seed + 1000);
        let now = pair.now;
        pair.ends.iter_mut().for_each(|end| end.start(now));
        let mut wire: Vec<(usize, Vec<u8>)> = Vec::new();
        for step in 0..200 {
            pair.sleep(Duration::from_millis(1 + rng.next() % 30));
            for from in 0..2 {
                wire.extend(transmitted(&mut pair.ends[from]).into_iter().map(|f| (from, f)));
            }
            for _ in 0..rng.below(4) {
                if wire.is_empty() {
                    break;
                }
                let at = rng.below(wire.len());
                let (from, mut frame) = wire[at].clone();
                if rng.below(4) != 0 {
                    wire.remove(at);
                }
                if rng.below(3) != 0 {
                    pair.ends[1 - from].handle_frame(pair.now, &mut frame);
                }
            }
            match rng.below(40) {
                0 => pair.ends[rng.below(2)].start(pair.now),
                1 if step < 150 => {
                    pair.ends[0] = endpoint(shared_key(), PRIMARY, rng.next());
                    pair.ends[0].start(pair.now);
                }
                _ => {}
            }
        }
        let healed = pair.now;
        let mut tries = 0;
        while !(pair.works() && pair.works()) {
            // The channel above would detect the silence and start over.
            let now = pair.now;
            pair.ends.iter_mut().for_each(|end| end.start(now));
            pair.settle();
            pair.sleep(RETRY_MAX);
            tries += 1;
            assert!(tries < 20, "seed {seed}: {:?}", pair.ends);
        }
        assert!(pair.now.since(healed) <= Duration::from_millis(4000), "seed {seed}");
        let peers = pair.ends.each_ref().map(|end| end.peer().unwrap());
        assert_eq!(peers[0].session, peers[1].session, "seed {seed}");
    }
}

#[test]
fn restarted_peer_gets_a_new_session_and_the_old_one_is_invalid() {
    for restarted in 0..2 {
        let mut pair = Pair::established(5);
        let before = pair.ends[1 - restarted].peer().unwrap();
        let mut leftover = around(b"from an earlier session");
        pair.ends[restarted].seal(&mut leftover).unwrap();

        let identity = [PRIMARY, BACKUP][restarted];
        pair.ends[restarted] = endpoint(shared_key(), identity, 77);
        assert!(!pair.passes(1 - restarted, b"not opened"));
        pair.ends[restarted].start(pair.now);
        pair.settle();
        let survivor = &mut pair.ends[1 - restarted];
        let after = survivor.peer().unwrap();
        assert_ne!(before.incarnation, after.incarnation);
        assert_ne!(before.session, after.session);
        assert_eq!(events(survivor), [LinkEvent::Established(after)]);
        let late = survivor.handle_frame(pair.now, &mut leftover);
        assert!(matches!(late, Received::Dropped(OpenError::StaleSession { .. })), "{late:?}");
        assert!(pair.works());
    }
}

#[test]
fn rekeying_handshake_loses_no_frame() {
    let mut pair = Pair::established(6);
    let before = pair.ends[1].peer().unwrap();
    let mut under_way = around(b"sealed before");
    pair.ends[0].seal(&mut under_way).unwrap();
    pair.ends[0].start(pair.now);
    assert!(pair.works(), "the live session stays in use");
    pair.settle();
    assert_eq!(pair.ends[1].peer(), Some(before), "the same session for the channel");
    let now = pair.now;
    let mut copy = under_way.clone();
    let late = pair.ends[1].handle_frame(now, &mut copy);
    assert!(matches!(late, Received::Data(_)), "{late:?}");
    let again = pair.ends[1].handle_frame(now, &mut under_way);
    assert!(matches!(again, Received::Dropped(OpenError::Replayed { .. })), "{again:?}");
    assert!(pair.works());
}

#[test]
fn keys_are_replaced_after_enough_frames_and_no_frame_is_lost() {
    let first = endpoint(shared_key(), PRIMARY, 1).with_rekey_after(100);
    let mut pair = Pair::of(first, endpoint(shared_key(), BACKUP, 2));
    pair.ends[0].start(pair.now);
    pair.settle();
    let peer = pair.ends[1].peer();
    for _ in 0..1000 {
        assert!(pair.works());
        pair.settle();
        pair.sleep(Duration::from_millis(10));
    }
    assert_eq!(pair.ends[1].peer(), peer, "the same session for the channel");
    assert_eq!(pair.ends[1].stats().sessions, 11, "the first session and ten more");
    assert_eq!(pair.ends[1].stats().open.replayed, 0);
}

#[test]
fn mismatch_is_reported_at_both_ends() {
    let host_profile = HostProfile { sysenter_bits: 32, ..BACKUP.host_profile };
    let cases = [
        (Identity { protocol_version: 99, ..BACKUP }, "protocol version"),
        (Identity { vm_id: VmId(8), ..BACKUP }, "serves VM"),
        (PRIMARY, "and so are we"),
        (Identity { cpu_digest: 1, ..BACKUP }, "CPU model"),
        (Identity { host_profile, ..BACKUP }, "bits of SYSENTER_ESP: "),
        (Identity { guest_digest: 1, ..BACKUP }, "guest image"),
        (Identity { disks_digest: 1, ..BACKUP }, "disks"),
        (Identity { witness: WitnessId(1), ..BACKUP }, "peer's witness"),
        (Identity { timing: 1, ..BACKUP }, "times are not ours"),
    ];
    for (identity, part) in cases {
        let first = endpoint(shared_key(), PRIMARY, 1);
        let mut pair = Pair::of(first, endpoint(shared_key(), identity, 2));
        pair.ends[0].start(pair.now);
        pair.settle();
        for (end, expect_proven) in [(0, true), (1, false)] {
            let events = events(&mut pair.ends[end]);
            let [LinkEvent::Refused { mismatch, proven }] = events[..] else {
                panic!("{events:?}")
            };
            assert!(mismatch.to_string().contains(part), "{mismatch}");
            assert_eq!(proven, expect_proven);
            assert_eq!(pair.ends[end].peer(), None);
        }
        // The operator corrects the second endpoint; the first one still tries.
        pair.ends[1] = endpoint(shared_key(), BACKUP, 3);
        pair.sleep(RETRY_MAX);
        pair.settle();
        assert!(pair.works());
    }
}

#[test]
fn renewed_endpoint_has_a_new_incarnation_and_identity() {
    let mut pair = Pair::established(8);
    let before = pair.ends[1].peer().unwrap();
    let mut leftover = around(b"from an earlier session");
    pair.ends[1].seal(&mut leftover).unwrap();
    let live = Identity { role: Role::Primary, term: Term(2), ..BACKUP };
    pair.ends[1].renew(pair.now, live);
    assert!(!pair.passes(0, b"not opened"));
    pair.settle();
    let refused =
        LinkEvent::Refused { mismatch: Mismatch::Role { role: Role::Primary }, proven: true };
    assert_eq!(events(&mut pair.ends[1]), [refused]);
    // The replaced primary comes back as the backup.
    pair.ends[0].renew(pair.now, Identity { role: Role::Backup, ..PRIMARY });
    pair.settle();
    assert!(pair.works());
    let after = pair.ends[0].peer().unwrap();
    assert_ne!(after.session, before.session);
    assert_eq!(after.identity, live);
    let late = pair.ends[0].handle_frame(pair.now, &mut leftover);
    assert!(matches!(late, Received::Dropped(OpenError::StaleSession { .. })), "{late:?}");
}

/// A bound endpoint answers later handshakes of its peer, and none of another incarnation, until it is
/// renewed.
#[test]
fn bound_endpoint_does_not_answer_other_incarnations() {
    let mut pair = Pair::established(9);
    pair.ends[0].bind();
    let bound_to = pair.ends[0].peer();
    pair.ends[1].start(pair.now);
    pair.settle();
    assert_eq!((pair.ends[0].stats().sessions, pair.ends[0].stats().strangers), (2, 0));
    assert!(pair.works());

    pair.ends[1] = endpoint(shared_key(), BACKUP, 77);
    for _ in 0..20 {
        pair.ends[1].start(pair.now);
        // A bound end whose keys are due for replacement starts a handshake, and another peer answers.
        pair.ends[0].start(pair.now);
        pair.settle();
        pair.sleep(RETRY_MAX);
    }
    assert_eq!(pair.ends[0].peer(), bound_to);
    assert!(pair.ends[0].stats().strangers > 10 && !pair.works());
    pair.ends[0].renew(pair.now, PRIMARY);
    pair.settle();
    assert!(pair.works());
}

#[test]
fn peer_with_a_wrong_key_is_only_counted() {
    let other = Security::Sealed(PresharedKey::from_bytes(&[0x5b; 32]).unwrap());
    let first = endpoint(shared_key(), PRIMARY, 1);
    let mut pair = Pair::of(first, endpoint(other, BACKUP, 2));
    pair.ends[0].start(pair.now);
    for _ in 0..10 {
        pair.settle();
        pair.sleep(RETRY_MAX);
    }
    let [asking, asked] = pair.ends.each_ref().map(SecureLink::stats);
    assert_eq!((asking.requests, asked.forged_handshakes), (10, 10));
    assert_eq!((pair.ends[0].peer(), pair.ends[1].peer()), (None, None));
    assert!(events(&mut pair.ends[0]).is_empty() && events(&mut pair.ends[1]).is_empty());
}

/// The steps of a rotation: two ends meet if they have a key in common, whoever starts and whoever has precedence.
#[test]
fn ends_with_one_key_in_common_meet() {
    let key = |byte: u8| PresharedKey::from_bytes(&[byte; 32]).unwrap();
    let one = |byte: u8| Security::Sealed(key(byte));
    let two = |first: u8, second: u8| Security::Rotating { key: key(first), next: key(second) };
    for (seed, starters) in (0..40).zip([1, 2, 3].into_iter().cycle()) {
        let meet = |mine: Security, other: Security| {
            let mut pair =
                Pair::of(endpoint(mine, PRIMARY, 2 * seed), endpoint(other, BACKUP, 2 * seed + 1));
            let now = pair.now;
            (0..2).filter(|end| starters >> end & 1 != 0).for_each(|end| pair.ends[end].start(now));
            for _ in 0..5 {
                pair.settle();
                pair.sleep(RETRY_FIRST);
            }
            pair.ends.iter().all(|end| end.peer().is_some()) && pair.works()
        };
        assert!(meet(one(1), two(1, 2)), "seed {seed}, {starters}");
        assert!(meet(two(1, 2), one(2)), "seed {seed}, {starters}");
        assert!(meet(two(1, 2), two(2, 1)), "seed {seed}, {starters}");
        assert!(meet(two(1, 2), two(1, 2)), "seed {seed}, {starters}");
        assert!(!meet(one(1), one(2)) && !meet(two(1, 2), one(3)), "seed {seed}, {starters}");
    }
}

#[test]
fn insecure_endpoints_accept_only_each_other() {
    let insecure = |identity, seed| endpoint(Security::Insecure, identity, seed);
    let mut pair = Pair::of(insecure(PRIMARY, 1), insecure(BACKUP, 2));
    pair.ends[0].start(pair.now);
    pair.settle();
    assert!(pair.works());

    let mut pair = Pair::of(insecure(PRIMARY, 1), endpoint(shared_key(), BACKUP, 2));
    let now = pair.now;
    pair.ends.iter_mut().for_each(|end| end.start(now));
    pair.settle();
    assert!(!pair.works());
    for end in &pair.ends {
        assert!(end.stats().open.other_protection > 0 && end.peer().is_none());
    }
}

/// What an attacker on the LAN can send: everything that was ever on the wire, damaged or not.
#[test]
fn recordings_and_forgeries_do_not_affect_a_live_session() {
    let mut recorded = Vec::new();
    for seed in 20..30 {
        let mut pair = Pair::new(seed);
        let now = pair.now;
        pair.ends.iter_mut().for_each(|end| end.start(now));
        pair.settle_with(|_, frame| {
            recorded.push(frame.clone());
            true
        });
    }
    let mut pair = Pair::new(31);
    pair.ends[0].start(pair.now);
    pair.settle_with(|_, frame| {
        recorded.push(frame.clone());
        true
    });
    let peers = pair.ends.each_ref().map(SecureLink::peer);
    let _ = pair.ends.each_mut().map(events);

    let mut rng = Rng(1);
    for _ in 0..2000 {
        let mut frame = recorded[rng.below(recorded.len())].clone();
        if rng.below(2) == 0 {
            let at = rng.below(frame.len());
            frame[at] ^= 1 << rng.below(8);
        }
        let victim = rng.below(2);
        let received = pair.ends[victim].handle_frame(pair.now, &mut frame);
        assert!(!matches!(received, Received::Data(_)));
        for answer in transmitted(&mut pair.ends[victim]) {
            assert_eq!(answer[1], SealKind::Challenge as u8, "work for a recording");
        }
        assert_eq!(pair.ends.each_ref().map(SecureLink::peer), peers);
    }
    assert!(pair.works(), "the session was torn down");
    assert!(events(&mut pair.ends[0]).is_empty() && events(&mut pair.ends[1]).is_empty());
    let [a, b] = pair.ends.each_ref().map(SecureLink::stats);
    assert!(a.forged_handshakes > 0 && a.stale_initiations > 0 && a.stale_responses > 0, "{a:?}");
    assert_eq!((a.over_budget, b.over_budget), (0, 0));
    assert!(a.challenges + b.challenges <= 3, "{a:?} {b:?}");
    assert_eq!((a.sessions, b.sessions), (1, 1));

    // The peer, restarted in the middle of this, still gets a session.
    pair.ends[0] = endpoint(shared_key(), PRIMARY, 99);
    pair.ends[0].start(pair.now);
    for _ in 0..20 {
        pair.settle();
        pair.sleep(RETRY_MAX);
    }
    assert!(pair.works());
}

/// A forged response must not spoil the attempt for the genuine one.
#[test]
fn forged_response_does_not_spoil_the_attempt() {
    let mut pair = Pair::new(40);
    pair.ends[0].start(pair.now);
    let now = pair.now;
    let mut rng = Rng(2);
    for end in [0, 1, 0] {
        pair.deliver(end);
    }
    let [a, b] = &mut pair.ends;
    let response = transmitted(b).remove(0);
    for _ in 0..200 {
        let mut forged = response.clone();
        rng.fill(&mut forged[20..]);
        a.handle_frame(now, &mut forged);
    }
    for bit in 8 * 16..8 * response.len() {
        let mut forged = response.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        a.handle_frame(now, &mut forged);
    }
    // None of them has caused an operation on the curve: the tag is checked first.
    assert_eq!(a.stats().forged_handshakes, 200 + 8 * (response.len() as u64 - 16));
    assert!(a.peer().is_none());
    a.handle_frame(now, &mut response.clone());
    pair.settle();
    assert!(pair.works());
}

#[test]
fn own_request_sent_back_is_counted() {
    let mut pair = Pair::new(41);
    let now = pair.now;
    let end = &mut pair.ends[0];
    end.start(now);
    let mut request = transmitted(end).remove(0);
    end.handle_frame(now, &mut request);
    assert_eq!(end.stats().reflected, 1);
    assert!(transmitted(end).is_empty() && end.peer().is_none());
}

#[test]
fn requests_are_repeated_with_backoff() {
    let mut pair = Pair::new(42);
    pair.ends[0].start(pair.now);
    let start = pair.now;
    let mut times = Vec::new();
    for _ in 0..10 {
        pair.settle_with(|_, _| false);
        times.push(pair.now.since(start).as_nanos() / 1_000_000);
        pair.sleep(Duration::from_millis(60_000));
    }
    assert_eq!(times, [0, 20, 60, 140, 300, 620, 1260, 2260, 3260, 4260]);
    pair.ends[0].stop();
    assert_eq!(pair.ends[0].poll_timeout(), None);
}

/// Requests of processes that are gone, recorded by an attacker.
fn recorded_requests(count: u64) -> Vec<Vec<u8>> {
    let request = |seed| {
        let mut link = endpoint(shared_key(), PRIMARY, 1_000_000 + seed);
        link.start(Time::from_nanos(1));
        transmitted(&mut link).remove(0)
    };
    (0..count).map(request).collect()
}

/// An attacker replays recorded requests at 100,000 a second to both ends, in an order of its own, and everything that
/// they send now. The ends meet nevertheless, soon, and at a cost that does not depend on the rate.
#[test]
fn ends_meet_while_recordings_are_replayed_at_any_rate() {
    let recorded = recorded_requests(2000);
    let mut longest = Duration::from_nanos(0);
    for seed in 0..20 {
        let mut pair = Pair::new(7000 + seed);
        let mut rng = Rng(seed);
        // The attack is on when the ends begin.
        let start = pair.now + CHALLENGE_EACH * 10;
        let mut at = 0;
        let mut heard: Vec<Vec<u8>> = Vec::new();
        while pair.ends.iter().any(|end| end.peer().is_none()) {
            if pair.now >= start {
                let now = pair.now;
                pair.ends.iter_mut().for_each(|end| end.start(now));
            }
            // Frames cross in a tenth of a millisecond, among ten recordings.
            pair.now = pair.now + Duration::from_micros(100);
            let now = pair.now;
            let place = rng.below(10);
            for step in 0..10 {
                at = (at + 1) % recorded.len();
                pair.ends.iter_mut().for_each(|end| {
                    end.handle_frame(now, &mut recorded[at].clone());
                });
                if step == place {
                    for from in 0..2 {
                        for mut frame in transmitted(&mut pair.ends[from]) {
                            heard.push(frame.clone());
                            pair.ends[1 - from].handle_frame(now, &mut frame);
                        }
                    }
                }
            }
            for _ in 0..heard.len().min(4) {
                let mut frame = heard[rng.below(heard.len())].clone();
                pair.ends[rng.below(2)].handle_frame(now, &mut frame);
            }
            pair.ends.iter_mut().for_each(|end| end.handle_timeout(now));
            assert!(now.since(start) < RETRY_MAX * 20, "seed {seed}: {:?}", pair.ends);
        }
        let took = pair.now.since(start);
        longest = longest.max(took);
        let intervals = took.as_nanos() / CHALLENGE_EACH.as_nanos() + 11;
        let asked = took.as_nanos() / RETRY_FIRST.as_nanos() + 2;
        for end in &pair.ends {
            let stats = end.stats();
            assert!(stats.challenges <= intervals && stats.requests <= asked, "{stats:?}");
            assert!(stats.initiations <= stats.requests && stats.over_budget == 0, "{stats:?}");
        }
    }
    println!("longest time until both ends had met: {} us", longest.as_nanos() / 1000);
}

/// A challenge of an earlier time, sent again, starts no key exchange and does not spoil the attempt.
#[test]
fn recorded_challenges_start_no_key_exchange() {
    let mut pair = Pair::new(43);
    let mut recorded = Vec::new();
    for _ in 0..4 {
        pair.ends[0].start(pair.now);
        pair.settle_with(|from, frame| {
            let is_challenge = frame[1] == SealKind::Challenge as u8;
            recorded.extend((from == 1 && is_challenge).then(|| frame.clone()));
            true
        });
        pair.now = pair.now + CHALLENGE_EACH;
    }
    assert_eq!(recorded.len(), 4);
    pair.ends[0].start(pair.now);
    let request = transmitted(&mut pair.ends[0]).remove(0);
    let before = pair.ends[0].stats();
    for frame in &recorded {
        pair.ends[0].handle_frame(pair.now, &mut frame.clone());
        assert!(transmitted(&mut pair.ends[0]).is_empty());
    }
    assert_eq!(pair.ends[0].stats().stale_responses, before.stale_responses + 4);
    // The genuine one works, and once only.
    pair.ends[1].handle_frame(pair.now, &mut request.clone());
    let challenge = transmitted(&mut pair.ends[1]).remove(0);
    for sent in [1, 0, 0] {
        pair.ends[0].handle_frame(pair.now, &mut challenge.clone());
        assert_eq!(transmitted(&mut pair.ends[0]).len(), sent);
    }
}

/// The same initiation is worked on once, whatever comes in between.
#[test]
fn initiation_sent_again_is_refused() {
    let mut pair = Pair::new(44);
    pair.ends[0].start(pair.now);
    pair.deliver(0);
    pair.deliver(1);
    let initiation = transmitted(&mut pair.ends[0]).remove(0);
    for responses in [1, 0, 0] {
        pair.ends[1].handle_frame(pair.now, &mut initiation.clone());
        assert_eq!(transmitted(&mut pair.ends[1]).len(), responses);
        pair.now = pair.now + ANSWER_EACH;
    }
    pair.ends[1].renew(pair.now, BACKUP);
    pair.ends[1].stop();
    pair.ends[1].handle_frame(pair.now, &mut initiation.clone());
    assert!(transmitted(&mut pair.ends[1]).is_empty());
    assert_eq!(pair.ends[1].stats().stale_initiations, 3);
}

/// A bound end does not even challenge a peer with another incarnation.
#[test]
fn bound_endpoint_answers_no_request_of_other_incarnations() {
    let mut pair = Pair::established(45);
    pair.ends[1].bind();
    pair.now = pair.now + RETRY_MAX;
    for mut request in recorded_requests(100) {
        pair.ends[1].handle_frame(pair.now, &mut request);
        assert!(transmitted(&mut pair.ends[1]).is_empty());
    }
    assert_eq!(pair.ends[1].stats().strangers, 100);
}
