//! One direction of a link, and everything that can happen to a frame on it.
//!
//! ```text
//!  offer -> cut? -> burst of losses? -> lost? -> queue full? -> [repeated] -> delay -> damaged?
//!             |            |              |           |                                   |
//!             v            v              v           v                                   v
//!                      gone, and nobody is told                                      a Delivery
//! ```

use super::rng::{Chance, Rng};
use super::{MS, US};

/// What a link does to frames. Which faults there are, and how many, is drawn for each run.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// What every frame takes.
    pub delay_ns: u64,
    /// What a frame may take in addition.
    pub jitter_ns: u64,
    /// A frame is lost.
    pub loss: Chance,
    /// All frames are lost from this one on, for a while.
    pub burst: Chance,
    /// Longest such while.
    pub burst_ns_max: u64,
    /// A frame arrives more than once.
    pub repeat: Chance,
    /// A frame is overtaken by later ones.
    pub reorder: Chance,
    /// What such a frame takes longer, at most.
    pub reorder_ns_max: u64,
    /// Nothing comes out for a while, then everything at once.
    pub stall: Chance,
    /// Longest such while.
    pub stall_ns_max: u64,
    /// A frame arrives other than it was sent.
    pub damage: Chance,
    /// Short frames are filled up.
    pub pads: bool,
    /// What fits through: bytes in a millisecond (125,000 are a gigabit in a second). `None`: all.
    pub bytes_per_ms: Option<u64>,
    /// Bytes that wait for their turn, at most. More are lost.
    pub queue_bytes_max: u64,
}

impl LinkOptions {
    /// The link of a run in which delays are short against `patience_ns`, or not so short.
    pub fn draw(rng: &mut Rng, patience_ns: u64) -> Self {
        let half = Chance::percent(50);
        let slow = rng.chance(Chance::percent(30));
        let rate = rng.magnitude(500..=125_000);
        let rare_loss = rng.swarm(half, 100..=50_000);
        let heavy_loss = rng.swarm(half, 50_000..=500_000);
        Self {
            delay_ns: rng.magnitude(2 * US..=patience_ns / 20),
            jitter_ns: rng.magnitude(1..=patience_ns / 20),
            loss: rng.pick(&[rare_loss, heavy_loss]),
            burst: rng.swarm(half, 100..=20_000),
            burst_ns_max: rng.magnitude(10 * US..=patience_ns),
            repeat: rng.swarm(half, 100..=200_000),
            reorder: rng.swarm(half, 100..=200_000),
            reorder_ns_max: rng.magnitude(10 * US..=patience_ns),
            stall: rng.swarm(Chance::percent(30), 100..=10_000),
            stall_ns_max: rng.magnitude(10 * US..=patience_ns),
            damage: rng.swarm(half, 100..=100_000),
            pads: rng.chance(half),
            bytes_per_ms: slow.then_some(rate),
            queue_bytes_max: rng.magnitude(10_000..=1_000_000),
        }
    }

    /// The same link without its faults, as a LAN should be.
    #[must_use]
    pub fn healthy(&self) -> Self {
        Self {
            delay_ns: self.delay_ns.min(MS / 5),
            jitter_ns: self.jitter_ns.min(MS / 10),
            loss: Chance::NEVER,
            burst: Chance::NEVER,
            repeat: Chance::NEVER,
            reorder: Chance::NEVER,
            stall: Chance::NEVER,
            damage: Chance::NEVER,
            bytes_per_ms: None,
            ..*self
        }
    }
}

/// A copy of a frame that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: u64,
    /// Seed of what happened to it on the way.
    pub damage: Option<u64>,
    /// Seed of what a short frame is filled up with.
    pub pad: Option<u64>,
}

/// What a link did. A plain copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Frames lost one by one.
    pub lost: u64,
    /// Frames lost in bursts.
    pub lost_in_bursts: u64,
    /// Frames sent into a partition.
    pub cut: u64,
    /// Frames for which the queue had no room.
    pub overflowed: u64,
    /// Copies beyond the first.
    pub repeated: u64,
    /// Copies that a later frame overtook, or may have.
    pub reordered: u64,
    /// Times that nothing came out.
    pub stalls: u64,
    /// Copies that were damaged.
    pub damaged: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    options: LinkOptions,
    rng: Rng,
    cut: bool,
    /// The frame that was offered last has left by then.
    busy_until: u64,
    lossy_until: u64,
    stalled_until: u64,
    /// When the latest frame in order arrives, and the latest of all.
    in_order_at: u64,
    latest_at: u64,
    counts: LinkCounts,
}

impl Link {
    /// A link that is whole.
    pub fn new(options: LinkOptions, rng: Rng) -> Self {
        Self {
            options,
            rng,
            cut: false,
            busy_until: 0,
            lossy_until: 0,
            stalled_until: 0,
            in_order_at: 0,
            latest_at: 0,
            counts: LinkCounts::default(),
        }
    }

    /// What it did.
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Cuts the link: whatever is sent from now on is lost. Or mends it.
    pub fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// No faults from now on. What is on its way arrives as it would have, and may be overtaken.
    pub fn heal(&mut self) {
        self.options = self.options.healthy();
        self.cut = false;
        (self.lossy_until, self.stalled_until) = (0, 0);
        (self.busy_until, self.in_order_at) = (0, 0);
    }

    /// When the last frame that is on its way arrives.
    pub fn empty_at(&self) -> u64 {
        self.latest_at
    }

    /// When it has at most `bytes` to send, if it is offered nothing more: a driver that asks waits
    /// with its next frame until then.
    pub fn drained_at(&self, now: u64, bytes: u64) -> u64 {
        let Some(rate) = self.options.bytes_per_ms else { return now };
        self.busy_until.saturating_sub(bytes * MS / rate).max(now)
    }

    /// Takes a frame of `bytes` bytes and adds what arrives of it to `deliveries`.
    pub fn offer(&mut self, now: u64, bytes: usize, deliveries: &mut Vec<Delivery>) {
        let options = &self.options;
        if self.cut {
            self.counts.cut += 1;
            return;
        }
        if self.rng.chance(options.burst) {
            self.lossy_until = now + self.rng.magnitude(1..=options.burst_ns_max);
        }
        if now < self.lossy_until {
            self.counts.lost_in_bursts += 1;
            return;
        }
        if self.rng.chance(options.loss) {
            self.counts.lost += 1;
            return;
        }
        let mut leaves_at = now;
        if let Some(rate) = options.bytes_per_ms {
            let starts_at = self.busy_until.max(now);
            if (starts_at - now) * rate / MS > options.queue_bytes_max {
                self.counts.overflowed += 1;
                return;
            }
            leaves_at = starts_at + bytes as u64 * MS / rate;
            self.busy_until = leaves_at;
        }
        if self.rng.chance(options.stall) {
            self.stalled_until = now + self.rng.magnitude(1..=options.stall_ns_max);
            self.counts.stalls += 1;
        }
        self.deliver(leaves_at, deliveries);
        while self.rng.chance(self.options.repeat) {
            self.counts.repeated += 1;
            self.deliver(leaves_at, deliveries);
        }
    }

    fn deliver(&mut self, leaves_at: u64, deliveries: &mut Vec<Delivery>) {
        let options = &self.options;
        let takes = options.delay_ns + self.rng.below(options.jitter_ns + 1);
        let mut at = (leaves_at + takes).max(self.stalled_until);
        if self.rng.chance(options.reorder) {
            at += self.rng.magnitude(1..=options.reorder_ns_max);
            self.counts.reordered += 1;
        } else {
            at = at.max(self.in_order_at);
            self.in_order_at = at;
        }
        self.latest_at = self.latest_at.max(at);
        let damage = self.rng.chance(options.damage).then(|| self.rng.word());
        let pad = options.pads.then(|| self.rng.word());
        self.counts.damaged += u64::from(damage.is_some());
        deliveries.push(Delivery { at, damage, pad });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(options: LinkOptions) -> Link {
        Link::new(options, Rng::new(7))
    }

    fn sound() -> LinkOptions {
        LinkOptions { pads: false, ..LinkOptions::draw(&mut Rng::new(1), 100 * MS).healthy() }
    }

    /// What arrives of 1000 frames, one each microsecond.
    fn thousand(link: &mut Link) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        (0..1000).for_each(|frame| link.offer(frame * US, 1000, &mut deliveries));
        deliveries
    }

    #[test]
    fn healthy_link_delivers_each_frame_once_in_order() {
        let mut link = link(sound());
        let deliveries = thousand(&mut link);
        assert_eq!(deliveries.len(), 1000);
        assert!(deliveries.is_sorted_by_key(|delivery| delivery.at));
        assert!(deliveries.iter().all(|delivery| delivery.damage.is_none()));
        assert_eq!(link.counts(), LinkCounts::default());
    }

    #[test]
    fn every_fault_happens_when_it_is_asked_for() {
        let often = Chance::percent(10);
        let faulty = |options| {
            let mut link = link(options);
            let deliveries = thousand(&mut link);
            (deliveries, link.counts())
        };
        let (arrived, counts) = faulty(LinkOptions { loss: often, ..sound() });
        assert!((50..200).contains(&counts.lost) && arrived.len() + counts.lost as usize == 1000);
        let (arrived, counts) = faulty(LinkOptions { burst: often, ..sound() });
        assert!(counts.lost_in_bursts > 100, "{counts:?}, {} arrived", arrived.len());
        let (arrived, counts) = faulty(LinkOptions { repeat: often, ..sound() });
        assert!(counts.repeated > 50 && arrived.len() == 1000 + counts.repeated as usize);
        let (arrived, counts) = faulty(LinkOptions { reorder: often, ..sound() });
        assert!(counts.reordered > 50 && !arrived.is_sorted_by_key(|delivery| delivery.at));
        let (_, counts) = faulty(LinkOptions { stall: often, ..sound() });
        assert!(counts.stalls > 50);
        let (arrived, counts) = faulty(LinkOptions { damage: often, ..sound() });
        assert!(counts.damaged > 50 && arrived.iter().any(|delivery| delivery.damage.is_some()));
    }

    #[test]
    fn slow_link_delays_then_loses_what_its_queue_does_not_hold() {
        let rate = Some(1000);
        let mut link = link(LinkOptions { bytes_per_ms: rate, queue_bytes_max: 20_000, ..sound() });
        let deliveries = thousand(&mut link);
        let LinkCounts { overflowed, .. } = link.counts();
        assert_eq!(deliveries.len() + overflowed as usize, 1000);
        assert!((970..985).contains(&overflowed), "{overflowed}");
        assert!(link.drained_at(MS, 0) > 20 * MS && link.drained_at(MS, 1 << 20) == MS);
    }

    #[test]
    fn link_that_is_cut_delivers_nothing_until_it_heals() {
        let mut link = link(LinkOptions { loss: Chance::percent(100), ..sound() });
        link.set_cut(true);
        assert!(thousand(&mut link).is_empty() && link.is_cut());
        link.heal();
        assert_eq!((thousand(&mut link).len(), link.counts().cut), (1000, 1000));
    }
}
