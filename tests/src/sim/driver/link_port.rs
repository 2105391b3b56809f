//! [`SimLink`]: the port of the log link.

use std::rc::Rc;

use logchan::frame::{FRAME_MAGIC, FrameHeader, FrameKind};
use logchan::handshake::Proof;
use logchan::ids::{Lane, Role};
use logchan::time::Duration;
use replication::driver::{LINK_HEADER_BYTES, LinkPort};

use super::count::Count;
use super::faults::CrashPoint;
use super::host::Arrival;
use super::sim_host::TapFailed;
use super::state::{Event, State, other};
use super::thread::{Thread, WakeBy};
use crate::sim::damage::{damage, pad};
use crate::sim::rng::Rng;
use crate::sim::{MS, US};

/// Longest time that a wait without a timeout sleeps at a time.
const WAIT_NS_MAX: u64 = 1000 * MS;

/// Longest time from a spinning wait's last clock reading until it sees a frame.
const LOOK_NS_MAX: u64 = 30 * US;

/// See the [module](self).
pub(super) struct SimLink<'t> {
    thread: Thread<'t>,
    /// Frames that were queued and not flushed.
    unflushed: Vec<Rc<[u8]>>,
    looked: Option<Duration>,
    buffer: Vec<u8>,
}

/// The time that a spin may still take, in true time.
pub(super) struct Spin {
    left_ns: u64,
}

/// Returns the header and the payload of a frame of the log. It is not encrypted in these runs.
pub(super) fn log_frame(frame: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let at = frame.windows(4).take(64).position(|window| window == FRAME_MAGIC)?;
    FrameHeader::decode(&frame[at..]).ok()
}

impl<'t> SimLink<'t> {
    /// Creates the port of a process.
    pub(super) fn new(thread: Thread<'t>) -> Self {
        Self { thread, unflushed: Vec::new(), looked: None, buffer: Vec::new() }
    }

    /// Waits for what `by` says, for at most `timeout`. May return early.
    pub(super) fn wait_for(&mut self, timeout: Option<Duration>, by: WakeBy) {
        let thread = &self.thread;
        self.looked = None;
        let until = thread.with(|state| state.queue.now()) + WAIT_NS_MAX;
        let until = timeout.map_or(until, |timeout| thread.in_true_time(timeout).min(until));
        thread.check(thread.with(|state| state.check_tap_is_heard(thread.host, by)));
        let began = thread.now();
        // A kick that comes before the thread sleeps is lost; a frame is not.
        thread.sleep(0);
        let (slept_from, until) = thread.with(|state| {
            let now = state.queue.now();
            let own = &mut state.hosts[thread.host];
            let is_ready = by.link && !own.ring.is_empty() || by.tap && !own.tap_queue.is_empty();
            let early = own.options.early;
            let returns_early = own.rng.chance(early) && until > now;
            let until = if returns_early { now + own.rng.below(until - now) } else { until };
            (now, if is_ready { now } else { until })
        });
        if until > slept_from {
            thread.sleep_until(until, by);
        }
        let (now, spin_ns, has_frame) = thread.with(|state| {
            let own = &state.hosts[thread.host];
            (state.queue.now(), own.options.spin_ns, !own.ring.is_empty())
        });
        if has_frame && now - slept_from < spin_ns {
            let passed = thread.now().since(began).as_nanos();
            let stale_ns = thread.with(|state| {
                let rng = &mut state.hosts[thread.host].rng;
                rng.below(LOOK_NS_MAX)
            });
            self.looked = Some(Duration::from_nanos(passed.saturating_sub(stale_ns)));
        }
    }
}

impl LinkPort for SimLink<'_> {
    type Error = TapFailed;
    type Mark = u64;
    type Spin = Spin;

    fn arrived(&mut self, frames_max: usize) -> Result<Option<u64>, TapFailed> {
        Ok(self.thread.with(|state| {
            let own = &state.hosts[self.thread.host];
            let count = own.ring.len().min(frames_max) as u64;
            (count > 0).then_some(own.taken + count)
        }))
    }

    fn receive_until(
        &mut self,
        mark: u64,
        handle: impl FnOnce(&mut [u8]) -> Proof,
    ) -> Result<bool, TapFailed> {
        let arrival = self.thread.with(|state| {
            let own = &mut state.hosts[self.thread.host];
            if own.taken >= mark {
                return None;
            }
            let arrival = own.ring.pop_front()?;
            own.taken += 1;
            own.debt_ns += own.options.frame_ns;
            Some(arrival)
        });
        let Some(Arrival { frame, damage: damaged, pad: padded, ends }) = arrival else {
            return Ok(false);
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&frame);
        if let Some(seed) = padded {
            pad(&mut self.buffer, &mut Rng::new(seed));
        }
        if let Some(seed) = damaged {
            damage(&mut self.buffer, &mut Rng::new(seed));
        }
        // A frame that only became longer is whole: its length is in its header.
        if self.buffer.starts_with(&frame) {
            self.thread.with(|state| {
                state.note_received(&frame);
                if let Some(session) = ends {
                    state.notice_received(self.thread.host, session);
                }
            });
        }
        let _proof = handle(&mut self.buffer);
        Ok(true)
    }

    fn is_cut_off(&self) -> bool {
        self.thread.with(|state| state.links[self.thread.host].is_cut())
    }

    fn has_frame(&self) -> bool {
        self.thread.with(|state| !state.hosts[self.thread.host].ring.is_empty())
    }

    fn frames_waiting_max(&self) -> usize {
        self.thread.with(|state| state.hosts[self.thread.host].options.ring_frames_max)
    }

    fn send(&mut self, frame: &mut [u8]) -> Result<(), TapFailed> {
        self.unflushed.push(frame[LINK_HEADER_BYTES..].into());
        let takes_ns = self.thread.with(|state| state.hosts[self.thread.host].options.frame_ns);
        self.thread.spend(takes_ns);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TapFailed> {
        if self.unflushed.is_empty() {
            return Ok(());
        }
        let thread = &self.thread;
        let takes_ns = thread.with(|state| state.hosts[thread.host].options.call_ns);
        thread.spend(takes_ns);
        thread.with(|state| state.freeze_in_flush(thread.host));
        thread.sleep(0);
        for frame in self.unflushed.drain(..) {
            thread.check(thread.with(|state| state.send_log_frame(thread.host, &frame)));
        }
        thread.reach(CrashPoint::LogSent);
        Ok(())
    }

    fn unsent_bytes(&mut self) -> Result<u32, TapFailed> {
        let host = self.thread.host;
        let takes_ns = self.thread.with(|state| state.hosts[host].options.call_ns);
        self.thread.spend(takes_ns);
        Ok(self.thread.with(|state| state.links[host].unsent_bytes(state.queue.now())) as u32)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), TapFailed> {
        self.wait_for(timeout, WakeBy { link: true, tap: false, kick: true });
        Ok(())
    }

    fn looked(&self) -> Option<Duration> {
        self.looked
    }

    fn begin_spin(&self, span: Duration) -> Spin {
        Spin { left_ns: span.as_nanos() }
    }

    fn spin(&mut self, spin: &mut Spin) -> bool {
        let thread = &self.thread;
        thread.sleep(0);
        let began = thread.with(|state| state.queue.now());
        if !self.has_frame() && spin.left_ns > 0 {
            let by = WakeBy { link: true, ..WakeBy::TIME };
            thread.sleep_until(began + spin.left_ns, by);
            let passed_ns = thread.with(|state| state.queue.now()) - began;
            spin.left_ns = spin.left_ns.saturating_sub(passed_ns);
        }
        self.has_frame()
    }
}

impl State {
    /// Sends a frame from `host` on the log link.
    fn send_log_frame(&mut self, host: usize, frame: &Rc<[u8]>) -> crate::sim::Checked {
        let now = self.queue.now();
        self.counts.count(Count::LogFrames);
        let kind = log_frame(frame).map(|(header, payload)| {
            if let (FrameKind::Latency, Role::Primary) = (header.kind, header.role) {
                let end = header.offset + payload.len() as u64;
                self.note_log_sent(host, header.session.0, end);
            }
            header.kind
        });
        let checked = match kind {
            Some(FrameKind::Latency) => self.check_log_delay(host),
            Some(FrameKind::Bulk | FrameKind::Ack | FrameKind::Heartbeat | FrameKind::Bye)
            | None => Ok(()),
        };
        let left_before = self.links[host].drained_at(now, 0);
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.links[host].offer(now, frame.len(), &mut deliveries);
        let left_at = self.links[host].drained_at(now, 0);
        if kind == Some(FrameKind::Bulk) && left_at > left_before {
            self.hosts[host].bulk_queue.push_back((left_at, frame.len() as u64));
        }
        for delivery in deliveries.drain(..) {
            let (damage, pad) = (delivery.damage, delivery.pad);
            let arrival = Arrival { frame: Rc::clone(frame), damage, pad, ends: None };
            self.queue.push(delivery.at, Event::Arrive { to: other(host), arrival });
        }
        self.deliveries = deliveries;
        checked
    }

    /// A frame of the log link reaches `host`.
    pub(super) fn frame_arrives(&mut self, host: usize, arrival: Arrival) {
        let own = &mut self.hosts[host];
        if own.process.is_some() && own.ring.len() < own.options.ring_frames_max {
            own.ring.push_back(arrival);
            self.wake(host, |by| by.link);
        }
    }

    /// A process takes a whole frame out of its ring.
    fn note_received(&mut self, frame: &[u8]) {
        if let Some((header, payload)) = log_frame(frame)
            && header.kind.lane() == Some(Lane::Latency)
            && header.role == Role::Primary
        {
            self.log.receive(header.session.0, header.offset, payload.len() as u64);
        }
    }
}
