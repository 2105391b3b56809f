//! Log through a channel: delivery, retransmission, and order between the lanes.

use logchan::channel::{AppendError, Channel, Config, ConfigError, Event, FrameVerdict, Timing};
use logchan::frame::{FrameHeader, FrameKind};
use logchan::ids::{FrameNumber, Lane, LogSeq};
use logchan::limits::{ENTRY_BYTES_MAX, IN_FLIGHT_FRAMES_MAX};
use logchan::time::Duration;

use crate::channel_frames::transmit;
use crate::pair::{BACKUP, LATENCY, PRIMARY, Pair, config, pattern};

const MS: Duration = Duration::from_millis(1);

#[test]
fn log_of_any_size_is_delivered_and_acked_in_a_round_trip() {
    for length in [1, 13, 1366, 1367, ENTRY_BYTES_MAX] {
        let mut pair = Pair::settled();
        let bytes = pattern(length);
        pair.append(Lane::Latency, &bytes);
        pair.run(LATENCY * 2);
        assert_eq!(pair.read(BACKUP, Lane::Latency), bytes, "{length} bytes");
        let acked = Event::Acked { up_to: LogSeq(length as u64) };
        assert_eq!(pair.events[PRIMARY].last(), Some(&acked), "{length} bytes");
        assert!(pair.sent.iter().all(|frame| frame.bytes.len() <= config().frame_bytes_max));
    }
}

#[test]
fn log_appended_before_the_first_frame_waits_for_the_window_and_is_delivered() {
    let mut pair = Pair::new();
    pair.append(Lane::Latency, &pattern(5000));
    pair.run(MS);
    assert_eq!(pair.read(BACKUP, Lane::Latency), pattern(5000));
    assert_eq!(pair.ends[PRIMARY].acked(), LogSeq(5000));
}

#[test]
fn entries_appended_together_share_a_frame() {
    let mut pair = Pair::settled();
    for _ in 0..10 {
        pair.append(Lane::Latency, &[7; 20]);
    }
    pair.run(MS);
    assert_eq!(pair.kinds(PRIMARY), [FrameKind::Latency]);
    assert_eq!(pair.kinds(BACKUP), [FrameKind::Ack]);
}

#[test]
fn lost_last_frame_is_retransmitted_after_the_minimum_timeout() {
    let mut pair = Pair::settled();
    for number in 0..20 {
        pair.append(Lane::Latency, &[number; 30]);
        pair.run(MS * 3);
    }
    let mut losses = 1;
    pair.append(Lane::Latency, b"last");
    let timeout = config().timing.retransmit_min;
    pair.run_with(timeout + LATENCY, |_| std::mem::take(&mut losses) == 0);
    assert_eq!(pair.ends[BACKUP].received(Lane::Latency).len(), 604);
}

#[test]
fn lost_frame_is_retransmitted_when_three_later_ones_are_acked() {
    let mut pair = Pair::settled();
    let bytes = pattern(20_000);
    pair.append(Lane::Latency, &bytes);
    let mut number = 0;
    // Loss, detection by acknowledgement, retransmission: a round trip and a half, without a timeout.
    pair.run_with(LATENCY * 3, |_| {
        number += 1;
        number != 2
    });
    assert_eq!(pair.read(BACKUP, Lane::Latency), bytes);
    let stats = pair.ends[PRIMARY].stats();
    assert_eq!((stats.lost_overtaken, stats.lost_timeout, stats.resent), (1, 0, 1));
}

#[test]
fn frames_in_reverse_order_are_reassembled() {
    let mut pair = Pair::settled();
    let bytes = pattern(30_000);
    pair.append(Lane::Latency, &bytes);
    let mut frames = Vec::new();
    while let Some(frame) = transmit(&mut pair.ends[PRIMARY], pair.now) {
        frames.push(frame);
    }
    for frame in frames.iter().rev() {
        assert_eq!(pair.ends[BACKUP].handle_frame(pair.now, frame), FrameVerdict::Accepted);
        assert_eq!(pair.ends[BACKUP].handle_frame(pair.now, frame), FrameVerdict::Duplicate);
    }
    assert_eq!(pair.read(BACKUP, Lane::Latency), bytes);
}

#[test]
fn latency_goes_before_bulk_that_was_appended_first() {
    let mut pair = Pair::settled();
    pair.append(Lane::Bulk, &pattern(100_000));
    let first = transmit(&mut pair.ends[PRIMARY], pair.now).expect("bulk");
    pair.append(Lane::Latency, b"output");
    let second = transmit(&mut pair.ends[PRIMARY], pair.now).expect("latency");
    let kind = |bytes| FrameHeader::decode(bytes).expect("a frame").0.kind;
    assert_eq!((kind(&first), kind(&second)), (FrameKind::Bulk, FrameKind::Latency));
}

#[test]
fn bulk_waits_while_the_link_takes_log_only() {
    let mut pair = Pair::settled();
    pair.append(Lane::Bulk, &pattern(5000));
    let channel = &mut pair.ends[PRIMARY];
    let mut buffer = [0; 1500];
    let mut log_only = |channel: &mut Channel, now| {
        let length = channel.poll_transmit_log(now, &mut buffer)?;
        Some(FrameHeader::decode(&buffer[..length]).expect("a frame").0.kind)
    };
    assert_eq!(log_only(channel, pair.now), None);
    let now = pair.now + config().timing.heartbeat;
    channel.handle_timeout(now);
    assert_eq!(log_only(channel, now), Some(FrameKind::Heartbeat));
    channel.append(now, Lane::Latency, b"output").expect("room");
    assert_eq!(log_only(channel, now), Some(FrameKind::Latency));
    assert_eq!(log_only(channel, now), None);

    assert!(channel.wants_to_send(Lane::Bulk));
    let frame = transmit(channel, now).expect("bulk");
    assert_eq!(FrameHeader::decode(&frame).expect("a frame").0.kind, FrameKind::Bulk);
}

#[test]
fn received_log_owes_an_acknowledgement_until_a_frame_is_sent() {
    let mut pair = Pair::settled();
    for (lane, owed) in [(Lane::Bulk, false), (Lane::Latency, true)] {
        pair.append(lane, b"bytes");
        let frame = transmit(&mut pair.ends[PRIMARY], pair.now).expect("a frame");
        let backup = &mut pair.ends[BACKUP];
        assert!(!backup.owes_log_ack());
        backup.handle_frame(pair.now, &frame);
        assert_eq!(backup.owes_log_ack(), owed, "{lane:?}");
        transmit(backup, pair.now).expect("an acknowledgement");
        assert!(!backup.owes_log_ack());
    }
}

#[test]
fn small_entries_share_frames_once_the_in_flight_limit_is_reached() {
    let mut pair = Pair::settled();
    let now = pair.now;
    let mut frames = Vec::new();
    for number in 0..1000_u32 {
        pair.append(Lane::Latency, &number.to_le_bytes());
        frames.extend(transmit(&mut pair.ends[PRIMARY], now));
    }
    assert_eq!(frames.len(), IN_FLIGHT_FRAMES_MAX[Lane::Latency.index()]);
    for frame in frames {
        pair.ends[BACKUP].handle_frame(now, &frame);
    }
    pair.sent.clear();
    pair.run(LATENCY * 4);
    let numbers: Vec<u8> = (0..1000_u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(pair.read(BACKUP, Lane::Latency), numbers);
    let rest = pair.kinds(PRIMARY);
    assert_eq!(rest.iter().filter(|kind| **kind == FrameKind::Latency).count(), 3, "{rest:?}");
}

#[test]
fn log_that_requires_bulk_is_not_acked_before_it() {
    let mut pair = Pair::settled();
    pair.append(Lane::Latency, b"free");
    pair.append(Lane::Bulk, &pattern(4096));
    pair.ends[PRIMARY].require_bulk();
    pair.append(Lane::Latency, b"needs");
    // All bulk frames are lost.
    pair.run_with(MS * 5, |frame| frame.header().kind != FrameKind::Bulk);
    assert_eq!(pair.ends[PRIMARY].lane_acked(Lane::Latency), LogSeq(9));
    assert_eq!(pair.ends[PRIMARY].acked(), LogSeq(4));
    pair.run(MS * 50);
    assert_eq!(pair.ends[PRIMARY].acked(), LogSeq(9));
}

#[test]
fn append_to_a_full_window_is_refused_until_the_reader_consumes() {
    let mut pair = Pair::settled();
    let window = config().window_bytes[0];
    // The reader consumes nothing: one window is received, and the next one waits.
    pair.append(Lane::Latency, &pattern(window));
    pair.run(MS * 30);
    pair.append(Lane::Latency, &pattern(window));
    let refused = pair.ends[PRIMARY].append(pair.now, Lane::Latency, b"more");
    assert_eq!(refused, Err(AppendError::Full { room: 0 }));
    pair.run(MS * 30);
    assert_eq!(pair.ends[BACKUP].received(Lane::Latency).len(), window);
    assert!(pair.ends[PRIMARY].is_open());
    let room = Event::Room { lane: Lane::Latency };
    assert!(!pair.events[PRIMARY].contains(&room));
    assert_eq!(pair.read(BACKUP, Lane::Latency), pattern(window));
    pair.run(MS * 30);
    assert_eq!(pair.read(BACKUP, Lane::Latency), pattern(window));
    assert!(pair.events[PRIMARY].contains(&room));
    assert_eq!(pair.ends[PRIMARY].room(Lane::Latency), window);
}

#[test]
fn payload_beyond_the_window_is_not_kept_and_not_acknowledged() {
    let mut pair = Pair::settled();
    pair.append(Lane::Latency, b"model");
    let mut frame = transmit(&mut pair.ends[PRIMARY], pair.now).expect("a frame");
    let (mut header, _) = FrameHeader::decode(&frame).expect("a frame");
    let window = config().window_bytes[0] as u64;
    for (offset, verdict) in [
        (window - 5, FrameVerdict::Accepted),
        (window - 4, FrameVerdict::NotKept),
        (u64::MAX - 5, FrameVerdict::NotKept),
    ] {
        header.number = FrameNumber(header.number.0 + 1);
        header.offset = offset;
        header.encode(&mut frame);
        assert_eq!(pair.ends[BACKUP].handle_frame(pair.now, &frame), verdict, "at {offset}");
    }
    assert!(pair.ends[BACKUP].received(Lane::Latency).is_empty());
    let answer = transmit(&mut pair.ends[BACKUP], pair.now).expect("an acknowledgement");
    let (answer, _) = FrameHeader::decode(&answer).expect("a frame");
    assert_eq!(answer.ack.newest, FrameNumber(header.number.0 - 2), "the frame that was kept");
}

#[test]
fn executed_is_reported_with_the_next_frame() {
    let mut pair = Pair::settled();
    pair.ends[BACKUP].set_executed(17);
    pair.run(config().timing.heartbeat * 2);
    assert!(pair.events[PRIMARY].contains(&Event::PeerExecuted { up_to: 17 }));
    assert_eq!(pair.ends[PRIMARY].peer_executed(), 17);
}

#[test]
fn idle_channel_sends_few_frames() {
    let mut pair = Pair::settled();
    pair.run(MS * 1000);
    let frames = pair.sent.len();
    let bytes: usize = pair.sent.iter().map(|frame| frame.bytes.len()).sum();
    // 14 bytes of Ethernet header, 4 of frame check sequence, and the bytes that the seal adds.
    let on_the_wire = bytes + frames * (18 + logchan::seal::SEAL_OVERHEAD_BYTES);
    println!("idle: {frames} frames/s, {bytes} bytes/s of frames, {on_the_wire} on the wire");
    assert!(frames <= 210, "one heartbeat and its acknowledgement every 10 ms: {frames} frames");
}

#[test]
fn configuration_with_incompatible_values_is_refused() {
    let with = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        config.check()
    };
    let us = Duration::from_micros;
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|c| c.frame_bytes_max = 255), Err(ConfigError::FrameBytes(255)));
    assert_eq!(with(|c| c.window_bytes[1] = 65_539), Err(ConfigError::WindowBytes(65_539)));
    assert_eq!(with(|c| c.timing.heartbeat = MS * 27), Err(ConfigError::Heartbeat));
    assert_eq!(with(|c| c.timing.clock_drift_ppm = 100_000), Err(ConfigError::Drift));
    assert_eq!(with(|c| c.timing.retransmit_min = MS * 21), Err(ConfigError::Retransmit));
    // lease / (1 - d) + margin <= silence / (1 + d), with d = 500 ppm: the largest lease in whole
    // microseconds is 89905.
    let lease = |lease| Timing { lease, ..Timing::DEFAULT }.check();
    assert_eq!(lease(us(89_905)), Ok(()));
    assert_eq!(lease(us(89_906)), Err(ConfigError::Lease));
}

#[test]
fn timing_with_any_difference_has_another_fingerprint() {
    let changes: [fn(&mut Timing); 7] = [
        |timing| timing.heartbeat = MS,
        |timing| timing.silence = MS,
        |timing| timing.lease = MS,
        |timing| timing.lease_margin = MS,
        |timing| timing.clock_drift_ppm = 1,
        |timing| timing.retransmit_min = MS,
        |timing| timing.retransmit_max = MS,
    ];
    let mut seen = vec![Timing::DEFAULT.fingerprint()];
    for change in changes {
        let mut timing = Timing::DEFAULT;
        change(&mut timing);
        assert!(!seen.contains(&timing.fingerprint()), "{timing:?}");
        seen.push(timing.fingerprint());
    }
}
