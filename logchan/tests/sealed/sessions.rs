//! Which session an endpoint seals with if it knows several: frames held back, crossed handshakes,
//! replayed recordings.

use logchan::handshake::{ANSWER_BURST, CHALLENGE_EACH, RETRY_MAX, Received, SecureLink, Security};
use logchan::seal::{OpenError, SealKind};

use crate::pair::{BACKUP, PRIMARY, Pair, around, endpoint, transmitted};

/// Returns a sealed frame of `end` that is not delivered yet.
fn held_back(pair: &mut Pair, end: usize, text: &[u8]) -> Vec<u8> {
    let mut frame = around(text);
    pair.ends[end].seal(&mut frame).unwrap();
    frame
}

/// Runs a handshake started by `end`, except that the frames which it sends with the new keys are lost.
fn half_handshake(pair: &mut Pair, end: usize) {
    pair.half_handshake(end);
}

#[test]
fn insecure_frame_sent_back_to_its_sender_is_refused() {
    let insecure = |identity, seed| endpoint(Security::Insecure, identity, seed);
    let mut pair = Pair::of(insecure(PRIMARY, 1), insecure(BACKUP, 2));
    pair.ends[0].start(pair.now);
    pair.settle();
    for _ in 0..10 {
        let mut own = held_back(&mut pair, 0, b"sent back");
        let back = pair.ends[0].handle_frame(pair.now, &mut own);
        assert!(matches!(back, Received::Dropped(OpenError::BadTag { .. })), "{back:?}");
        assert!(pair.works(), "the peer's frame with the same number is accepted");
    }
}

#[test]
fn frame_held_back_from_a_former_incarnation_is_not_opened() {
    for bound in [false, true] {
        let mut pair = Pair::new(21);
        half_handshake(&mut pair, 0);
        let mut late = held_back(&mut pair, 0, b"from a former incarnation");
        // The same host starts another process, which gets a session with the same peer.
        pair.ends[0] = endpoint(crate::pair::shared_key(), PRIMARY, 99);
        pair.ends[0].start(pair.now);
        pair.settle();
        assert!(pair.works());
        if bound {
            pair.ends[1].bind();
        }
        let peer = pair.ends[1].peer();
        let late = pair.ends[1].handle_frame(pair.now, &mut late);
        assert!(matches!(late, Received::Dropped(OpenError::StaleSession { .. })), "{late:?}");
        assert_eq!(pair.ends[1].peer(), peer);
        assert!(pair.works());
    }
}

#[test]
fn frame_held_back_does_not_reactivate_keys_that_its_sender_has_dropped() {
    let mut pair = Pair::established(22);
    half_handshake(&mut pair, 0);
    let mut late = held_back(&mut pair, 0, b"late");
    for _ in 0..5 {
        pair.ends[0].start(pair.now);
        pair.settle();
        assert!(pair.works());
    }
    // The frame is authentic, from this peer, and received for the first time.
    let now = pair.now;
    assert!(matches!(pair.ends[1].handle_frame(now, &mut late), Received::Data(_)));
    assert!(pair.works(), "but nothing may be sealed with its keys");
}

/// Returns the ID of the keys that `end` seals with.
fn key(pair: &mut Pair, end: usize) -> Vec<u8> {
    held_back(pair, end, b"")[4..8].to_vec()
}

/// Returns a pair whose first end has the greater incarnation.
fn first_is_greater() -> Pair {
    let incarnation = |pair: &Pair, end: usize| pair.ends[1 - end].peer().unwrap().incarnation;
    let is_so = |pair: &Pair| incarnation(pair, 0) > incarnation(pair, 1);
    (0..).map(Pair::established).find(is_so).unwrap()
}

#[test]
fn crossed_handshakes_leave_both_ends_with_the_same_session() {
    let mut pair = first_is_greater();
    pair.now = pair.now + CHALLENGE_EACH;
    let now = pair.now;
    // The first end answers, then starts a handshake itself, and its initiation overtakes its response.
    pair.ends[1].start(now);
    pair.deliver(1);
    pair.deliver(0);
    pair.deliver(1);
    let mut answer = transmitted(&mut pair.ends[0]);
    pair.ends[0].start(now);
    pair.deliver(0);
    pair.deliver(1);
    pair.deliver(0);
    pair.ends[1].handle_frame(now, &mut answer[0]);
    let [_confirmation, mut answer] = <[_; 2]>::try_from(transmitted(&mut pair.ends[1])).unwrap();
    pair.ends[0].handle_frame(now, &mut answer);
    transmitted(&mut pair.ends[0]);
    assert_eq!(pair.ends.each_ref().map(|end| end.stats().sessions), [2, 2]);
    assert_ne!(key(&mut pair, 0), key(&mut pair, 1));
    assert!(pair.works());
    assert_eq!(key(&mut pair, 0), key(&mut pair, 1));
}

#[test]
fn handshakes_that_leave_the_ends_with_different_sessions_lose_no_frame_at_the_next() {
    let mut pair = first_is_greater();
    // The second end's initiation is late: the first end answers it after its own handshake.
    pair.ends[1].start(pair.now);
    pair.deliver(1);
    pair.deliver(0);
    let mut late = transmitted(&mut pair.ends[1]);
    half_handshake(&mut pair, 0);
    let now = pair.now;
    pair.ends[0].handle_frame(now, &mut late[0]);
    pair.deliver(0);
    transmitted(&mut pair.ends[1]);
    assert_eq!(pair.ends.each_ref().map(|end| end.stats().sessions), [2, 2]);
    let mut frames = [0, 1].map(|end| held_back(&mut pair, end, b"first in its keys"));
    for (end, frame) in frames.iter_mut().enumerate() {
        assert!(matches!(pair.ends[1 - end].handle_frame(now, frame), Received::Data(_)));
    }
    assert_ne!(key(&mut pair, 0), key(&mut pair, 1));
    assert!(pair.works());

    let mut frames = [0, 1].map(|end| held_back(&mut pair, end, b"under way"));
    pair.ends[0].start(now);
    pair.settle();
    for (end, frame) in frames.iter_mut().enumerate() {
        let late = pair.ends[1 - end].handle_frame(now, frame);
        assert!(matches!(late, Received::Data(_)), "from {end}: {late:?}");
    }
    assert!(pair.works());
}

/// Frames that were held back are opened and displace no keys in use.
#[test]
fn frames_held_back_from_many_handshakes_displace_no_keys_in_use() {
    let mut pair = Pair::established(24);
    let mut late = Vec::new();
    for _ in 0..4 {
        half_handshake(&mut pair, 0);
        late.push(held_back(&mut pair, 0, b"late"));
    }
    // The keys of the last handshake are in use, and the other end does not know it yet.
    let mut under_way = held_back(&mut pair, 1, b"under way");
    let mut newest = late.pop().unwrap();
    let now = pair.now;
    assert!(matches!(pair.ends[1].handle_frame(now, &mut newest), Received::Data(_)));
    for frame in &mut late {
        assert!(matches!(pair.ends[1].handle_frame(now, frame), Received::Data(_)));
    }
    assert!(pair.works());
    assert_eq!(key(&mut pair, 0), key(&mut pair, 1));
    // Its keys are four handshakes old, and its sender knew of none of them.
    let lost = pair.ends[0].handle_frame(now, &mut under_way);
    assert!(matches!(lost, Received::Dropped(OpenError::StaleSession { .. })), "{lost:?}");
}

#[test]
fn replayed_recordings_do_not_displace_a_handshake_in_progress() {
    let mut pair = Pair::established(23);
    let mut recorded = Vec::new();
    for _ in 0..2 * ANSWER_BURST {
        pair.ends[0].start(pair.now);
        pair.settle_with(|_, frame| {
            let is_of_session = frame[1] == SealKind::Confirm as u8;
            recorded.extend((!is_of_session).then(|| frame.clone()));
            true
        });
        pair.now = pair.now + RETRY_MAX;
    }
    half_handshake(&mut pair, 0);
    let before = pair.ends[1].stats();
    for _ in 0..4 {
        for recording in &recorded {
            pair.ends[1].handle_frame(pair.now, &mut recording.clone());
            for frame in transmitted(&mut pair.ends[1]) {
                assert_eq!(frame[1], SealKind::Challenge as u8, "work for a recording");
            }
        }
        pair.now = pair.now + CHALLENGE_EACH;
        pair.ends[1].handle_timeout(pair.now);
    }
    let after = pair.ends[1].stats();
    assert_eq!(after.over_budget, 0);
    assert!(after.stale_initiations - before.stale_initiations >= 8 * u64::from(ANSWER_BURST));
    assert!(pair.works());
    assert_eq!(pair.ends.each_ref().map(SecureLink::stats).map(|s| s.open.stale_session), [0, 0]);
}
