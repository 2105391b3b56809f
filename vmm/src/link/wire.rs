//! [`Wire`]: frames between a packet port and whoever makes and takes them.

use super::LinkReport;
use super::error::LinkError;
use crate::kvm::clock;
use crate::replica::Replica;
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
use std::time::Duration;

// A peer that does not run for a while loses nothing, with room for frames that carry no lane.
const _: () = assert!(IN_FLIGHT_FRAMES_BOTH + 32 <= netpath::RECEIVE_FRAMES);

/// Bytes of an Ethernet header.
const HEADER_BYTES: usize = FRAME_MIN;

/// Where the source address is in it.
const SOURCE: std::ops::Range<usize> = 6..12;

/// Frames taken in before something is sent: a flood must not keep us from answering.
const FRAMES_PER_TURN: usize = 64;

/// Bulk frames handed to the kernel in one go. More of them save system calls (each costs about as
/// much as half a frame); all of them are in front of whatever is appended meanwhile.
const BULK_FRAMES_PER_TURN: u64 = 4;

/// Bytes below us, as the kernel accounts for them, from which on no bulk is added: five full frames, and
/// there may be a turn's more. A log entry waits for them, some 100 us on a link of 1 Gbit/s. Fewer would
/// let a NIC run dry that reports what it has sent only now and then.
pub const UNSENT_BYTES_MAX: u32 = 12 << 10;

/// How soon a wait should end to look whether the queue below has run low: within the time in which
/// 1 Gbit/s sends two full frames.
const UNSENT_LOOK_EVERY: time::Duration = time::Duration::from_micros(20);

/// Which wire, and who is at its other end.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The interface.
    pub interface: String,
    /// The address of the other host's interface.
    pub peer: MacAddr,
    /// How to wait for frames.
    pub wait: WaitPolicy,
    /// How to receive.
    pub receive: ReceivePath,
}

/// Who sends and receives over a wire.
pub trait Transport {
    /// Takes in a frame, its Ethernet header removed; whether it was a sign of the peer's life.
    fn handle_frame(&mut self, now: Time, frame: &mut [u8]) -> bool;
    /// The signs of life that were handled before were there at `now`: [`Channel::heard_by`].
    fn heard_by(&mut self, now: Time);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Time);
    /// When something is due next.
    fn poll_timeout(&self) -> Option<Time>;
    /// Writes the next frame to the front of `out`; its length.
    fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize>;
    /// The same without bulk.
    fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize>;
    /// The channel, which knows what kind of frames it sent.
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
    /// A time just before the last wait saw a frame, if nobody had to read the clock for it.
    seen_at: Option<Time>,
    /// Frames were handled with such a time.
    unconfirmed: bool,
    /// There is bulk to send, and too much of it below us already.
    bulk_held: bool,
    /// A frame is made here: its Ethernet header stays in front.
    frame: Box<[u8; FRAME_MAX]>,
}

impl Wire {
    /// Opens the interface.
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

    /// Bytes that a frame may have behind its Ethernet header.
    pub fn frame_bytes_max(&self) -> usize {
        (self.port.mtu_bytes() as usize).min(FRAME_MAX - HEADER_BYTES)
    }

    /// Takes in what arrived and does what is due. Log that arrived is acknowledged at once: the peer
    /// holds an output for that, and the caller may have long work to do. Whether more frames are there:
    /// then come again, and nothing is called late before they were seen.
    ///
    /// After a [wait](Self::wait) that saw a frame while it looked, this reads no clock: see `confirm`.
    pub fn receive(&mut self, transport: &mut impl Transport) -> Result<bool, PortError> {
        let arrived = self.port.arrived(FRAMES_PER_TURN)?;
        let time = transport.channel().map_or(Time::default(), Channel::time);
        let seen_at = self.seen_at.take().filter(|seen_at| *seen_at >= time);
        // Read when the frames are there: none of them seems to have come before it was sent.
        let now = seen_at.unwrap_or_else(now);
        if seen_at.is_none() {
            self.confirm(transport, now);
        }
        if let Some(mark) = arrived {
            self.handle_frames(transport, now, mark)?;
        }
        self.unconfirmed &= seen_at.is_some();
        let more = arrived.is_some() && self.port.has_frame();
        // After the frames: a host that slept finds that the peer lives first.
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

    /// What was received with a reading of the clock from before the frames were seen, was there at
    /// `now`, which is one of this moment. From then on the backup's patience counts: from an earlier
    /// time it might end too early for the primary's lease, which begins when the frame is sent. Nothing
    /// asks for the patience between `receive` and here.
    fn confirm(&mut self, transport: &mut impl Transport, now: Time) {
        if std::mem::take(&mut self.unconfirmed) {
            transport.heard_by(now);
        }
    }

    /// Hands to the kernel what there is to send: all of the log, and a few frames of bulk at most.
    /// Whether bulk is left that could be sent.
    pub fn transmit(&mut self, transport: &mut impl Transport) -> Result<bool, PortError> {
        let now = now();
        self.confirm(transport, now);
        self.transmit_at(transport, now)
    }

    /// The same with a reading of the clock that the caller has taken, not before anything that the
    /// channel was told. An old one does no harm but to the lease, which is then the shorter.
    pub fn transmit_at(
        &mut self,
        transport: &mut impl Transport,
        now: Time,
    ) -> Result<bool, PortError> {
        self.bulk_held = wants_bulk(transport) && self.port.unsent_bytes()? >= UNSENT_BYTES_MAX;
        let bulk_until = match self.bulk_held {
            true => bulk_frames(transport),
            false => bulk_frames(transport) + BULK_FRAMES_PER_TURN,
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
        Ok(wants_bulk(transport) && !self.bulk_held)
    }

    /// When a wait must end for the sake of this wire or of `transport`. `now` is a reading of the clock
    /// that the caller has taken.
    pub fn due(&self, transport: &impl Transport, now: Time) -> Option<Time> {
        let queue_look = self.bulk_held.then(|| now + UNSENT_LOOK_EVERY);
        transport.poll_timeout().into_iter().chain(queue_look).min()
    }

    /// Waits until a frame is there, `transport` has something to do, a signal came, or it is `until`.
    pub fn wait(
        &mut self,
        transport: &mut impl Transport,
        until: Option<Time>,
    ) -> Result<Wake, PortError> {
        let now = now();
        self.confirm(transport, now);
        let due = self.due(transport, now).into_iter().chain(until).min();
        let wake =
            self.port.wait(due.map(|due| Duration::from_nanos(due.since(now).as_nanos())))?;
        let looked = self.port.looked().map(|looked| looked.as_nanos() as u64);
        self.seen_at = looked.map(|looked| now + time::Duration::from_nanos(looked));
        Ok(wake)
    }

    /// The address of the other host's interface.
    pub fn peer(&self) -> MacAddr {
        self.peer
    }

    /// Frames to us from other stations than the peer.
    pub fn other_senders(&self) -> u64 {
        self.other_senders
    }

    /// What was counted, with `link`'s part of whoever is behind the wire. A system call or two.
    pub fn report(&mut self, link: LinkStats) -> LinkReport {
        LinkReport {
            port: self.port.stats(),
            link,
            other_senders: self.other_senders,
            is_down: self.port.check_link() != LinkState::Up,
        }
    }

    /// The port.
    pub fn port(&self) -> &PacketPort {
        &self.port
    }

    /// The port, to wait on it and to ask it.
    pub fn port_mut(&mut self) -> &mut PacketPort {
        &mut self.port
    }
}

fn wants_bulk(transport: &impl Transport) -> bool {
    transport.channel().is_some_and(|channel| channel.wants_to_send(Lane::Bulk))
}

/// Bulk frames sent so far.
fn bulk_frames(transport: &impl Transport) -> u64 {
    transport.channel().map_or(0, |channel| channel.stats().sent(FrameKind::Bulk))
}

/// The channel's clock. It runs while the host is suspended: a lease must end then, too.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime_ns())
}
