//! [`LogLink`].

use super::error::LinkError;
use super::wire::{LinkOptions, Wire, now};
use crate::kvm::entropy;
use logchan::channel::Channel;
use logchan::endpoint::{Endpoint, EndpointEvent, Settings};
use logchan::handshake::{LinkStats, Security};
use logchan::time::Time;
use netpath::{LinkState, MacAddr, PacketPort, PacketStats, PortError, Wake};

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

/// One host's end of the logging channel on its wire, with nothing on top of it. One thread owns it.
///
/// A driver's turn: [`receive`](Self::receive), [`poll_event`](Self::poll_event) until `None`, what
/// the channel received, what is to be appended, [`transmit`](Self::transmit),
/// [`wait`](Self::wait).
pub struct LogLink {
    wire: Wire,
    endpoint: Endpoint,
}

impl LogLink {
    /// Opens the interface and begins to ask for the peer. Frames are as long as its MTU allows,
    /// whatever the settings say.
    pub fn open(
        options: &LinkOptions,
        mut settings: Settings,
        security: Security,
    ) -> Result<LogLink, LinkError> {
        let wire = Wire::open(options)?;
        settings.frame_bytes_max = wire.frame_bytes_max();
        let endpoint = Endpoint::new(settings, security, Box::new(system_entropy), now())?;
        Ok(LogLink { wire, endpoint })
    }

    /// As [`Wire::receive`].
    pub fn receive(&mut self) -> Result<bool, PortError> {
        self.wire.receive(&mut self.endpoint)
    }

    /// As [`Wire::transmit`].
    pub fn transmit(&mut self) -> Result<bool, PortError> {
        self.wire.transmit(&mut self.endpoint)
    }

    /// As [`Wire::transmit_at`].
    pub fn transmit_at(&mut self, now: Time) -> Result<bool, PortError> {
        self.wire.transmit_at(&mut self.endpoint, now)
    }

    /// As [`Wire::wait`].
    pub fn wait(&mut self, until: Option<Time>) -> Result<Wake, PortError> {
        self.wire.wait(&mut self.endpoint, until)
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

    /// The address of the other host's interface.
    pub fn peer(&self) -> MacAddr {
        self.wire.peer()
    }

    /// What was counted. A system call or two.
    pub fn report(&mut self) -> LinkReport {
        self.wire.report(self.endpoint.link_stats())
    }

    /// The port, to ask it.
    pub fn port(&self) -> &PacketPort {
        self.wire.port()
    }

    /// The next change of the interface's state.
    pub fn next_link_event(&mut self) -> Option<LinkState> {
        self.wire.port_mut().next_link_event()
    }
}

/// The system's randomness, for handshakes.
pub fn system_entropy(bytes: &mut [u8]) {
    entropy::fill(bytes).expect("getrandom gives bytes once the system has booted");
}
