//! Leases, the failure detector, orderly leaving, and frames that are not for this channel.

use logchan::channel::{AppendError, Config, Event, FrameVerdict};
use logchan::error::FrameError;
use logchan::frame::{FrameHeader, FrameKind};
use logchan::ids::{FrameNumber, Lane, Role, SessionId, Term, VmId};
use logchan::time::Duration;

use crate::channel_frames::transmit;
use crate::pair::{BACKUP, LATENCY, PRIMARY, Pair, config};

const MS: Duration = Duration::from_millis(1);

#[test]
fn lease_runs_from_the_sending_time_of_the_newest_acked_frame() {
    let mut pair = Pair::new();
    let lease = config().timing.lease;
    let start = pair.now;
    assert!(!pair.ends[PRIMARY].lease_held(start));
    pair.run(LATENCY * 2);
    assert_eq!(pair.events[PRIMARY], [Event::LeaseHeld]);
    assert_eq!(pair.ends[PRIMARY].lease_until(), Some(start + lease));
    assert_eq!(pair.ends[BACKUP].lease_until(), None);

    // After 3.6 seconds of heartbeats, the lease is as fresh as the last heartbeat.
    pair.run(MS * 3_600);
    let until = pair.ends[PRIMARY].lease_until().expect("a lease");
    assert!(until + config().timing.heartbeat + LATENCY * 2 >= pair.now + lease);
}

#[test]
fn lease_from_a_late_acknowledgement_has_already_expired() {
    let mut pair = Pair::settled();
    let channel = &mut pair.ends[PRIMARY];
    let sent_at = pair.now;
    channel.append(sent_at, Lane::Latency, b"output").expect("room");
    let frame = transmit(channel, sent_at).expect("a frame");
    assert_eq!(pair.ends[BACKUP].handle_frame(sent_at + LATENCY, &frame), FrameVerdict::Accepted);
    let ack = transmit(&mut pair.ends[BACKUP], sent_at + LATENCY).expect("an acknowledgement");

    let channel = &mut pair.ends[PRIMARY];
    let late = sent_at + config().timing.lease + MS;
    channel.handle_frame(late, &ack);
    channel.handle_timeout(late);
    assert_eq!(channel.acked().0, 6);
    assert!(!channel.lease_held(late));
    assert_eq!(channel.lease_until(), Some(sent_at + config().timing.lease));
}

#[test]
fn primary_cut_off_loses_its_lease_before_the_backup_times_out() {
    let mut pair = Pair::settled();
    let Config { timing, .. } = config();
    pair.run_with(timing.lease + timing.heartbeat, |_| false);
    assert_eq!(pair.events[PRIMARY], [Event::LeaseLost]);
    assert_eq!(pair.events[BACKUP], []);
    pair.run_with(timing.silence, |_| false);
    for end in [PRIMARY, BACKUP] {
        let last = pair.events[end].last();
        assert!(matches!(last, Some(Event::PeerSilent { .. })), "{end}: {last:?}");
    }
    assert_eq!(pair.ends[PRIMARY].stats().leases_lost, 1);
}

#[test]
fn silence_timeout_runs_from_a_time_after_the_frames_arrived() {
    let mut pair = Pair::settled();
    let silence = config().timing.silence;
    // The clock was last read before the frame was sent.
    let before = pair.now;
    let sent_at = before + MS * 5;
    pair.ends[PRIMARY].append(sent_at, Lane::Latency, b"output").expect("room");
    let frame = transmit(&mut pair.ends[PRIMARY], sent_at).expect("a frame");
    let backup = &mut pair.ends[BACKUP];
    backup.handle_frame(before, &frame);
    assert_eq!(backup.heard_at(), before);
    let seen_by = sent_at + MS;
    backup.heard_by(seen_by);
    assert_eq!((backup.heard_at(), backup.time()), (seen_by, seen_by));

    transmit(backup, seen_by).expect("an acknowledgement");
    backup.handle_timeout(sent_at + silence);
    assert!(backup.is_open(), "the primary's lease may run until shortly before this");
    backup.handle_timeout(seen_by + silence);
    assert!(!backup.is_open());
}

#[test]
fn silent_channel_is_final_and_acknowledges_nothing() {
    let mut pair = Pair::settled();
    pair.append(Lane::Latency, b"before");
    pair.run(MS);
    // The primary's frames are lost until the backup has declared it dead.
    pair.run_with(config().timing.silence + MS, |frame| frame.from == BACKUP);
    assert!(!pair.ends[BACKUP].is_open());
    assert_eq!(pair.read(BACKUP, Lane::Latency), b"before", "what arrived stays readable");

    let now = pair.now;
    let primary = &mut pair.ends[PRIMARY];
    primary
        .append(now, Lane::Latency, b"after")
        .expect("the primary has not noticed the silence yet");
    let frame = transmit(primary, now).expect("a frame");
    let backup = &mut pair.ends[BACKUP];
    assert_eq!(backup.handle_frame(now, &frame), FrameVerdict::Closed);
    assert_eq!(transmit(backup, now), None);
    assert_eq!(backup.poll_timeout(), None);
    assert_eq!(backup.append(now, Lane::Latency, b"x"), Err(AppendError::Over));
}

#[test]
fn declared_silence_ends_channel_like_its_timeout() {
    let mut pair = Pair::settled();
    let heard_at = pair.ends[PRIMARY].heard_at();
    pair.ends[PRIMARY].declare_silent(pair.now);
    pair.run(MS);
    let silent = Event::PeerSilent { heard_at };
    assert_eq!(pair.events[PRIMARY], [silent, Event::LeaseLost]);
    assert!(!pair.ends[PRIMARY].is_open());
    assert!(!pair.ends[PRIMARY].lease_held(pair.now));
    pair.ends[PRIMARY].declare_silent(pair.now);
    pair.run(config().timing.silence * 3);
    assert_eq!(pair.events[PRIMARY], [silent, Event::LeaseLost], "once");
    let last = pair.events[BACKUP].last();
    assert!(matches!(last, Some(Event::PeerSilent { .. })), "nothing is sent any more: {last:?}");
}

#[test]
fn frames_found_after_a_long_pause_are_signs_of_life() {
    let mut pair = Pair::settled();
    let frame = transmit_heartbeat(&mut pair);
    let woken = pair.now + config().timing.silence * 3;
    let backup = &mut pair.ends[BACKUP];
    assert_eq!(backup.handle_frame(woken, &frame), FrameVerdict::Accepted);
    backup.handle_timeout(woken);
    assert!(backup.is_open());
}

#[test]
fn duplicate_frame_is_no_sign_of_life() {
    let mut pair = Pair::settled();
    let frame = transmit_heartbeat(&mut pair);
    let backup = &mut pair.ends[BACKUP];
    backup.handle_frame(pair.now, &frame);
    let heard_at = backup.heard_at();
    assert_eq!(backup.handle_frame(pair.now + MS, &frame), FrameVerdict::Duplicate);
    assert_eq!(backup.heard_at(), heard_at);
}

#[test]
fn bye_is_retransmitted_until_confirmed_and_no_end_is_declared_dead() {
    for leaver in [PRIMARY, BACKUP] {
        let mut pair = Pair::settled();
        pair.ends[leaver].bye(pair.now);
        let mut losses = 3;
        pair.run_with(config().timing.silence * 3, |frame| {
            losses -= u32::from(losses > 0);
            losses == 0 || frame.from != leaver
        });
        assert!(pair.events[leaver].contains(&Event::Left { confirmed: true }), "{leaver}");
        assert!(pair.events[1 - leaver].contains(&Event::PeerBye), "{leaver}");
        assert!(!pair.ends[PRIMARY].lease_held(pair.now));
        for events in &pair.events {
            assert!(!events.iter().any(|event| matches!(event, Event::PeerSilent { .. })));
        }
        assert_eq!(
            pair.ends[PRIMARY].stats().leases_lost,
            0,
            "the lease was given up and did not expire"
        );
    }
}

#[test]
fn bye_of_both_ends_at_once_is_confirmed_to_both() {
    let mut pair = Pair::settled();
    for end in [PRIMARY, BACKUP] {
        pair.ends[end].bye(pair.now);
    }
    pair.run(config().timing.silence * 2);
    for events in &pair.events {
        assert!(events.contains(&Event::Left { confirmed: true }), "{events:?}");
        assert!(events.contains(&Event::PeerBye), "{events:?}");
    }
}

#[test]
fn lease_begun_and_ended_between_two_polls_is_not_reported() {
    let mut pair = Pair::settled();
    pair.run_with(config().timing.lease + MS, |frame| frame.from == PRIMARY);
    assert_eq!(pair.events[PRIMARY], [Event::LeaseLost]);
    // The `Bye` acknowledges a frame that is young enough for a lease.
    let heartbeat = transmit_heartbeat(&mut pair);
    let now = pair.now;
    pair.ends[BACKUP].handle_frame(now, &heartbeat);
    pair.ends[BACKUP].bye(now);
    let bye = transmit(&mut pair.ends[BACKUP], now).expect("a Bye");
    pair.ends[PRIMARY].handle_frame(now, &bye);
    assert_eq!(pair.ends[PRIMARY].poll_event(), Some(Event::PeerBye));
    assert_eq!(pair.ends[PRIMARY].poll_event(), None);
}

#[test]
fn bye_without_confirmation_ends_with_the_silence_timeout() {
    let mut pair = Pair::settled();
    pair.ends[PRIMARY].bye(pair.now);
    pair.run_with(config().timing.silence * 2, |_| false);
    assert!(pair.events[PRIMARY].contains(&Event::Left { confirmed: false }));
}

#[test]
fn frames_not_of_this_session_change_nothing() {
    type Change = fn(&mut FrameHeader);
    let mut pair = Pair::settled();
    let frame = transmit_heartbeat(&mut pair);
    let (model, _) = FrameHeader::decode(&frame).expect("a frame");
    let cases: [(FrameVerdict, Change); 6] = [
        (FrameVerdict::WrongVm, |header| header.vm = VmId(9)),
        (FrameVerdict::StaleTerm, |header| header.term = Term(2)),
        (FrameVerdict::WrongSession, |header| header.session = SessionId(9)),
        (FrameVerdict::Malformed(FrameError::AckOfUnsent), |h| h.ack.newest = FrameNumber(999)),
        (FrameVerdict::Malformed(FrameError::AckOfUnsent), |h| h.lanes[1].received = 1),
        (FrameVerdict::Malformed(FrameError::NoNumber), |h| h.number = FrameNumber::NONE),
    ];
    pair.ends[BACKUP].take_stats();
    for (verdict, change) in cases {
        let mut header = model;
        change(&mut header);
        let mut bytes = frame.clone();
        header.encode(&mut bytes);
        let mut before = pair.ends[BACKUP].clone();
        assert_eq!(pair.ends[BACKUP].handle_frame(pair.now, &bytes), verdict);
        assert_eq!(pair.ends[BACKUP].stats().received(verdict), 1, "{verdict:?}");
        let stats = pair.ends[BACKUP].take_stats();
        assert_eq!(stats.received_bytes, bytes.len() as u64);
        if let FrameVerdict::Malformed(error) = verdict {
            assert_eq!(stats.malformed[error.index()], 1, "{error}");
        }
        // An empty frame, which is malformed, so that time advances for the copy, too.
        before.handle_frame(pair.now, &[]);
        before.take_stats();
        assert!(pair.ends[BACKUP] == before, "{verdict:?}");
    }
}

#[test]
fn newer_term_is_reported_once_for_each_term() {
    let mut pair = Pair::settled();
    let mut frame = transmit_heartbeat(&mut pair);
    let (mut header, _) = FrameHeader::decode(&frame).expect("a frame");
    let backup = &mut pair.ends[BACKUP];
    for (term, reported) in [(4, true), (4, false), (7, true), (5, false)] {
        header.term = Term(term);
        header.encode(&mut frame);
        assert_eq!(backup.handle_frame(pair.now, &frame), FrameVerdict::NewerTerm);
        let event = reported.then_some(Event::PeerTermNewer { term: Term(term) });
        assert_eq!(backup.poll_event(), event);
    }
}

#[test]
fn peer_of_the_same_role_is_reported_once() {
    let mut pair = Pair::settled();
    let frame = transmit_heartbeat(&mut pair);
    let primary = &mut pair.ends[PRIMARY];
    assert_eq!(primary.role(), Role::Primary);
    for event in [Some(Event::PeerSameRole), None] {
        assert_eq!(primary.handle_frame(pair.now, &frame), FrameVerdict::SameRole);
        assert_eq!(primary.poll_event(), event);
    }
}

/// Makes the primary send a heartbeat. Returns it without putting it on the wire.
fn transmit_heartbeat(pair: &mut Pair) -> Vec<u8> {
    pair.now = pair.now + config().timing.heartbeat;
    let primary = &mut pair.ends[PRIMARY];
    primary.handle_timeout(pair.now);
    let frame = transmit(primary, pair.now).expect("a heartbeat");
    let (header, _) = FrameHeader::decode(&frame).expect("a frame");
    assert_eq!(header.kind, FrameKind::Heartbeat);
    frame
}
