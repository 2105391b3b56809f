//! [`Wire`]: frames between a packet port and whoever makes and takes them.

use super::LinkReport;
use super::error::LinkError;
use crate::kvm::clock;
use crate::replica::Replica;
use logchan::channel::Channel;
use logchan::endpoint::Endpoint;
use logchan::frame::FrameKind;
use logchan::handshake::LinkStats;
use logchan::time::Time;
use netpath::{
    FRAME_MAX, FRAME_MIN, FramePort, LinkState, MacAddr, PacketConfig, PacketPort, PortError,
    ReceivePath, WaitPolicy,
};

/// Bytes of an Ethernet header.
const HEADER_BYTES: usize = FRAME_MIN;

/// Where the source address is in it.
const SOURCE: std::ops::Range<usize> = 6..12;

/// Frames taken in before something is sent: a flood must not keep us from answering.
const FRAMES_PER_TURN: usize = 64;

/// Bulk frames handed to the kernel in one go. More of them save system calls (each costs about as
/// much as half a frame); all of them are in front of whatever is appended meanwhile.
const BULK_FRAMES_PER_TURN: u64 = 4;

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
pub trait Party {
    /// Takes in a frame, its Ethernet header removed.
    fn handle_frame(&mut self, now: Time, frame: &mut [u8]);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Time);
    /// When something is due next.
    fn poll_timeout(&self) -> Option<Time>;
    /// Writes the next frame to the front of `out`; its length.
    fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize>;
    /// The channel, which knows what kind of frames it sent.
    fn channel(&self) -> Option<&Channel>;
}

macro_rules! is_a_party {
    ($($name:ty)*) => {
        $(impl Party for $name {
            fn handle_frame(&mut self, now: Time, frame: &mut [u8]) {
                <$name>::handle_frame(self, now, frame);
            }

            fn handle_timeout(&mut self, now: Time) {
                <$name>::handle_timeout(self, now);
            }

            fn poll_timeout(&self) -> Option<Time> {
                <$name>::poll_timeout(self)
            }

            fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
                <$name>::poll_transmit(self, now, out)
            }

            fn channel(&self) -> Option<&Channel> {
                <$name>::channel(self)
            }
        })*
    };
}

is_a_party!(Endpoint Replica);

/// A packet port to one peer. One thread owns it.
pub struct Wire {
    port: PacketPort,
    peer: MacAddr,
    other_senders: u64,
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
        Ok(Wire { port, peer, other_senders: 0, frame: Box::new([0; FRAME_MAX]) })
    }

    /// Bytes that a frame may have behind its Ethernet header.
    pub fn frame_bytes_max(&self) -> usize {
        (self.port.mtu_bytes() as usize).min(FRAME_MAX - HEADER_BYTES)
    }

    /// Takes in what arrived and does what is due. Log that arrived is acknowledged at once: the peer
    /// holds an output for that, and the caller may have long work to do. Whether more frames are there:
    /// then come again, and nothing is called late before they were seen.
    pub fn receive(&mut self, party: &mut impl Party) -> Result<bool, PortError> {
        let arrived = self.port.arrived(FRAMES_PER_TURN)?;
        // Read when the frames are there: none of them seems to have come before it was sent, or the
        // backup's patience would end too early for the primary's lease.
        let now = now();
        let peer = self.peer.octets();
        if let Some(mark) = arrived {
            loop {
                let Wire { port, other_senders, .. } = self;
                let taken = port.receive_until(mark, |frame| {
                    if frame[SOURCE] == peer {
                        party.handle_frame(now, &mut frame[HEADER_BYTES..]);
                    } else {
                        *other_senders += 1;
                    }
                })?;
                if taken.is_none() {
                    break;
                }
                if party.channel().is_some_and(Channel::owes_log_ack) {
                    self.transmit_at(party, now)?;
                }
            }
        }
        let more = arrived.is_some() && self.port.has_frame();
        // After the frames: a host that slept finds that the peer lives first.
        if !more && party.poll_timeout().is_some_and(|timeout| timeout <= now) {
            party.handle_timeout(now);
        }
        Ok(more)
    }

    /// Hands to the kernel what there is to send: all of the log, and a few frames of bulk at most.
    /// Whether bulk is left that could be sent. `now` is a reading of the clock that the caller has taken,
    /// not before anything that the channel was told; an old one does no harm but to the lease, which
    /// is then the shorter.
    pub fn transmit_at(&mut self, party: &mut impl Party, now: Time) -> Result<bool, PortError> {
        let bulk_before = bulk_frames(party);
        let mut more = false;
        while let Some(length) = party.poll_transmit(now, &mut self.frame[HEADER_BYTES..]) {
            let header = self.port.header_to(self.peer);
            self.frame[..HEADER_BYTES].copy_from_slice(&header);
            self.port.send(&self.frame[..HEADER_BYTES + length])?;
            more = bulk_frames(party).saturating_sub(bulk_before) >= BULK_FRAMES_PER_TURN;
            if more {
                break;
            }
        }
        self.port.flush()?;
        Ok(more)
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

/// Bulk frames sent so far.
fn bulk_frames(party: &impl Party) -> u64 {
    party.channel().map_or(0, |channel| channel.stats().sent(FrameKind::Bulk))
}

/// The channel's clock. It runs while the host is suspended: a lease must end then, too.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime_ns())
}
