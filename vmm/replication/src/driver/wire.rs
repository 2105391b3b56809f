//! [`Wire`]: moves frames between a link port and a [`Transport`].

use super::host::{Clock, Heard, LINK_HEADER_BYTES, LinkPort};
use crate::limits::BULK_BACKLOG_BYTES_MAX;
use crate::limits::BULK_FRAMES_PER_TRANSMIT;
use crate::limits::FRAME_MAX;
use crate::limits::FRAMES_PER_RECEIVE;
use crate::limits::RECEIVE_PAUSE_MAX;
use crate::mutant::{DriverMutant, Mutants};
use crate::replica::Replica;
use alloc::boxed::Box;
use logchan::channel::Channel;
use logchan::endpoint::{Endpoint, EndpointVerdict};
use logchan::frame::FrameKind;
use logchan::handshake::Proof;
use logchan::ids::Lane;
use logchan::time::{Duration, Time};

/// Interval at which a wait ends to check the kernel's queue while bulk frames are held back: the time in
/// which 1 Gbit/s sends two full frames.
const BACKLOG_POLL_INTERVAL: Duration = Duration::from_micros(20);

/// A peer counts as not heard recently after this share of the silence timeout: more than two heartbeats, and early enough to correct it.
const UNHEARD_SHARE: u64 = 4;

/// Sends and receives frames over a wire.
pub trait Transport {
    /// Handles a frame without its Ethernet header. Returns what became of it; `None` if there is no endpoint.
    fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> Option<EndpointVerdict>;
    /// The frames that were handled before had arrived by `now`: [`Channel::heard_by`].
    fn heard_by(&mut self, now: Time);
    /// Handles everything that is due at `now`.
    fn handle_timeout(&mut self, now: Time);
    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called next.
    fn poll_timeout(&self) -> Option<Time>;
    /// Writes the next frame to the front of `out` and returns its length.
    fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize>;
    /// Does the same as [`poll_transmit`](Self::poll_transmit), but writes no bulk frames.
    fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize>;
    /// Returns the channel, which knows the kinds of the frames that it sent.
    fn channel(&self) -> Option<&Channel>;
}

macro_rules! transport {
    ($of:ty, $verdict:expr) => {
        impl Transport for $of {
            fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> Option<EndpointVerdict> {
                $verdict(<$of>::handle_frame(self, now, frame))
            }

            fn heard_by(&mut self, now: Time) {
                <$of>::heard_by(self, now);
            }

            fn handle_timeout(&mut self, now: Time) {
                <$of>::handle_timeout(self, now);
            }

            fn poll_timeout(&self) -> Option<Time> {
                <$of>::poll_timeout(self)
            }

            fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
                <$of>::poll_transmit(self, now, out)
            }

            fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
                <$of>::poll_transmit_log(self, now, out)
            }

            fn channel(&self) -> Option<&Channel> {
                <$of>::channel(self)
            }
        }
    };
}

transport!(Endpoint, Some);
transport!(Replica, core::convert::identity);

/// Frames that had arrived at some time, and that are handled before timeouts.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    since: Time,
    handled: usize,
    /// When some of them were handled last.
    last: Time,
}

/// A link port with the rules of the logging channel: what is sent when, and which clock reading a frame is
/// handled with. One thread owns it.
pub struct Wire<P> {
    port: P,
    /// A time shortly before the last wait saw a frame. Known without reading the clock, if the wait was
    /// spinning when it saw the frame.
    seen_at: Option<Time>,
    /// Frames were handled with such a time, and [`Transport::heard_by`] was not called since.
    unconfirmed: bool,
    /// Frames keep coming: when that was seen first, and how many were handled since.
    backlog: Option<Backlog>,
    /// Bulk frames are held back because the kernel has too many unsent bytes.
    bulk_held: bool,
    /// Buffer for an outgoing frame, with the port's header in front.
    frame: Box<[u8; FRAME_MAX]>,
    mutants: Mutants,
}

impl<P: LinkPort> Wire<P> {
    /// Creates the wire on `port`.
    pub fn new(port: P, mutants: Mutants) -> Wire<P> {
        Wire {
            port,
            seen_at: None,
            unconfirmed: false,
            backlog: None,
            bulk_held: false,
            frame: Box::new([0; FRAME_MAX]),
            mutants,
        }
    }

    /// Handles frames that have arrived, and then timeouts that are due. Returns whether more frames are there.
    /// In that case call again.
    ///
    /// Timeouts come after all frames that had arrived when they became due: a host that was stopped must first see
    /// that the peer is alive. They do not wait for frames that arrive later: whoever can send frames faster than
    /// they are handled must not keep this host from sending heartbeats.
    ///
    /// Received log is acknowledged at once, because the peer holds outputs until then, and the caller may
    /// have long work to do.
    ///
    /// After a [wait](Self::wait) that saw a frame while it was spinning, this reads no clock: see
    /// `confirm_heard`.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn receive(
        &mut self,
        clock: &impl Clock,
        transport: &mut impl Transport,
    ) -> Result<bool, P::Error> {
        let arrived = self.port.arrived(FRAMES_PER_RECEIVE)?;
        let time = transport.channel().map_or(Time::default(), Channel::time);
        let seen_at = self.seen_at.take().filter(|seen_at| *seen_at >= time);
        // The clock is read after the frames have arrived: no frame may seem to arrive before it was sent.
        let now = seen_at.unwrap_or_else(|| clock.now());
        if seen_at.is_none() {
            self.confirm_heard(transport, now);
        }
        let handled = match arrived {
            Some(mark) => self.handle_frames(transport, now, mark)?,
            None => 0,
        };
        self.unconfirmed &= seen_at.is_some();
        let more = arrived.is_some() && self.port.has_frame();
        let seen_until = if more { self.handled_of_backlog(now, handled) } else { Some(now) };
        if let Some(seen_until) = seen_until {
            self.backlog = None;
            if transport.poll_timeout().is_some_and(|timeout| timeout <= seen_until) {
                transport.handle_timeout(now);
            }
        }
        Ok(more)
    }

    /// Of the frames that wait, `handled` more were handled. Returns a time up to which all frames that had arrived by
    /// then were handled, if there is a recent one.
    fn handled_of_backlog(&mut self, now: Time, handled: usize) -> Option<Time> {
        // After a pause, frames from before `now` wait again.
        let recent = self.backlog.filter(|backlog| now.since(backlog.last) <= RECEIVE_PAUSE_MAX);
        let backlog = recent.unwrap_or(Backlog { since: now, handled: 0, last: now });
        let backlog = Backlog { handled: backlog.handled + handled, last: now, ..backlog };
        self.backlog = Some(backlog);
        (backlog.handled >= self.port.frames_waiting_max()).then_some(backlog.since)
    }

    /// Handles the frames up to `mark`. Returns how many there were.
    fn handle_frames(
        &mut self,
        transport: &mut impl Transport,
        now: Time,
        mark: P::Mark,
    ) -> Result<usize, P::Error> {
        let mut handled = 0;
        loop {
            let Wire { port, unconfirmed, .. } = self;
            let taken = port.receive_until(mark, |frame| {
                let verdict = transport.handle_frame(now, frame);
                *unconfirmed |= verdict.is_some_and(EndpointVerdict::is_sign_of_life);
                verdict.map_or(Proof::Nothing, EndpointVerdict::proof)
            })?;
            if !taken {
                return Ok(handled);
            }
            handled += 1;
            if transport.channel().is_some_and(Channel::owes_log_ack) {
                self.transmit_at(transport, now)?;
            }
        }
    }

    /// Confirms that frames which were handled with an earlier clock reading had arrived by `now`, a fresh
    /// reading. The backup's silence timeout runs from `now`: run from the earlier time, it could end
    /// before the primary's lease, which begins when the frame is sent. Nothing checks the silence timeout
    /// between `receive` and this call.
    fn confirm_heard(&mut self, transport: &mut impl Transport, now: Time) {
        if core::mem::take(&mut self.unconfirmed) {
            transport.heard_by(now);
        }
    }

    /// Gives the kernel all of the log to send, and a few bulk frames at most. Returns its clock reading.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn transmit(
        &mut self,
        clock: &impl Clock,
        transport: &mut impl Transport,
    ) -> Result<Time, P::Error> {
        let now = clock.now();
        self.confirm_heard(transport, now);
        self.transmit_at(transport, now)?;
        Ok(now)
    }

    /// Does the same as [`transmit`](Self::transmit), with the caller's clock reading. It must not be earlier
    /// than any time that the channel was given. An old reading only shortens the lease. Returns whether bulk frames
    /// are left that could be sent.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn transmit_at(
        &mut self,
        transport: &mut impl Transport,
        now: Time,
    ) -> Result<bool, P::Error> {
        self.port.set_heard(heard(transport, now));
        self.bulk_held = self.must_hold_bulk(transport)?;
        let bulk_until = match self.bulk_held {
            true => bulk_frames(transport),
            false => bulk_frames(transport) + BULK_FRAMES_PER_TRANSMIT,
        };
        loop {
            let out = &mut self.frame[LINK_HEADER_BYTES..];
            let length = match bulk_frames(transport) < bulk_until {
                true => transport.poll_transmit(now, out),
                false => transport.poll_transmit_log(now, out),
            };
            let Some(length) = length else { break };
            self.port.send(&mut self.frame[..LINK_HEADER_BYTES + length])?;
        }
        self.port.flush()?;
        Ok(self.has_bulk_to_give(transport))
    }

    /// Returns whether more bulk frames would delay the log, because of the unsent bytes in the kernel.
    fn must_hold_bulk(&mut self, transport: &impl Transport) -> Result<bool, P::Error> {
        Ok(has_bulk_to_send(transport)
            && self.port.unsent_bytes()? >= BULK_BACKLOG_BYTES_MAX
            && !self.mutants.has_driver(DriverMutant::BulkBeforeLatency))
    }

    /// Returns whether another [`transmit`](Self::transmit) would give bulk frames to the kernel.
    pub fn has_bulk_to_give(&self, transport: &impl Transport) -> bool {
        has_bulk_to_send(transport) && !self.bulk_held
    }

    /// Returns when a wait must end for this wire or for `transport`. `now` is the caller's clock reading.
    pub fn due(&self, transport: &impl Transport, now: Time) -> Option<Time> {
        let queue_poll = self.bulk_held.then(|| now + BACKLOG_POLL_INTERVAL);
        transport.poll_timeout().into_iter().chain(queue_poll).min()
    }

    /// Waits until a frame arrives, `transport` has a timeout, a signal arrives, or `until` has come.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn wait(
        &mut self,
        clock: &impl Clock,
        transport: &mut impl Transport,
        until: Option<Time>,
    ) -> Result<(), P::Error> {
        let now = clock.now();
        self.confirm_heard(transport, now);
        let due = self.due(transport, now).into_iter().chain(until).min();
        self.port.wait(due.map(|due| due.since(now)))?;
        self.seen_at = self.port.looked().map(|looked| now + looked);
        Ok(())
    }

    /// Returns the port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// Returns the port, to wait on it and to read its counters.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }
}

/// Returns when the peer was heard.
fn heard(transport: &impl Transport, now: Time) -> Heard {
    let Some(channel) = transport.channel() else { return Heard::Never };
    let silence = channel.config().timing.silence;
    match now.since(channel.heard_at()) * UNHEARD_SHARE > silence {
        true => Heard::NotRecently,
        false => Heard::Recently,
    }
}

/// Returns whether the channel has bulk to send.
fn has_bulk_to_send(transport: &impl Transport) -> bool {
    transport.channel().is_some_and(|channel| channel.wants_to_send(Lane::Bulk))
}

/// Returns the number of bulk frames sent so far.
fn bulk_frames(transport: &impl Transport) -> u64 {
    transport.channel().map_or(0, |channel| channel.stats().sent(FrameKind::Bulk))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
