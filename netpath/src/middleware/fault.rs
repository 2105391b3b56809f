//! [`Fault`]: a line that loses, repeats, delays, reorders and damages frames, by a seed.
//!
//! Each direction has its own random stream, and each frame takes the same number of draws from it
//! whatever happens to it. So the faults of a direction are a function of the seed and of the
//! position of the frame in that direction: the same seed and the same calls give the same faults.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::port::{FRAME_MAX, FramePort, PortError, Wake, assert_receive_buffer, length_fits};

/// Frames that a direction holds back at most; beyond it frames pass undelayed.
pub const HELD_FRAMES_MAX: usize = 64;

/// How often each fault happens, in frames per 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// The frame vanishes.
    pub drop: u16,
    /// The frame passes twice, one copy right behind the other (if the first is held back, the
    /// second is not).
    pub duplicate: u16,
    /// The frame passes behind the next one.
    pub reorder: u16,
    /// The frame passes after [`delay_frames`](Self::delay_frames) further ones. On an idle line
    /// that is for ever: what comes last is lost if nothing follows.
    pub delay: u16,
    /// One bit of the frame is flipped.
    pub corrupt: u16,
    /// How many frames overtake a delayed one.
    pub delay_frames: u16,
}

/// The faults of a line, for both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultConfig {
    /// Decides which frames are hit.
    pub seed: u64,
    /// Faults on what is received.
    pub rx: FaultRates,
    /// Faults on what is sent.
    pub tx: FaultRates,
}

/// What happened to the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Frames that entered.
    pub frames: u64,
    /// Frames lost.
    pub dropped: u64,
    /// Frames sent twice.
    pub duplicated: u64,
    /// Frames put behind the next.
    pub reordered: u64,
    /// Frames held back for longer.
    pub delayed: u64,
    /// Frames with a bit flipped.
    pub corrupted: u64,
    /// Frames that should have been held back while [`HELD_FRAMES_MAX`] were, and passed.
    pub overflowed: u64,
}

/// A port with faults in front of it.
pub struct Fault<P> {
    port: P,
    rx: Line,
    tx: Line,
}

impl<P: FramePort> Fault<P> {
    /// Wraps `port`.
    pub fn new(port: P, config: FaultConfig) -> Self {
        // Any two different streams will do; the same for both would couple the directions.
        let rx = Line::new(config.rx, config.seed);
        let tx = Line::new(config.tx, config.seed ^ 0x5851_f42d_4c95_7f2d);
        Fault { port, rx, tx }
    }

    /// What happened to received frames.
    pub fn rx_counts(&self) -> FaultCounts {
        self.rx.counts
    }

    /// What happened to sent frames.
    pub fn tx_counts(&self) -> FaultCounts {
        self.tx.counts
    }

    /// The wrapped port.
    pub fn port(&self) -> &P {
        &self.port
    }
}

impl<P: FramePort> FramePort for Fault<P> {
    /// True as well for a frame that the faults will take away.
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
            // The port below counts it.
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

    /// May return [`Wake::Frame`] for a frame that the faults then take away.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.port.pollable()
    }

    fn attend(&mut self) -> Result<(), PortError> {
        self.port.attend()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, PortError> {
        if !self.rx.ready.is_empty() {
            return Ok(Wake::Frame);
        }
        self.port.wait(timeout)
    }
}

/// A copy of a frame; recycled, so that a running line does not allocate.
#[derive(Clone)]
struct Copied {
    bytes: Box<[u8; FRAME_MAX]>,
    length: usize,
}

impl Copied {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// One direction.
struct Line {
    rates: FaultRates,
    random: SplitMix,
    counts: FaultCounts,
    /// Frames held back, each with the number of frames that must still overtake it.
    held: Vec<(u16, Copied)>,
    ready: VecDeque<Copied>,
    spare: Vec<Copied>,
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

    fn copy(&mut self, frame: &[u8]) -> Copied {
        let mut copy = self
            .spare
            .pop()
            .unwrap_or_else(|| Copied { bytes: Box::new([0; FRAME_MAX]), length: 0 });
        copy.bytes[..frame.len()].copy_from_slice(frame);
        copy.length = frame.len();
        copy
    }

    /// Decides the fate of a frame; whatever may pass now is in `ready` afterwards.
    fn enter(&mut self, frame: &[u8]) {
        self.counts.frames += 1;
        let rates = self.rates;
        // Every frame draws the same number of values, in this order.
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
        let twin = duplicate.then(|| self.copy(copy.bytes()));
        self.counts.duplicated += u64::from(duplicate);

        if hold > 0 && has_room {
            // Entered after the count-down below has been made for this frame's predecessors.
            self.count_down(twin);
            self.held.push((hold, copy));
        } else {
            self.ready.push_back(copy);
            self.count_down(twin);
        }
    }

    /// Puts the twin in its place, then lets the held frames go that have now been overtaken.
    fn count_down(&mut self, twin: Option<Copied>) {
        self.ready.extend(twin);
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

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good for any seed.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value below `limit` by multiplication; its bias is far below one in 10,000.
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
