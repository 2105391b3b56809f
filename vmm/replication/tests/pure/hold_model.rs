//! Compares the hold queue with a trivially correct model: a `VecDeque` of frames and two limits.

use std::collections::VecDeque;

use crate::common::random::{Rng, run_one_in};
use replication::hold::Positions;
use replication::limits::{FRAME_MAX, FRAME_MIN};
use replication::limits::{HOLD_BYTES_MIN, HOLD_FRAMES_MIN};
use replication::{Full, Held, HoldLimits, HoldQueue, HoldStats};

struct Model {
    /// Each frame's positions, its creation time and its bytes.
    frames: VecDeque<(Positions, u64, Vec<u8>)>,
    bytes: usize,
    limits: HoldLimits,
    stats: HoldStats,
}

impl Model {
    fn push(&mut self, positions: Positions, made_at_ns: u64, frame: &[u8]) -> Result<(), Full> {
        if self.frames.len() == self.limits.frames()
            || self.bytes + frame.len() > self.limits.bytes()
        {
            self.stats.refused += 1;
            return Err(Full);
        }
        self.frames.push_back((positions, made_at_ns, frame.to_vec()));
        self.bytes += frame.len();
        self.stats.pushed += 1;
        self.stats.frames_high = self.stats.frames_high.max(self.frames.len());
        self.stats.bytes_high = self.stats.bytes_high.max(self.bytes);
        Ok(())
    }

    fn front(&self) -> Option<Held<'_>> {
        let &(Positions { release_at, durable_at, watermark }, made_at_ns, ref frame) =
            self.frames.front()?;
        Some(Held { release_at, durable_at, watermark, made_at_ns, frame })
    }

    fn pop(&mut self) {
        self.bytes -= self.frames.pop_front().unwrap().2.len();
        self.stats.released += 1;
    }

    fn drop_up_to(&mut self, watermark: u64) -> usize {
        let held = self.frames.len();
        self.frames.retain(|frame| frame.0.watermark > watermark);
        self.bytes = self.frames.iter().map(|frame| frame.2.len()).sum();
        self.stats.dropped += (held - self.frames.len()) as u64;
        held - self.frames.len()
    }
}

/// Returns frame lengths as in real traffic, and the two lengths that the limits are defined by.
fn length(rng: &mut Rng) -> usize {
    match rng.u32(..6) {
        0 => FRAME_MIN,
        1 => FRAME_MAX,
        2 | 3 => rng.usize(FRAME_MIN..128),
        _ => rng.usize(FRAME_MIN..=FRAME_MAX),
    }
}

fn limits(rng: &mut Rng) -> HoldLimits {
    let frames_end = [2, 5, 100][rng.usize(..3)];
    let bytes_end = [1, 2000, 20_000][rng.usize(..3)];
    let frames = rng.usize(HOLD_FRAMES_MIN..frames_end);
    let bytes = HOLD_BYTES_MIN + rng.usize(..bytes_end);
    HoldLimits::new(frames, bytes).unwrap()
}

fn compare(queue: &HoldQueue, model: &Model, rng: &mut Rng) {
    assert_eq!(queue.front(), model.front());
    assert_eq!((queue.len(), queue.bytes()), (model.frames.len(), model.bytes));
    assert_eq!(queue.is_empty(), model.frames.is_empty());
    assert_eq!(queue.newest_release_at(), model.frames.back().map(|frame| frame.0.release_at));
    assert_eq!(
        queue.front().map(|held| held.made_at_ns),
        model.frames.front().map(|frame| frame.1)
    );
    assert_eq!(queue.stats(), model.stats);
    let length = length(rng);
    let room =
        model.frames.len() < model.limits.frames() && model.bytes + length <= model.limits.bytes();
    assert_eq!(queue.room_for(length), room);
}

fn hold_like_the_model(rng: &mut Rng) {
    let limits = limits(rng);
    let mut queue = HoldQueue::new(limits);
    let mut model =
        Model { frames: VecDeque::new(), bytes: 0, limits, stats: HoldStats::default() };
    // More pushes than pops keep the queue full, fewer keep it near empty.
    let pushes = rng.u32(3..10);
    let (mut positions, mut acknowledged, mut now) = (Positions::default(), 0, 0);
    for _ in 0..400 {
        match rng.u32(..12) {
            choice if choice < pushes => {
                let Positions { release_at, durable_at, watermark } = &mut positions;
                *watermark += rng.u64(..3);
                if rng.bool() {
                    *release_at = rng.u64(*release_at..=*watermark);
                }
                if rng.bool() {
                    *durable_at = rng.u64(*durable_at..=*watermark);
                }
                now += rng.u64(..1000);
                let frame: Vec<u8> = (0..length(rng)).map(|_| rng.u8(..)).collect();
                let pushed = model.push(positions, now, &frame);
                assert_eq!(queue.push(positions, now, &frame), pushed);
            }
            0..10 => {
                acknowledged = rng.u64(acknowledged..=positions.watermark);
                while let Some(held) = queue.front().filter(|held| held.release_at <= acknowledged)
                {
                    assert_eq!(Some(held), model.front());
                    queue.pop();
                    model.pop();
                }
                assert!(model.front().is_none_or(|held| held.release_at > acknowledged));
            }
            10 => {
                let released = rng.u64(..=positions.watermark);
                assert_eq!(queue.drop_up_to(released), model.drop_up_to(released));
            }
            _ if rng.u32(..20) == 0 => {
                assert_eq!(queue.clear(), model.drop_up_to(u64::MAX));
                (positions, acknowledged) = (Positions::default(), 0);
            }
            _ if !queue.is_empty() => {
                queue.pop();
                model.pop();
            }
            _ => {}
        }
        compare(&queue, &model, rng);
    }
    while queue.front().is_some() {
        compare(&queue, &model, rng);
        queue.pop();
        model.pop();
    }
    assert!(model.frames.is_empty());
}

#[test]
fn hold_queue_behaves_like_the_model() {
    run_one_in(4, "pure::hold_model::hold_queue_does_what_the_model_does", hold_like_the_model);
}
