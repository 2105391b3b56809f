//! [`Wire`]: moves frames between a packet port and a [`Transport`].

use super::LinkReport;
use super::error::LinkError;
use crate::kvm::clock;
use logchan::channel::Channel;
use logchan::endpoint::{Endpoint, EndpointVerdict};
use logchan::frame::FrameKind;
use logchan::handshake::LinkStats;
use logchan::ids::Lane;
use logchan::limits::IN_FLIGHT_FRAMES_BOTH;
use logchan::time::{self, Time};
use netpath::{
    FRAME_MAX, FRAME_MIN, FramePort, LinkState, MacAddr, Mark, PacketConfig, PacketPort, PortError,
    ReceivePath, WaitPolicy, Wake,
};
use replication::replica::Replica;
use std::time::Duration;

// The receive ring holds all frames that can be in flight, plus 32 that carry no lane. So a peer that is
// stopped for a while loses no frame.
const _: () = assert!(IN_FLIGHT_FRAMES_BOTH + 32 <= netpath::RECEIVE_FRAMES);

/// Size of an Ethernet header, bytes.
const HEADER_BYTES: usize = FRAME_MIN;

/// Position of the source address in the Ethernet header.
const SOURCE: std::ops::Range<usize> = 6..12;

/// Frames received before this host sends again: a flood must not keep it from answering.
const FRAMES_PER_RECEIVE: usize = 64;

/// Bulk frames given to the kernel per transmit. More of them would save system calls (each costs about as
/// much as half a frame), but every one of them is queued in front of log that is appended meanwhile.
const BULK_FRAMES_PER_TRANSMIT: u64 = 4;

/// Unsent bytes in the kernel, by its own accounting, from which on no bulk frames are added: five full
/// frames. The bulk frames of one transmit may come on top. A log entry waits for these bytes, some 100 us
/// on a link of 1 Gbit/s. With fewer, a NIC that reports completions only now and then could run idle.
pub const UNSENT_BYTES_MAX: u32 = 12 << 10;

/// Interval at which a wait ends to check the kernel's queue while bulk frames are held back: the time in
/// which 1 Gbit/s sends two full frames.
const UNSENT_POLL_INTERVAL: time::Duration = time::Duration::from_micros(20);

/// Options of a wire.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Name of the interface.
    pub interface: String,
    /// MAC address of the other host's interface.
    pub peer: MacAddr,
    /// How to wait for frames.
    pub wait: WaitPolicy,
    /// How to receive frames.
    pub receive: ReceivePath,
}

/// Sends and receives frames over a wire.
pub trait Transport {
    /// Handles a frame without its Ethernet header. Returns whether it proves that the peer is alive.
    fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> bool;
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

impl Transport for Endpoint {
    fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> bool {
        Endpoint::handle_frame(self, now, frame).is_sign_of_life()
    }

    fn heard_by(&mut self, now: Time) {
        Endpoint::heard_by(self, now);
    }

    fn handle_timeout(&mut self, now: Time) {
        Endpoint::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        Endpoint::poll_timeout(self)
    }

    fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        Endpoint::poll_transmit(self, now, out)
    }

    fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        Endpoint::poll_transmit_log(self, now, out)
    }

    fn channel(&self) -> Option<&Channel> {
        Endpoint::channel(self)
    }
}

impl Transport for Replica {
    fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> bool {
        Replica::handle_frame(self, now, frame).is_some_and(EndpointVerdict::is_sign_of_life)
    }

    fn heard_by(&mut self, now: Time) {
        Replica::heard_by(self, now);
    }

    fn handle_timeout(&mut self, now: Time) {
        Replica::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        Replica::poll_timeout(self)
    }

    fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        Replica::poll_transmit(self, now, out)
    }

    fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        Replica::poll_transmit_log(self, now, out)
    }

    fn channel(&self) -> Option<&Channel> {
        Replica::channel(self)
    }
}

/// A packet port to one peer. One thread owns it.
pub struct Wire {
    port: PacketPort,
    peer: MacAddr,
    other_senders: u64,
    /// A time shortly before the last wait saw a frame. Known without reading the clock, if the wait was
    /// spinning when it saw the frame.
    seen_at: Option<Time>,
    /// Frames were handled with such a time, and [`Transport::heard_by`] was not called since.
    unconfirmed: bool,
    /// Bulk frames are held back because the kernel has too many unsent bytes.
    bulk_held: bool,
    /// Buffer for an outgoing frame, with its Ethernet header in front.
    frame: Box<[u8; FRAME_MAX]>,
}

impl Wire {
    /// Opens the interface.
    ///
    /// # Errors
    ///
    /// The interface can't be used, or the peer's address is its own.
    pub fn open(options: &LinkOptions) -> Result<Wire, LinkError> {
        let LinkOptions { interface, peer, wait, receive } = options.clone();
        let port = PacketPort::open(&PacketConfig { interface, receive, wait })?;
        if port.mac() == peer {
            let interface = options.interface.clone();
            return Err(LinkError::OwnAddress { interface, mac: peer });
        }
        Ok(Wire {
            port,
            peer,
            other_senders: 0,
            seen_at: None,
            unconfirmed: false,
            bulk_held: false,
            frame: Box::new([0; FRAME_MAX]),
        })
    }

    /// Returns the largest payload of an Ethernet frame, bytes.
    pub fn frame_bytes_max(&self) -> usize {
        (self.port.mtu_bytes() as usize).min(FRAME_MAX - HEADER_BYTES)
    }

    /// Handles the frames that have arrived, and then timeouts that are due. Returns whether more frames are
    /// there. In that case call again: timeouts are handled only after all frames were seen.
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
    pub fn receive(&mut self, transport: &mut impl Transport) -> Result<bool, PortError> {
        let arrived = self.port.arrived(FRAMES_PER_RECEIVE)?;
        let time = transport.channel().map_or(Time::default(), Channel::time);
        let seen_at = self.seen_at.take().filter(|seen_at| *seen_at >= time);
        // The clock is read after the frames have arrived: no frame may seem to arrive before it was sent.
        let now = seen_at.unwrap_or_else(now);
        if seen_at.is_none() {
            self.confirm_heard(transport, now);
        }
        if let Some(mark) = arrived {
            self.handle_frames(transport, now, mark)?;
        }
        self.unconfirmed &= seen_at.is_some();
        let more = arrived.is_some() && self.port.has_frame();
        // Timeouts come after the frames: a host that was stopped must first see that the peer is alive.
        if !more && transport.poll_timeout().is_some_and(|timeout| timeout <= now) {
            transport.handle_timeout(now);
        }
        Ok(more)
    }

    fn handle_frames(
        &mut self,
        transport: &mut impl Transport,
        now: Time,
        mark: Mark,
    ) -> Result<(), PortError> {
        let peer = self.peer.octets();
        loop {
            let Wire { port, other_senders, unconfirmed, .. } = self;
            let taken = port.receive_until(mark, |frame| {
                if frame[SOURCE] == peer {
                    *unconfirmed |= transport.handle_frame(now, &mut frame[HEADER_BYTES..]);
                } else {
                    *other_senders += 1;
                }
            })?;
            if taken.is_none() {
                return Ok(());
            }
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
        if std::mem::take(&mut self.unconfirmed) {
            transport.heard_by(now);
        }
    }

    /// Gives the kernel all of the log to send, and a few bulk frames at most. Returns whether bulk frames
    /// are left that could be sent.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn transmit(&mut self, transport: &mut impl Transport) -> Result<bool, PortError> {
        let now = now();
        self.confirm_heard(transport, now);
        self.transmit_at(transport, now)
    }

    /// Does the same as [`transmit`](Self::transmit), with the caller's clock reading. It must not be earlier
    /// than any time that the channel was given. An old reading only shortens the lease.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn transmit_at(
        &mut self,
        transport: &mut impl Transport,
        now: Time,
    ) -> Result<bool, PortError> {
        self.bulk_held =
            has_bulk_to_send(transport) && self.port.unsent_bytes()? >= UNSENT_BYTES_MAX;
        let bulk_until = match self.bulk_held {
            true => bulk_frames(transport),
            false => bulk_frames(transport) + BULK_FRAMES_PER_TRANSMIT,
        };
        loop {
            let out = &mut self.frame[HEADER_BYTES..];
            let length = match bulk_frames(transport) < bulk_until {
                true => transport.poll_transmit(now, out),
                false => transport.poll_transmit_log(now, out),
            };
            let Some(length) = length else { break };
            let header = self.port.header_to(self.peer);
            self.frame[..HEADER_BYTES].copy_from_slice(&header);
            self.port.send(&self.frame[..HEADER_BYTES + length])?;
        }
        self.port.flush()?;
        Ok(has_bulk_to_send(transport) && !self.bulk_held)
    }

    /// Returns when a wait must end for this wire or for `transport`. `now` is the caller's clock reading.
    pub fn due(&self, transport: &impl Transport, now: Time) -> Option<Time> {
        let queue_poll = self.bulk_held.then(|| now + UNSENT_POLL_INTERVAL);
        transport.poll_timeout().into_iter().chain(queue_poll).min()
    }

    /// Waits until a frame arrives, `transport` has a timeout, a signal arrives, or `until` has come.
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn wait(
        &mut self,
        transport: &mut impl Transport,
        until: Option<Time>,
    ) -> Result<Wake, PortError> {
        let now = now();
        self.confirm_heard(transport, now);
        let due = self.due(transport, now).into_iter().chain(until).min();
        let wake =
            self.port.wait(due.map(|due| Duration::from_nanos(due.since(now).as_nanos())))?;
        let looked = self.port.looked().map(|looked| looked.as_nanos() as u64);
        self.seen_at = looked.map(|looked| now + time::Duration::from_nanos(looked));
        Ok(wake)
    }

    /// Returns the MAC address of the other host's interface.
    pub fn peer(&self) -> MacAddr {
        self.peer
    }

    /// Returns the number of frames to this host from other stations than the peer.
    pub fn other_senders(&self) -> u64 {
        self.other_senders
    }

    /// Returns the counters of this wire, together with `link`, the transport's counters. Costs one or two
    /// system calls.
    pub fn report(&mut self, link: LinkStats) -> LinkReport {
        LinkReport {
            port: self.port.stats(),
            link,
            other_senders: self.other_senders,
            is_down: self.port.check_link() != LinkState::Up,
        }
    }

    /// Returns the port.
    pub fn port(&self) -> &PacketPort {
        &self.port
    }

    /// Returns the port, to wait on it and to read its counters.
    pub fn port_mut(&mut self) -> &mut PacketPort {
        &mut self.port
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

/// Reads the channel's clock, CLOCK_BOOTTIME. It runs while the host is suspended: the lease must end during
/// that time, too.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime_ns())
}
