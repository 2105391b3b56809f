//! An attacker on the link, without the key. The attacker can withhold, modify and replay the frames that it
//! has recorded, in the same or another session, to the receiver or back to the sender.

use logchan::seal::{SEAL_HEADER_BYTES, SealHeader};

use super::count::Count;
use super::host::Arrival;
use super::world::{Event, Sent, World, other};
use crate::sim::MS;
use crate::sim::frames::FrameId;
use crate::sim::rng::Chance;

/// Maximum number of frames that the attacker sends at once.
const FORGED_AT_ONCE_MAX: u64 = 16;

/// Maximum number of handshakes that the attacker replays at once.
const REPLAYED_AT_ONCE_MAX: usize = 48;

/// The state of the attacker.
#[derive(Debug, Default)]
pub(super) struct Attacker {
    /// Recorded handshake frames.
    pub(super) handshakes: Vec<FrameId>,
    /// Recorded death notices.
    pub(super) notices: Vec<FrameId>,
    /// The attacker replays no handshake before this time.
    replay_allowed_at: u64,
    /// By sender: until when its frames are withheld, and the withheld frames.
    holds_until: [u64; 2],
    held: [Vec<FrameId>; 2],
}

impl World<'_> {
    /// Sends frames that are recorded or made up.
    pub(super) fn forge(&mut self) {
        let only_handshakes = self.rng.chance(Chance::percent(25));
        for _ in 0..self.rng.magnitude(1..=FORGED_AT_ONCE_MAX) {
            let to = self.rng.below(2) as usize;
            let made_up = self.frames.count() == 0 || self.rng.chance(Chance::percent(20));
            let mut frame = if made_up { self.make_up() } else { self.recorded() };
            let mut damaged = self.rng.chance(Chance::percent(20));
            if only_handshakes && !self.attacker.handshakes.is_empty() {
                (frame, damaged) = (self.rng.pick(&self.attacker.handshakes), false);
                self.counts.count(Count::HandshakesReplayed);
            }
            let seed = self.rng.word();
            let damage = damaged.then_some(seed);
            self.counts.count(Count::Forged);
            self.inject(to, Arrival { frame, damage, pad: None });
        }
        if let Some((index, to)) = self.supervisors.replays(self.attacker.notices.len()) {
            let frame = self.attacker.notices[index];
            self.counts.count(Count::NoticesReplayed);
            self.inject(to, Arrival { frame, damage: None, pad: None });
        }
    }

    /// After a handshake frame of `host`, may replay to it the handshake frames that it was sent before.
    pub(super) fn replay_handshakes(&mut self, host: usize) {
        let now = self.queue.now();
        let is_heard = self.rng.chance(self.options.faults.replay_handshakes);
        if !is_heard || now < self.attacker.replay_allowed_at || !self.is_faulty() {
            return;
        }
        self.attacker.replay_allowed_at = now + MS;
        let is_meant = |frame: &FrameId| self.frames.info(*frame).from == Some(other(host));
        let recorded = self.attacker.handshakes.iter().rev().filter(|frame| is_meant(frame));
        let recorded: Vec<FrameId> = recorded.copied().take(REPLAYED_AT_ONCE_MAX).collect();
        for frame in recorded {
            self.counts.count(Count::HandshakesReplayed);
            self.inject(host, Arrival { frame, damage: None, pad: None });
        }
    }

    /// Begins to withhold the frames that `host` sends, except those that open a session. They arrive later.
    pub(super) fn hold_back(&mut self, host: usize) {
        let now = self.queue.now();
        if now < self.attacker.holds_until[host] || !self.attacker.held[host].is_empty() {
            return;
        }
        let hold_ns = self.rng.within(self.options.faults.hold_ns.clone());
        self.attacker.holds_until[host] = now + hold_ns;
        let waits_ns = self.rng.magnitude(1..=2 * self.options.timing.silence.as_nanos());
        self.queue.push(now + hold_ns + waits_ns, Event::Release { from: host });
        self.counts.count(Count::Holds);
        self.trace.line(now, Some(host), "hold", format_args!("for {hold_ns} ns"));
    }

    /// Withholds this frame of `host` if its frames are withheld now, and returns whether it did.
    pub(super) fn is_held(&mut self, host: usize, frame: FrameId, is_opening: bool) -> bool {
        let is_held = self.queue.now() < self.attacker.holds_until[host] && !is_opening;
        if is_held && self.is_faulty() {
            self.attacker.held[host].push(frame);
            self.counts.count(Count::Held);
            return true;
        }
        false
    }

    /// Whether the peer of `host` receives only its handshakes, now or within the last silence timeout.
    pub(super) fn is_data_withheld(&self, host: usize) -> bool {
        let moment_ns = self.options.timing.silence.as_nanos();
        let until = self.attacker.holds_until[host];
        until > 0 && self.queue.now() < until + moment_ns
    }

    /// Delivers the withheld frames of `host`.
    pub(super) fn release(&mut self, host: usize) {
        for frame in std::mem::take(&mut self.attacker.held[host]) {
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

    /// A recorded frame; newer ones are more likely.
    fn recorded(&mut self) -> FrameId {
        let count = u64::from(self.frames.count());
        FrameId((count - self.rng.magnitude(1..=count)) as u32)
    }

    /// A random frame, with the header of a recorded one if possible.
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
        self.frames.push(&bytes, Sent::made_up())
    }
}
