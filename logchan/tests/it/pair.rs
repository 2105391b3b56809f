//! Two channels, and a wire that delivers every frame that a test does not drop. Time is virtual and
//! jumps to the next event.

use logchan::channel::{Channel, Config, Event};
use logchan::frame::{FrameHeader, FrameKind};
use logchan::ids::{Lane, Role, SessionId, Term, VmId};
use logchan::time::{Duration, Time};

use crate::channel_frames::transmit;

/// One-way latency of the wire.
pub(crate) const LATENCY: Duration = Duration::from_micros(50);

pub(crate) const PRIMARY: usize = 0;
pub(crate) const BACKUP: usize = 1;

pub(crate) fn config() -> Config {
    Config::new(VmId(1), SessionId(2), Term(3))
}

/// A frame on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) from: usize,
    pub(crate) arrives_at: Time,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn header(&self) -> FrameHeader {
        FrameHeader::decode(&self.bytes).expect("a channel sends valid frames").0
    }
}

pub(crate) struct Pair {
    pub(crate) now: Time,
    pub(crate) ends: [Channel; 2],
    pub(crate) events: [Vec<Event>; 2],
    pub(crate) wire: Vec<Frame>,
    /// Every frame sent, in order.
    pub(crate) sent: Vec<Frame>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(&config())
    }

    pub(crate) fn with(config: &Config) -> Self {
        let now = Time::from_nanos(1_000_000_000);
        let end =
            |role| Channel::new(config.clone(), role, now).expect("the configuration is valid");
        Self {
            now,
            ends: [end(Role::Primary), end(Role::Backup)],
            events: [vec![], vec![]],
            wire: vec![],
            sent: vec![],
        }
    }

    /// Returns a pair whose ends know each other's windows and have nothing left to do.
    pub(crate) fn settled() -> Self {
        let mut pair = Self::new();
        pair.run(Duration::from_millis(1));
        pair.sent.clear();
        pair.events = [vec![], vec![]];
        pair
    }

    pub(crate) fn append(&mut self, lane: Lane, bytes: &[u8]) {
        self.ends[PRIMARY].append(self.now, lane, bytes).expect("room");
    }

    /// Reads everything that `end` received and did not consume.
    pub(crate) fn read(&mut self, end: usize, lane: Lane) -> Vec<u8> {
        let bytes = self.ends[end].received(lane).to_vec();
        self.ends[end].consume(lane, bytes.len());
        bytes
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        self.run_with(duration, |_| true);
    }

    /// Lets `duration` pass. `keeps` is called for every frame when it is sent; if it returns false, the
    /// frame is lost.
    pub(crate) fn run_with(&mut self, duration: Duration, mut keeps: impl FnMut(&Frame) -> bool) {
        let until = self.now + duration;
        loop {
            for end in [PRIMARY, BACKUP] {
                self.drive(end, &mut keeps);
            }
            let timeouts = self.ends.iter().filter_map(Channel::poll_timeout);
            let arrivals = self.wire.iter().map(|frame| frame.arrives_at);
            match timeouts.chain(arrivals).min() {
                Some(next) if next <= until => self.now = self.now.max(next),
                Some(_) | None => break,
            }
        }
        self.now = until;
    }

    fn drive(&mut self, end: usize, keeps: &mut impl FnMut(&Frame) -> bool) {
        let now = self.now;
        let channel = &mut self.ends[end];
        self.wire.retain(|frame| {
            let arrives = frame.from != end && frame.arrives_at <= now;
            if arrives {
                channel.handle_frame(now, &frame.bytes);
            }
            !arrives
        });
        if channel.poll_timeout().is_some_and(|timeout| timeout <= now) {
            channel.handle_timeout(now);
        }
        while let Some(event) = channel.poll_event() {
            self.events[end].push(event);
        }
        while let Some(frame) = transmit(channel, now) {
            let frame = Frame { from: end, arrives_at: now + LATENCY, bytes: frame };
            if keeps(&frame) {
                self.wire.push(frame.clone());
            }
            self.sent.push(frame);
        }
    }

    /// Returns the kinds of the frames that `end` sent.
    pub(crate) fn kinds(&self, end: usize) -> Vec<FrameKind> {
        self.sent.iter().filter(|f| f.from == end).map(|f| f.header().kind).collect()
    }
}

/// Returns bytes in which every one depends on its offset.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}
