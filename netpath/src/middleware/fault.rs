//! [`Fault`]: a lossy link that drops, duplicates, delays, reorders and corrupts frames, by a seed.
//!
//! Each direction has its own random stream, and each frame takes the same number of draws from it
//! whatever happens to the frame. The faults of a direction are therefore a function of the seed and
//! of the frame's position in that direction: the same seed and the same calls give the same faults.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::port::{FRAME_MAX, FramePort, PortError, Wake, assert_receive_buffer, length_fits};

/// Maximum number of frames that a direction holds back; further frames pass without delay.
pub const HELD_FRAMES_MAX: usize = 64;

/// The probability of each fault, in frames per 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// The frame is lost.
    pub drop: u16,
    /// The frame passes twice, the copy directly after the original. If the original is held back, the
    /// copy is not.
    pub duplicate: u16,
    /// The frame passes after the next one.
    pub reorder: u16,
    /// The frame passes after [`delay_frames`](Self::delay_frames) further frames. On an idle link it
    /// never passes: the last frame is lost if none follows.
    pub delay: u16,
    /// One bit of the frame is flipped.
    pub corrupt: u16,
    /// Number of frames that overtake a delayed one.
    pub delay_frames: u16,
}

/// The faults of a link, for both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultConfig {
    /// Seed of the random streams, which decide which frames are hit.
    pub seed: u64,
    /// Faults of received frames.
    pub rx: FaultRates,
    /// Faults of sent frames.
    pub tx: FaultRates,
}

/// Counters of the faults of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Frames that entered.
    pub frames: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames duplicated.
    pub duplicated: u64,
    /// Frames that passed after the next one.
    pub reordered: u64,
    /// Frames that passed after `delay_frames` further ones.
    pub delayed: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Frames that passed without the delay that they were to have, because [`HELD_FRAMES_MAX`] frames
    /// were already held back.
    pub overflowed: u64,
}

/// A port whose received and sent frames are subject to faults.
pub struct Fault<P> {
    port: P,
    rx: Line,
    tx: Line,
}

impl<P: FramePort> Fault<P> {
    /// Wraps `port`.
    pub fn new(port: P, config: FaultConfig) -> Self {
        // Any two different streams will do. With the same stream, both directions would have the same faults.
        let rx = Line::new(config.rx, config.seed);
        let tx = Line::new(config.tx, config.seed ^ 0x5851_f42d_4c95_7f2d);
        Fault { port, rx, tx }
    }

    /// Counters of received frames.
    pub fn rx_counts(&self) -> FaultCounts {
        self.rx.counts
    }

    /// Counters of sent frames.
    pub fn tx_counts(&self) -> FaultCounts {
        self.tx.counts
    }

    /// The wrapped port.
    pub fn port(&self) -> &P {
        &self.port
    }
}

impl<P: FramePort> FramePort for Fault<P> {
    /// May be true for a frame that is then dropped or held back.
    fn has_frame(&self) -> bool {
        !self.rx.ready.is_empty() || self.port.has_frame()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, PortError> {
        assert_receive_buffer(buffer);
        while self.rx.ready.is_empty() {
            let Some(length) = self.port.receive(buffer)? else { return Ok(None) };
            self.rx.enter(&buffer[..length]);
        }
        Ok(self.rx.take(buffer))
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PortError> {
        if !length_fits(frame.len()) {
            // The wrapped port counts it.
            return self.port.send(frame);
        }
        self.tx.enter(frame);
        while let Some(frame) = self.tx.ready.pop_front() {
            let result = self.port.send(frame.bytes());
            self.tx.spare.push(frame);
            result?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.port.flush()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.port.pollable()
    }

    fn handle_poll_event(&mut self) -> Result<(), PortError> {
        self.port.handle_poll_event()
    }

    /// May return [`Wake::Frame`] for a frame that is then dropped or held back.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        if !self.rx.ready.is_empty() {
            return Ok(Wake::Frame);
        }
        self.port.wait(timeout)
    }
}

/// A copy of a frame. Copies are reused, so that a line stops allocating once it has enough.
#[derive(Clone)]
struct FrameCopy {
    bytes: Box<[u8; FRAME_MAX]>,
    length: usize,
}

impl FrameCopy {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// One direction of the link.
struct Line {
    rates: FaultRates,
    random: SplitMix,
    counts: FaultCounts,
    /// Frames held back, each with the number of frames that must still overtake it.
    held: Vec<(u16, FrameCopy)>,
    ready: VecDeque<FrameCopy>,
    spare: Vec<FrameCopy>,
}

impl Line {
    fn new(rates: FaultRates, seed: u64) -> Line {
        Line {
            rates,
            random: SplitMix(seed),
            counts: FaultCounts::default(),
            held: Vec::new(),
            ready: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    fn copy(&mut self, frame: &[u8]) -> FrameCopy {
        let mut copy = self
            .spare
            .pop()
            .unwrap_or_else(|| FrameCopy { bytes: Box::new([0; FRAME_MAX]), length: 0 });
        copy.bytes[..frame.len()].copy_from_slice(frame);
        copy.length = frame.len();
        copy
    }

    /// Applies the faults to a frame, and moves the frames that may pass now to `ready`.
    fn enter(&mut self, frame: &[u8]) {
        self.counts.frames += 1;
        let rates = self.rates;
        // Every frame draws the same number of values, in the same order.
        let [drop, duplicate, reorder, delay, corrupt] =
            [rates.drop, rates.duplicate, rates.reorder, rates.delay, rates.corrupt]
                .map(|rate| self.random.happens(rate));
        let bit = self.random.below(frame.len() as u64 * 8) as usize;

        if drop {
            self.counts.dropped += 1;
            return;
        }
        let mut copy = self.copy(frame);
        if corrupt {
            self.counts.corrupted += 1;
            copy.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let hold = match (delay, reorder) {
            (true, _) => rates.delay_frames,
            (false, true) => 1,
            (false, false) => 0,
        };
        let has_room = self.held.len() < HELD_FRAMES_MAX;
        if hold > 0 && has_room {
            self.counts.delayed += u64::from(delay);
            self.counts.reordered += u64::from(!delay);
        } else if hold > 0 {
            self.counts.overflowed += 1;
        }
        let second = duplicate.then(|| self.copy(copy.bytes()));
        self.counts.duplicated += u64::from(duplicate);

        if hold > 0 && has_room {
            // The frame is held only after the countdown, because it does not overtake itself.
            self.count_down(second);
            self.held.push((hold, copy));
        } else {
            self.ready.push_back(copy);
            self.count_down(second);
        }
    }

    /// Passes the duplicate of a frame, if it has one, then the held frames that enough frames have
    /// overtaken.
    fn count_down(&mut self, duplicate: Option<FrameCopy>) {
        self.ready.extend(duplicate);
        let ready = &mut self.ready;
        for (left, _) in &mut self.held {
            *left -= 1;
        }
        for (_, copy) in self.held.extract_if(.., |(left, _)| *left == 0) {
            ready.push_back(copy);
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let frame = self.ready.pop_front()?;
        let length = frame.length;
        buffer[..length].copy_from_slice(frame.bytes());
        self.spare.push(frame);
        Some(length)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and usable with any seed.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value below `limit`, by multiplication. Its bias is far below one in 10,000.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    fn happens(&mut self, per_10_000: u16) -> bool {
        self.below(10_000) < per_10_000.into()
    }
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
