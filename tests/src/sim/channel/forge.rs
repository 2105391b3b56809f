//! Somebody on the wire, without the key: what he can record, he can hold back, change and play back,
//! in this session or another one, to whom it was meant for or to whom it came from.

use logchan::seal::{SEAL_HEADER_BYTES, SealHeader};

use super::count::Count;
use super::host::Arrival;
use super::world::{Event, Sent, World, other};
use crate::sim::MS;
use crate::sim::frames::FrameId;
use crate::sim::rng::Chance;

/// Frames that are sent at once, at most.
const FORGED_AT_ONCE: u64 = 16;

/// Handshakes that are played back at once, at most.
const ECHOED_AT_ONCE: usize = 24;

/// What the forger has in mind.
#[derive(Debug, Default)]
pub(super) struct Forger {
    /// Frames of handshakes that he has seen.
    pub(super) handshakes: Vec<FrameId>,
    /// He plays back no handshake before.
    echo_at: u64,
    /// By sender: until when he holds its frames back, and those that he holds.
    holds_until: [u64; 2],
    held: [Vec<FrameId>; 2],
}

impl World<'_> {
    /// He sends something that he has recorded or made up.
    pub(super) fn forge(&mut self) {
        let only_handshakes = self.rng.chance(Chance::percent(25));
        for _ in 0..self.rng.magnitude(1..=FORGED_AT_ONCE) {
            let to = self.rng.below(2) as usize;
            let made_up = self.frames.count() == 0 || self.rng.chance(Chance::percent(20));
            let mut frame = if made_up { self.make_up() } else { self.recorded() };
            let mut damaged = self.rng.chance(Chance::percent(20));
            if only_handshakes && !self.forger.handshakes.is_empty() {
                (frame, damaged) = (self.rng.pick(&self.forger.handshakes), false);
                self.counts.count(Count::PlayedBack);
            }
            let seed = self.rng.word();
            let damage = damaged.then_some(seed);
            self.counts.count(Count::Forged);
            self.inject(to, Arrival { frame, damage, pad: None });
        }
    }

    /// He has seen a handshake of `host`, and plays back to it those that it was sent before.
    pub(super) fn echo(&mut self, host: usize) {
        let now = self.queue.now();
        let is_heard = self.rng.chance(self.options.faults.echo);
        if !is_heard || now < self.forger.echo_at || !self.is_faulty() {
            return;
        }
        self.forger.echo_at = now + MS;
        let is_meant = |frame: &FrameId| self.frames.known(*frame).from == Some(other(host));
        let recorded = self.forger.handshakes.iter().rev().filter(|frame| is_meant(frame));
        let recorded: Vec<FrameId> = recorded.copied().take(ECHOED_AT_ONCE).collect();
        for frame in recorded {
            self.counts.count(Count::PlayedBack);
            self.inject(host, Arrival { frame, damage: None, pad: None });
        }
    }

    /// From now on he holds back what `host` sends, but for what makes a session; later it arrives
    /// after all.
    pub(super) fn hold_back(&mut self, host: usize) {
        let now = self.queue.now();
        if now < self.forger.holds_until[host] || !self.forger.held[host].is_empty() {
            return;
        }
        let hold_ns = self.rng.within(self.options.faults.hold_ns.clone());
        self.forger.holds_until[host] = now + hold_ns;
        let waits_ns = self.rng.magnitude(1..=2 * self.options.timing.silence.as_nanos());
        self.queue.push(now + hold_ns + waits_ns, Event::Release { from: host });
        self.counts.count(Count::Holds);
        self.trace.line(now, Some(host), "hold", format_args!("for {hold_ns} ns"));
    }

    /// Whether he holds back this frame of `host`.
    pub(super) fn is_held(&mut self, host: usize, frame: FrameId, is_opening: bool) -> bool {
        let is_held = self.queue.now() < self.forger.holds_until[host] && !is_opening;
        if is_held && self.is_faulty() {
            self.forger.held[host].push(frame);
            self.counts.count(Count::Held);
            return true;
        }
        false
    }

    /// Whether nobody has heard of `host`, just now or a moment ago, but its handshakes.
    pub(super) fn is_muted(&self, host: usize) -> bool {
        let moment_ns = self.options.timing.silence.as_nanos();
        let until = self.forger.holds_until[host];
        until > 0 && self.queue.now() < until + moment_ns
    }

    /// What he has held back of `host` arrives.
    pub(super) fn release(&mut self, host: usize) {
        for frame in std::mem::take(&mut self.forger.held[host]) {
            self.inject(other(host), Arrival { frame, damage: None, pad: None });
        }
    }

    fn inject(&mut self, to: usize, arrival: Arrival) {
        let now = self.queue.now();
        let Arrival { frame, damage, .. } = arrival;
        let what = format_args!("#{:06} damaged {}", frame.0, damage.is_some());
        self.trace.line(now, Some(to), "forged", what);
        self.queue.push(now, Event::Arrive { to, arrival });
    }

    /// Any frame from before; the newer ones more often.
    fn recorded(&mut self) -> FrameId {
        let count = u64::from(self.frames.count());
        FrameId((count - self.rng.magnitude(1..=count)) as u32)
    }

    /// Noise that begins like a frame.
    fn make_up(&mut self) -> FrameId {
        let mut bytes = vec![0; self.rng.magnitude(1..=400) as usize];
        self.rng.fill(&mut bytes);
        if self.frames.count() > 0 && bytes.len() >= SEAL_HEADER_BYTES {
            let model = self.recorded();
            if let Ok(header) = SealHeader::decode(self.frames.bytes(model)) {
                let sequence = header.sequence.wrapping_add(self.rng.magnitude(1..=1 << 20));
                let length = self.rng.below(bytes.len() as u64) as u16;
                let header = SealHeader { sequence, length, ..header };
                bytes[..SEAL_HEADER_BYTES].copy_from_slice(&header.encode());
            }
        }
        self.frames.push(&bytes, Sent::by_nobody())
    }
}
