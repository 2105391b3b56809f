//! [`LogLink`].

use super::error::LinkError;
use crate::kvm::{clock, entropy};
use logchan::channel::Channel;
use logchan::endpoint::{Endpoint, EndpointEvent, Settings};
use logchan::frame::FrameKind;
use logchan::handshake::{LinkStats, Security};
use logchan::ids::Lane;
use logchan::limits::IN_FLIGHT_FRAMES_MAX;
use logchan::time::{self, Time};
use netpath::{
    FRAME_MAX, FRAME_MIN, FramePort, LinkState, MacAddr, Mark, PacketConfig, PacketPort,
    PacketStats, PortError, ReceivePath, WaitPolicy, Wake,
};
use std::time::Duration;

/// Bytes of an Ethernet header.
const HEADER_BYTES: usize = FRAME_MIN;

/// Where the source address is in it.
const SOURCE: std::ops::Range<usize> = 6..12;

// A peer that does not run for a while loses nothing, with room for frames that carry no lane.
const _: () = assert!(Lane::ALL.len() * IN_FLIGHT_FRAMES_MAX + 32 <= netpath::RECEIVE_FRAMES);

/// Frames taken in before something is sent: a flood must not keep us from answering.
const FRAMES_PER_TURN: usize = 64;

/// Bulk frames handed to the kernel in one go. More of them save system calls (each costs about as
/// much as half a frame); all of them are in front of whatever is appended meanwhile.
const BULK_FRAMES_PER_TURN: u64 = 4;

/// Bytes below us, as the kernel accounts for them, from which on no bulk is added: five full frames, and
/// there may be a turn's more. A log entry waits for them, some 100 us on a link of 1 Gbit/s. Fewer would
/// let a NIC run dry that reports what it has sent only now and then.
pub const UNSENT_BYTES_MAX: u32 = 12 << 10;

/// How soon a wait ends to look whether the queue below has run low: within the time in which 1 Gbit/s
/// sends two full frames.
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

/// What was counted since the link was opened, but for the channel's own numbers
/// ([`Channel::stats`]).
#[derive(Clone, Copy, Debug)]
pub struct LinkReport {
    /// The port.
    pub port: PacketStats,
    /// Handshakes and seals.
    pub link: LinkStats,
    /// Frames to us from other stations than the peer.
    pub other_senders: u64,
    /// No frame passes, as far as this host can tell.
    pub is_down: bool,
}

/// One host's end of the logging channel on its wire. One thread owns it.
///
/// A driver's turn: [`receive`](Self::receive), [`poll_event`](Self::poll_event) until `None`, what
/// the channel received, what is to be appended, [`transmit`](Self::transmit),
/// [`wait`](Self::wait).
pub struct LogLink {
    port: PacketPort,
    endpoint: Endpoint,
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

impl LogLink {
    /// Opens the interface and begins to ask for the peer. Frames are as long as its MTU allows,
    /// whatever the settings say.
    pub fn open(
        options: &LinkOptions,
        mut settings: Settings,
        security: Security,
    ) -> Result<LogLink, LinkError> {
        let LinkOptions { interface, peer, wait, receive } = options.clone();
        let port = PacketPort::open(&PacketConfig { interface, receive, wait })?;
        if port.mac() == peer {
            let interface = options.interface.clone();
            return Err(LinkError::OwnAddress { interface, mac: peer });
        }
        settings.frame_bytes_max = (port.mtu_bytes() as usize).min(FRAME_MAX - HEADER_BYTES);
        let random = Box::new(|bytes: &mut [u8]| {
            entropy::fill(bytes).expect("getrandom gives bytes once the system has booted");
        });
        let endpoint = Endpoint::new(settings, security, random, now())?;
        Ok(LogLink {
            port,
            endpoint,
            peer,
            other_senders: 0,
            seen_at: None,
            unconfirmed: false,
            bulk_held: false,
            frame: Box::new([0; FRAME_MAX]),
        })
    }

    /// Takes in what arrived and does what is due. Log that arrived is acknowledged at once: the peer
    /// holds an output for that, and the caller may have long work to do. Whether more frames are there:
    /// then come again, and nothing is called late before they were seen.
    ///
    /// After a wait that saw a frame while it looked, this reads no clock.
    pub fn receive(&mut self) -> Result<bool, PortError> {
        let arrived = self.port.arrived(FRAMES_PER_TURN)?;
        let time = self.endpoint.channel().map_or(Time::default(), Channel::time);
        let seen_at = self.seen_at.take().filter(|seen_at| *seen_at >= time);
        // Read when the frames are there: none of them seems to have come before it was sent.
        let now = seen_at.unwrap_or_else(now);
        if seen_at.is_none() {
            self.confirm(now);
        }
        if let Some(mark) = arrived {
            self.handle_frames(now, mark)?;
        }
        self.unconfirmed &= seen_at.is_some();
        let more = arrived.is_some() && self.port.has_frame();
        // After the frames: a host that slept finds that the peer lives first.
        if !more && self.endpoint.poll_timeout().is_some_and(|timeout| timeout <= now) {
            self.endpoint.handle_timeout(now);
        }
        Ok(more)
    }

    fn handle_frames(&mut self, now: Time, mark: Mark) -> Result<(), PortError> {
        let peer = self.peer.octets();
        loop {
            let LogLink { port, endpoint, other_senders, unconfirmed, .. } = self;
            let taken = port.receive_until(mark, |frame| {
                if frame[SOURCE] == peer {
                    let verdict = endpoint.handle_frame(now, &mut frame[HEADER_BYTES..]);
                    *unconfirmed |= verdict.is_sign_of_life();
                } else {
                    *other_senders += 1;
                }
            })?;
            if taken.is_none() {
                return Ok(());
            }
            if endpoint.channel().is_some_and(Channel::owes_log_ack) {
                self.transmit_at(now)?;
            }
        }
    }

    /// What was received with a reading of the clock from before the frames were seen, was there at
    /// `now`, which is one of this moment. From then on the backup's patience counts: from an earlier
    /// time it might end too early for the primary's lease, which begins when the frame is sent. Nothing
    /// asks for the patience between `receive` and here.
    fn confirm(&mut self, now: Time) {
        if std::mem::take(&mut self.unconfirmed) {
            self.endpoint.heard_by(now);
        }
    }

    /// Hands to the kernel what there is to send: all of the log, and a few frames of bulk at most.
    /// Whether bulk is left that could be sent.
    pub fn transmit(&mut self) -> Result<bool, PortError> {
        let now = now();
        self.confirm(now);
        self.transmit_at(now)
    }

    /// The same with a reading of the clock that the caller has taken, not before anything that the
    /// channel was told. An old one does no harm but to the lease, which is then the shorter.
    pub fn transmit_at(&mut self, now: Time) -> Result<bool, PortError> {
        let wants_bulk =
            self.endpoint.channel().is_some_and(|channel| channel.wants_to_send(Lane::Bulk));
        self.bulk_held = wants_bulk && self.port.unsent_bytes()? >= UNSENT_BYTES_MAX;
        let bulk_until = match self.bulk_held {
            true => self.bulk_frames(),
            false => self.bulk_frames() + BULK_FRAMES_PER_TURN,
        };
        loop {
            let more = self.bulk_frames() < bulk_until;
            let out = &mut self.frame[HEADER_BYTES..];
            let length = match more {
                true => self.endpoint.poll_transmit(now, out),
                false => self.endpoint.poll_transmit_log(now, out),
            };
            let Some(length) = length else { break };
            let header = self.port.header_to(self.peer);
            self.frame[..HEADER_BYTES].copy_from_slice(&header);
            self.port.send(&self.frame[..HEADER_BYTES + length])?;
        }
        self.port.flush()?;
        let more = self.endpoint.channel().is_some_and(|channel| channel.wants_to_send(Lane::Bulk));
        Ok(more && !self.bulk_held)
    }

    /// Bulk frames sent so far.
    fn bulk_frames(&self) -> u64 {
        self.endpoint.channel().map_or(0, |channel| channel.stats().sent(FrameKind::Bulk))
    }

    /// Waits until a frame is there, the endpoint has something to do, a signal came, or it is
    /// `until`.
    pub fn wait(&mut self, until: Option<Time>) -> Result<Wake, PortError> {
        let now = now();
        self.confirm(now);
        let queue_look = self.bulk_held.then(|| now + UNSENT_LOOK_EVERY);
        let due = self.endpoint.poll_timeout().into_iter().chain(until).chain(queue_look).min();
        let wake =
            self.port.wait(due.map(|due| Duration::from_nanos(due.since(now).as_nanos())))?;
        let looked = self.port.looked().map(|looked| looked.as_nanos() as u64);
        self.seen_at = looked.map(|looked| now + time::Duration::from_nanos(looked));
        Ok(wake)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.endpoint.poll_event()
    }

    /// The channel to the peer that was met; it may be over.
    pub fn channel(&self) -> Option<&Channel> {
        self.endpoint.channel()
    }

    /// The channel, to append to and to read from.
    pub fn channel_mut(&mut self) -> Option<&mut Channel> {
        self.endpoint.channel_mut()
    }

    /// The endpoint, to ask it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Gives up the channel and asks for a peer anew: [`Endpoint::renew`].
    pub fn renew(&mut self, mut settings: Settings) -> Result<(), LinkError> {
        settings.frame_bytes_max = self.endpoint.settings().frame_bytes_max;
        Ok(self.endpoint.renew(now(), settings)?)
    }

    /// What was counted. A system call or two.
    pub fn report(&mut self) -> LinkReport {
        LinkReport {
            port: self.port.stats(),
            link: self.endpoint.link_stats(),
            other_senders: self.other_senders,
            is_down: self.port.check_link() != LinkState::Up,
        }
    }

    /// The port, to ask it.
    pub fn port(&self) -> &PacketPort {
        &self.port
    }

    /// The next change of the interface's state.
    pub fn next_link_event(&mut self) -> Option<LinkState> {
        self.port.next_link_event()
    }
}

/// The channel's clock. It runs while the host is suspended: a lease must end then, too.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime_ns())
}
