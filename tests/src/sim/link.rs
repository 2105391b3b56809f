//! One direction of a link, with all faults that can happen to a frame.
//!
//! ```text
//!  offer -> cut? -> burst of losses? -> lost? -> queue full? -> [duplicated] -> delay -> damaged?
//!             |            |              |           |                                     |
//!             v            v              v           v                                     v
//!                          silently dropped                                            a Delivery
//! ```

use super::rng::{Chance, Rng};
use super::{MS, US};

/// The properties and faults of a link. They are drawn for each run.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Delay of every frame.
    pub delay_ns: u64,
    /// Maximum additional delay of a frame.
    pub jitter_ns: u64,
    /// Probability that a frame is lost.
    pub loss: Chance,
    /// Probability that a burst of losses begins with this frame.
    pub burst: Chance,
    /// Maximum duration of a burst.
    pub burst_ns_max: u64,
    /// Probability that a frame arrives once more.
    pub duplicate: Chance,
    /// Probability that later frames overtake a frame.
    pub reorder: Chance,
    /// Maximum additional delay of such a frame.
    pub reorder_ns_max: u64,
    /// Probability that a stall begins with this frame: no frame arrives until the stall ends, then all do.
    pub stall: Chance,
    /// Maximum duration of a stall.
    pub stall_ns_max: u64,
    /// Probability that a frame is damaged.
    pub damage: Chance,
    /// Whether short frames are padded.
    pub pads: bool,
    /// Bandwidth in bytes per millisecond (125,000 are 1 Gbit/s). `None`: unlimited.
    pub bytes_per_ms: Option<u64>,
    /// Maximum number of bytes in the transmit queue. Frames beyond it are lost.
    pub queue_bytes_max: u64,
}

impl LinkOptions {
    /// Draws the options of a run. Delays are at most a twentieth of `timeout_ns`; bursts, stalls and
    /// reordering last up to `timeout_ns`.
    pub fn draw(rng: &mut Rng, timeout_ns: u64) -> Self {
        let half = Chance::percent(50);
        let slow = rng.chance(Chance::percent(30));
        let rate = rng.magnitude(500..=125_000);
        let rare_loss = rng.swarm(half, 100..=50_000);
        let heavy_loss = rng.swarm(half, 50_000..=500_000);
        Self {
            delay_ns: rng.magnitude(2 * US..=timeout_ns / 20),
            jitter_ns: rng.magnitude(1..=timeout_ns / 20),
            loss: rng.pick(&[rare_loss, heavy_loss]),
            burst: rng.swarm(half, 100..=20_000),
            burst_ns_max: rng.magnitude(10 * US..=timeout_ns),
            duplicate: rng.swarm(half, 100..=200_000),
            reorder: rng.swarm(half, 100..=200_000),
            reorder_ns_max: rng.magnitude(10 * US..=timeout_ns),
            stall: rng.swarm(Chance::percent(30), 100..=10_000),
            stall_ns_max: rng.magnitude(10 * US..=timeout_ns),
            damage: rng.swarm(half, 100..=100_000),
            pads: rng.chance(half),
            bytes_per_ms: slow.then_some(rate),
            queue_bytes_max: rng.magnitude(10_000..=1_000_000),
        }
    }

    /// The same link without faults and with the delays of a LAN.
    #[must_use]
    pub fn healthy(&self) -> Self {
        Self {
            delay_ns: self.delay_ns.min(MS / 5),
            jitter_ns: self.jitter_ns.min(MS / 10),
            loss: Chance::NEVER,
            burst: Chance::NEVER,
            duplicate: Chance::NEVER,
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
    /// When it arrives.
    pub at: u64,
    /// Seed of its damage, if it is damaged.
    pub damage: Option<u64>,
    /// Seed of its padding, if the link pads short frames.
    pub pad: Option<u64>,
}

/// Counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Frames lost individually.
    pub lost: u64,
    /// Frames lost in bursts.
    pub lost_in_bursts: u64,
    /// Frames sent while the link was cut.
    pub cut: u64,
    /// Frames lost because the queue was full.
    pub overflowed: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Copies delayed so that later frames may overtake them.
    pub reordered: u64,
    /// Stalls begun.
    pub stalls: u64,
    /// Damaged copies.
    pub damaged: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    options: LinkOptions,
    rng: Rng,
    cut: bool,
    /// When the last offered frame has left the queue.
    busy_until: u64,
    lossy_until: u64,
    stalled_until: u64,
    /// When the latest frame that is not reordered arrives, and when the latest of all does.
    in_order_at: u64,
    latest_at: u64,
    counts: LinkCounts,
}

impl Link {
    /// Creates a link that is not cut.
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

    /// The link's counters.
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Cuts the link, so that all frames offered from now on are lost, or restores it.
    pub fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Ends all faults. Frames in transit arrive as planned, and later frames may overtake them.
    pub fn heal(&mut self) {
        self.options = self.options.healthy();
        self.cut = false;
        (self.lossy_until, self.stalled_until) = (0, 0);
        (self.busy_until, self.in_order_at) = (0, 0);
    }

    /// When the last frame in transit arrives.
    pub fn empty_at(&self) -> u64 {
        self.latest_at
    }

    /// When the queue has at most `bytes` left, if no more frames are offered. A driver that limits its
    /// backlog waits until then before it sends its next frame.
    pub fn drained_at(&self, now: u64, bytes: u64) -> u64 {
        let Some(rate) = self.options.bytes_per_ms else { return now };
        self.busy_until.saturating_sub(bytes * MS / rate).max(now)
    }

    /// Number of bytes in the transmit queue.
    pub fn unsent_bytes(&self, now: u64) -> u64 {
        let rate = self.options.bytes_per_ms.unwrap_or(0);
        self.busy_until.saturating_sub(now) * rate / MS
    }

    /// Sends a frame of `bytes` bytes, and adds the copies that will arrive to `deliveries`.
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
        while self.rng.chance(self.options.duplicate) {
            self.counts.duplicated += 1;
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

    /// The deliveries of 1000 frames, sent one per microsecond.
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
    fn each_fault_happens_when_configured() {
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
        let (arrived, counts) = faulty(LinkOptions { duplicate: often, ..sound() });
        assert!(counts.duplicated > 50 && arrived.len() == 1000 + counts.duplicated as usize);
        let (arrived, counts) = faulty(LinkOptions { reorder: often, ..sound() });
        assert!(counts.reordered > 50 && !arrived.is_sorted_by_key(|delivery| delivery.at));
        let (_, counts) = faulty(LinkOptions { stall: often, ..sound() });
        assert!(counts.stalls > 50);
        let (arrived, counts) = faulty(LinkOptions { damage: often, ..sound() });
        assert!(counts.damaged > 50 && arrived.iter().any(|delivery| delivery.damage.is_some()));
    }

    #[test]
    fn slow_link_queues_frames_then_drops_them() {
        let rate = Some(1000);
        let mut link = link(LinkOptions { bytes_per_ms: rate, queue_bytes_max: 20_000, ..sound() });
        let deliveries = thousand(&mut link);
        let LinkCounts { overflowed, .. } = link.counts();
        assert_eq!(deliveries.len() + overflowed as usize, 1000);
        assert!((970..985).contains(&overflowed), "{overflowed}");
        assert!(link.drained_at(MS, 0) > 20 * MS && link.drained_at(MS, 1 << 20) == MS);
    }

    #[test]
    fn cut_link_delivers_nothing_until_it_heals() {
        let mut link = link(LinkOptions { loss: Chance::percent(100), ..sound() });
        link.set_cut(true);
        assert!(thousand(&mut link).is_empty() && link.is_cut());
        link.heal();
        assert_eq!((thousand(&mut link).len(), link.counts().cut), (1000, 1000));
    }
}
