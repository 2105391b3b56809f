//! Death notices: which ones count, and for which session.

use logchan::channel::Event;
use logchan::endpoint::{Endpoint, EndpointEvent, EndpointVerdict};
use logchan::handshake::{Received, SecureLink, Security};
use logchan::ids::Lane;
use logchan::seal::{
    DEATH_NOTICE_BYTES, DeathNotice, OpenError, Opener, Protection, SealHeader, SealKind, Sealer,
};
use logchan::time::Duration;

use crate::endpoint::Pair as Endpoints;
use crate::pair::{BACKUP, PRIMARY, Pair, around, assert_same_or_wiped, endpoint};

const KEY: [u8; 32] = [0x42; 32];
const KEY_ID: u32 = 0xdead_beef;
const BOTH: [Protection; 2] = [Protection::Sealed, Protection::Insecure];

fn ends(protection: Protection) -> (Sealer, Opener) {
    (Sealer::new(protection, &KEY, KEY_ID), Opener::new(protection, &KEY, KEY_ID))
}

fn open(opener: &mut Opener, notice: &DeathNotice) -> Result<SealKind, OpenError> {
    let mut frame = *notice.as_bytes();
    opener.open(&mut frame).map(|(kind, payload)| {
        assert!(payload.is_empty());
        kind
    })
}

#[test]
fn notice_is_the_same_whatever_was_sealed_and_opens_once() {
    for protection in BOTH {
        let (mut sealer, mut opener) = ends(protection);
        let first = sealer.death_notice();
        let mut frames: Vec<_> = (0..10).map(|_| around(b"entry")).collect();
        for frame in &mut frames {
            sealer.seal(frame);
        }
        assert_eq!(sealer.death_notice(), first);
        assert_eq!(sealer.frames(), 10);
        assert!(opener.open(&mut frames[9].clone()).is_ok());
        assert_eq!(open(&mut opener, &first), Ok(SealKind::DeathNotice));
        for _ in 0..2 {
            assert_eq!(open(&mut opener, &first), Err(OpenError::Replayed { sequence: u64::MAX }));
        }
        // The window has not moved: frames that the notice overtook still open.
        for frame in &mut frames[..9] {
            assert!(opener.open(frame).is_ok());
        }
    }
}

#[test]
fn notice_with_any_bit_flipped_is_refused() {
    for protection in BOTH {
        let (sealer, mut opener) = ends(protection);
        let notice = sealer.death_notice();
        for bit in 0..8 * DEATH_NOTICE_BYTES {
            let mut flipped = *notice.as_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let before = flipped;
            assert!(opener.open(&mut flipped).is_err(), "bit {bit} of {protection:?}");
            assert_same_or_wiped(&before, &flipped);
        }
        assert_eq!(open(&mut opener, &notice), Ok(SealKind::DeathNotice));
    }
}

#[test]
fn data_frame_cannot_pass_for_a_notice_nor_a_notice_for_data() {
    let (mut sealer, mut opener) = ends(Protection::Sealed);
    let mut frame = around(b"");
    sealer.seal(&mut frame);
    frame[1] = SealKind::DeathNotice as u8;
    assert_eq!(opener.open(&mut frame), Err(OpenError::BadTag { sequence: 0 }));
    let mut notice = *sealer.death_notice().as_bytes();
    notice[1] = SealKind::Data as u8;
    assert_eq!(opener.open(&mut notice), Err(OpenError::BadTag { sequence: u64::MAX }));
}

#[test]
fn notice_does_not_show_itself_in_logs() {
    let (sealer, _) = ends(Protection::Sealed);
    assert_eq!(format!("{:?}", sealer.death_notice()), "DeathNotice(..)");
}

/// Gives a notice to `end`.
fn told(pair: &mut Pair, end: usize, notice: &[u8; DEATH_NOTICE_BYTES]) -> Received<'static> {
    match pair.ends[end].handle_frame(pair.now, &mut notice.clone()) {
        Received::Data(_) => panic!("a notice is no frame of the channel"),
        Received::Handshake(proof) => Received::Handshake(proof),
        Received::PeerGone => Received::PeerGone,
        Received::Dropped(error) => Received::Dropped(error),
    }
}

fn notice_of(pair: &mut Pair, end: usize) -> [u8; DEATH_NOTICE_BYTES] {
    *pair.ends[end].poll_death_notice().expect("a notice is due").as_bytes()
}

#[test]
fn notice_is_due_once_for_each_handshake() {
    let mut pair = Pair::new(31);
    assert_eq!(pair.ends.each_mut().map(SecureLink::poll_death_notice), [None, None]);
    pair.ends[0].start(pair.now);
    pair.settle();
    let first = notice_of(&mut pair, 0);
    assert_eq!(pair.ends[0].poll_death_notice(), None);
    pair.ends[0].start(pair.now);
    pair.settle();
    assert_ne!(notice_of(&mut pair, 0), first, "the keys were replaced");
}

#[test]
fn notice_of_the_peer_counts_once_and_its_own_never() {
    for security in [|| crate::pair::shared_key(), || Security::Insecure] {
        let mut pair = Pair::of(endpoint(security(), PRIMARY, 1), endpoint(security(), BACKUP, 2));
        pair.ends[0].start(pair.now);
        pair.settle();
        let notice = notice_of(&mut pair, 0);
        let own = told(&mut pair, 0, &notice);
        assert!(matches!(own, Received::Dropped(OpenError::BadTag { .. })), "{own:?}");
        assert!(pair.works());
        assert_eq!(told(&mut pair, 1, &notice), Received::PeerGone);
        let again = told(&mut pair, 1, &notice);
        assert!(matches!(again, Received::Dropped(OpenError::Replayed { .. })), "{again:?}");
    }
}

#[test]
fn notice_sealed_with_the_keys_before_the_last_handshakes_counts() {
    let mut pair = Pair::established(32);
    let notice = notice_of(&mut pair, 0);
    for _ in 0..2 {
        pair.ends[0].start(pair.now);
        pair.settle();
    }
    assert_eq!(told(&mut pair, 1, &notice), Received::PeerGone);
}

#[test]
fn notice_sealed_with_new_keys_that_were_not_confirmed_counts() {
    let mut pair = Pair::established(33);
    notice_of(&mut pair, 0);
    let _late = pair.half_handshake(0).remove(0);
    let notice = notice_of(&mut pair, 0);
    assert_eq!(told(&mut pair, 1, &notice), Received::PeerGone);
}

#[test]
fn notice_of_a_peer_without_a_session_makes_none() {
    let mut pair = Pair::new(34);
    let mut confirmation = pair.half_handshake(0).remove(0);
    let notice = notice_of(&mut pair, 0);
    let early = told(&mut pair, 1, &notice);
    assert!(matches!(early, Received::Dropped(OpenError::StaleSession { .. })), "{early:?}");
    assert_eq!(pair.ends[1].peer(), None);
    // A copy of the notice that comes after the confirmation counts.
    pair.ends[1].handle_frame(pair.now, &mut confirmation);
    assert_eq!(told(&mut pair, 1, &notice), Received::PeerGone);
}

#[test]
fn notice_of_a_former_incarnation_is_refused() {
    for is_renewed in [false, true] {
        let mut pair = Pair::established(35);
        let notice = notice_of(&mut pair, 0);
        if is_renewed {
            let now = pair.now;
            pair.ends[0].renew(now, PRIMARY);
        } else {
            // The host starts another process.
            pair.ends[0] = endpoint(crate::pair::shared_key(), PRIMARY, 99);
            pair.ends[0].start(pair.now);
        }
        pair.settle();
        assert!(pair.works());
        let late = told(&mut pair, 1, &notice);
        assert!(matches!(late, Received::Dropped(OpenError::StaleSession { .. })), "{late:?}");
        assert!(pair.works());
    }
}

/// Returns two endpoints with a channel, and the notice of the first.
fn connected(seed: u64) -> (Endpoints, DeathNotice) {
    let mut pair = Endpoints::new(seed);
    pair.run(Duration::from_millis(50), |_| true);
    let notice = pair.ends[0].poll_death_notice().expect("there is a session");
    pair.events = [vec![], vec![]];
    (pair, notice)
}

fn tell(pair: &mut Endpoints, notice: &DeathNotice) -> EndpointVerdict {
    let now = pair.now;
    let verdict = pair.ends[1].handle_frame(now, &mut notice.as_bytes().clone());
    assert!(!verdict.is_sign_of_life());
    verdict
}

fn channel_events(end: &mut Endpoint) -> Vec<Event> {
    let events = std::iter::from_fn(|| end.poll_event());
    events
        .filter_map(|event| match event {
            EndpointEvent::Channel(event) => Some(event),
            EndpointEvent::Met { .. } | EndpointEvent::Refused { .. } => None,
        })
        .collect()
}

#[test]
fn notice_ends_the_channel_at_once_and_its_log_stays_readable() {
    let (mut pair, notice) = connected(36);
    let now = pair.now;
    let channel = pair.ends[0].channel_mut().unwrap();
    channel.append(now, Lane::Latency, b"the last entry").unwrap();
    let mut buffer = [0; 1500];
    let length = pair.ends[0].poll_transmit(now, &mut buffer).unwrap();
    pair.ends[1].handle_frame(now, &mut buffer[..length]);
    assert_eq!(tell(&mut pair, &notice), EndpointVerdict::PeerGone);
    let end = &mut pair.ends[1];
    assert_eq!(channel_events(end), [Event::PeerGone]);
    let channel = end.channel().unwrap();
    assert!(!channel.is_open());
    assert_eq!(channel.received(Lane::Latency), b"the last entry");
    assert_eq!(end.poll_transmit(now, &mut buffer), None, "nothing is acknowledged any more");
    assert_eq!(end.poll_timeout(), None, "nor does it fall silent");
    assert!(matches!(tell(&mut pair, &notice), EndpointVerdict::Dropped(_)));
    assert_eq!(channel_events(&mut pair.ends[1]), []);
}

#[test]
fn notice_after_our_bye_ends_the_wait_for_its_confirmation() {
    let (mut pair, notice) = connected(37);
    let now = pair.now;
    pair.ends[1].channel_mut().unwrap().bye(now);
    assert_eq!(tell(&mut pair, &notice), EndpointVerdict::PeerGone);
    assert_eq!(channel_events(&mut pair.ends[1]), [Event::Left { confirmed: false }]);
}

#[test]
fn notice_after_the_peer_s_bye_only_says_that_it_is_gone() {
    let (mut pair, notice) = connected(38);
    let now = pair.now;
    pair.ends[0].channel_mut().unwrap().bye(now);
    let mut buffer = [0; 1500];
    let length = pair.ends[0].poll_transmit(now, &mut buffer).unwrap();
    pair.ends[1].handle_frame(now, &mut buffer[..length]);
    assert_eq!(tell(&mut pair, &notice), EndpointVerdict::PeerGone);
    assert_eq!(channel_events(&mut pair.ends[1]), [Event::PeerBye, Event::PeerGone]);
}

#[test]
fn notice_of_the_session_before_does_not_end_the_next_one() {
    let (mut pair, notice) = connected(39);
    let now = pair.now;
    for end in 0..2 {
        let settings = pair.ends[end].settings().clone();
        pair.ends[end].renew(now, settings).unwrap();
    }
    pair.run(Duration::from_millis(50), |_| true);
    assert!(pair.ends[1].channel().is_some_and(|channel| channel.is_open()));
    let verdict = tell(&mut pair, &notice);
    let is_stale = matches!(verdict, EndpointVerdict::Dropped(OpenError::StaleSession { .. }));
    assert!(is_stale, "{verdict:?}");
    assert!(pair.ends[1].channel().is_some_and(|channel| channel.is_open()));
}

#[test]
fn notice_is_padded_on_its_way_like_any_short_frame() {
    let (mut pair, notice) = connected(40);
    let mut padded = [0xee; 46];
    padded[..DEATH_NOTICE_BYTES].copy_from_slice(notice.as_bytes());
    assert_eq!(SealHeader::decode(&padded).map(|h| h.kind), Ok(SealKind::DeathNotice));
    assert_eq!(pair.ends[1].handle_frame(pair.now, &mut padded), EndpointVerdict::PeerGone);
}
