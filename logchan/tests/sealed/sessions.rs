//! Which session an endpoint seals with when several are known: frames held back, handshakes that
//! cross, recordings that are played back.

use logchan::handshake::{ANSWER_BURST, ANSWER_EACH, Received, SecureLink, Security};
use logchan::seal::OpenError;

use crate::pair::{BACKUP, PRIMARY, Pair, around, endpoint, transmitted};

/// A frame of `end`, which stays on the way for now.
fn held_back(pair: &mut Pair, end: usize, text: &[u8]) -> Vec<u8> {
    let mut frame = around(text);
    pair.ends[end].seal(&mut frame).unwrap();
    frame
}

/// A handshake that `end` begins; what it sends once it has the keys does not arrive.
fn half_handshake(pair: &mut Pair, end: usize) {
    pair.ends[end].start(pair.now);
    deliver(pair, end);
    deliver(pair, 1 - end);
    transmitted(&mut pair.ends[end]);
}

/// What `end` has to send arrives.
fn deliver(pair: &mut Pair, end: usize) {
    for mut frame in transmitted(&mut pair.ends[end]) {
        pair.ends[1 - end].handle_frame(pair.now, &mut frame);
    }
}

#[test]
fn insecure_frame_that_comes_back_is_not_the_peer_s() {
    let insecure = |identity, seed| endpoint(Security::Insecure, identity, seed);
    let mut pair = Pair::of(insecure(PRIMARY, 1), insecure(BACKUP, 2));
    pair.ends[0].start(pair.now);
    pair.settle();
    for _ in 0..10 {
        let mut own = held_back(&mut pair, 0, b"comes back");
        let back = pair.ends[0].handle_frame(pair.now, &mut own);
        assert!(matches!(back, Received::Dropped(OpenError::BadTag { .. })), "{back:?}");
        assert!(pair.works(), "the peer's frame of the same number is taken");
    }
}

#[test]
fn frame_held_back_from_a_peer_that_is_no_more_is_not_opened() {
    for bound in [false, true] {
        let mut pair = Pair::new(21);
        half_handshake(&mut pair, 0);
        let mut late = held_back(&mut pair, 0, b"from the grave");
        // Its host starts another process, which meets the same peer.
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
fn frame_held_back_does_not_bring_back_keys_that_its_sender_has_forgotten() {
    let mut pair = Pair::established(22);
    half_handshake(&mut pair, 0);
    let mut late = held_back(&mut pair, 0, b"late");
    for _ in 0..5 {
        pair.ends[0].start(pair.now);
        pair.settle();
        assert!(pair.works());
    }
    // It is authentic, of this peer and there for the first time.
    let now = pair.now;
    assert!(matches!(pair.ends[1].handle_frame(now, &mut late), Received::Data(_)));
    assert!(pair.works(), "and yet what is sealed with it could not be opened");
}

/// The name of the keys that `end` seals with.
fn key(pair: &mut Pair, end: usize) -> Vec<u8> {
    held_back(pair, end, b"")[4..8].to_vec()
}

/// A pair whose first end has the greater incarnation.
fn first_is_greater() -> Pair {
    let incarnation = |pair: &Pair, end: usize| pair.ends[1 - end].peer().unwrap().incarnation;
    let is_so = |pair: &Pair| incarnation(pair, 0) > incarnation(pair, 1);
    (0..).map(Pair::established).find(is_so).unwrap()
}

#[test]
fn of_two_handshakes_that_cross_both_ends_keep_the_same_one() {
    let mut pair = first_is_greater();
    let now = pair.now;
    // The first answers, then begins by itself, and its initiation overtakes its answer.
    pair.ends[1].start(now);
    deliver(&mut pair, 1);
    let mut answer = transmitted(&mut pair.ends[0]);
    pair.ends[0].start(now);
    deliver(&mut pair, 0);
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
fn handshakes_that_leave_each_end_with_another_one_lose_no_frame_with_the_next() {
    let mut pair = first_is_greater();
    let now = pair.now;
    // The second's initiation is late: the first answers when its own handshake is done.
    pair.ends[1].start(now);
    let mut late = transmitted(&mut pair.ends[1]);
    half_handshake(&mut pair, 0);
    pair.ends[0].handle_frame(now, &mut late[0]);
    deliver(&mut pair, 0);
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

/// Frames that were held back are opened, and displace no keys that are in use.
#[test]
fn frames_held_back_from_many_handshakes_displace_no_keys_in_use() {
    let mut pair = Pair::established(24);
    let mut late = Vec::new();
    for _ in 0..4 {
        half_handshake(&mut pair, 0);
        late.push(held_back(&mut pair, 0, b"late"));
    }
    // The last of them is in use, and the other end has not heard of it.
    let mut under_way = held_back(&mut pair, 1, b"under way");
    let mut newest = late.pop().unwrap();
    let now = pair.now;
    assert!(matches!(pair.ends[1].handle_frame(now, &mut newest), Received::Data(_)));
    for frame in &mut late {
        assert!(matches!(pair.ends[1].handle_frame(now, frame), Received::Data(_)));
    }
    assert!(pair.works());
    assert_eq!(key(&mut pair, 0), key(&mut pair, 1));
    // Four handshakes, none of which its sender had heard of.
    let lost = pair.ends[0].handle_frame(now, &mut under_way);
    assert!(matches!(lost, Received::Dropped(OpenError::StaleSession { .. })), "{lost:?}");
}

#[test]
fn recordings_played_back_do_not_displace_a_handshake_under_way() {
    let mut pair = Pair::established(23);
    let mut recorded = Vec::new();
    for _ in 0..2 * ANSWER_BURST {
        pair.ends[0].start(pair.now);
        pair.settle_with(|from, frame| {
            if from == 0 && frame.len() > 100 {
                recorded.push(frame.clone());
            }
            true
        });
        pair.now = pair.now + ANSWER_EACH;
    }
    assert_eq!(recorded.len(), 2 * ANSWER_BURST as usize);
    pair.now = pair.now + ANSWER_EACH * u64::from(ANSWER_BURST);
    half_handshake(&mut pair, 0);
    for _ in 0..4 {
        for recording in &recorded {
            pair.ends[1].handle_frame(pair.now, &mut recording.clone());
            transmitted(&mut pair.ends[1]);
        }
        pair.now = pair.now + ANSWER_EACH * 2;
    }
    assert!(pair.ends[1].stats().over_budget > 0, "the budget was spent");
    assert!(pair.works());
    assert_eq!(pair.ends.each_ref().map(SecureLink::stats).map(|s| s.open.stale_session), [0, 0]);
}
