//! A channel that is given arbitrary frames does not panic, buffers no more than a window, sends only
//! valid frames, and has only finitely many timeouts.

use logchan::channel::{Channel, FrameVerdict};
use logchan::ids::{Lane, Role};
use logchan::limits::WINDOW_BYTES_MIN;
use logchan::time::{Duration, Time};

use crate::channel_frames::{mutated_frame, transmit};
use crate::frame::fuzz_frame;
use crate::fuzz_run::run_one_in;
use crate::pair::config;
use crate::rng::Rng;

/// A channel in an established session, its peer, and the time.
struct Session {
    ends: [Channel; 2],
    now: Time,
}

impl Session {
    fn new() -> Self {
        let mut config = config();
        config.window_bytes = [WINDOW_BYTES_MIN; 2];
        let now = Time::from_nanos(1 << 40);
        let end =
            |role| Channel::new(config.clone(), role, now).expect("the configuration is valid");
        let mut session = Self { ends: [end(Role::Primary), end(Role::Backup)], now };
        session.exchange();
        session
    }

    /// Delivers what the ends send, and what they answer.
    fn exchange(&mut self) {
        for _ in 0..4 {
            for end in [0, 1] {
                while let Some(frame) = transmit(&mut self.ends[end], self.now) {
                    self.ends[1 - end].handle_frame(self.now, &frame);
                }
            }
        }
    }
}

/// Gives `bytes` to a channel and checks its invariants.
fn fuzz_handle_frame(channel: &mut Channel, now: Time, bytes: &[u8]) -> FrameVerdict {
    let before = channel.stats().verdicts;
    let verdict = channel.handle_frame(now, bytes);
    let after = channel.stats().verdicts;
    assert_eq!(after[verdict.index()], before[verdict.index()] + 1);
    assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
    for lane in Lane::ALL {
        assert!(channel.received(lane).len() <= WINDOW_BYTES_MIN);
        assert!(channel.room(lane) <= WINDOW_BYTES_MIN);
        assert!(channel.lane_acked(lane) <= channel.appended(lane));
    }
    assert!(channel.acked() <= channel.appended(Lane::Latency));
    while channel.poll_event().is_some() {}
    let mut frames = 0;
    while let Some(frame) = transmit(channel, now) {
        fuzz_frame(&frame);
        frames += 1;
        assert!(frames < 10_000, "the channel never stops sending");
    }
    verdict
}

/// One step of a session: one end gets a frame, part of what arrived is consumed, and time passes.
fn fuzz_step(session: &mut Session, rng: &mut Rng) -> usize {
    session.now = session.now + Duration::from_nanos(rng.number() % 3_000_000);
    let end = rng.below(2);
    let bytes = mutated_frame(&mut session.ends[end], session.now, rng);
    let channel = &mut session.ends[1 - end];
    fuzz_handle_frame(channel, session.now, &bytes);
    for lane in Lane::ALL {
        let length = rng.below(channel.received(lane).len() + 1);
        channel.consume(lane, length);
    }
    let mut wakes = 0;
    while channel.poll_timeout().is_some_and(|timeout| timeout <= session.now) {
        channel.handle_timeout(session.now);
        wakes += 1;
        assert!(wakes < 100, "the timeout never stops being due");
    }
    if rng.below(4) == 0 {
        session.exchange();
    }
    bytes.len()
}

const STEPS: u64 = 128;

#[test]
fn fuzz_channel() {
    run_one_in(STEPS, "fuzz_channel", |rng| {
        let mut session = Session::new();
        (0..STEPS).map(|_| fuzz_step(&mut session, rng)).sum()
    });
}
