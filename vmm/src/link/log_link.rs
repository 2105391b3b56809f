//! [`LogLink`].

use super::error::LinkError;
use super::ethernet::{BootClock, EthernetLink, LinkOptions, now};
use crate::kvm::entropy;
use logchan::channel::Channel;
use logchan::endpoint::{Endpoint, EndpointEvent, Settings};
use logchan::handshake::{LinkStats, Security};
use logchan::ids::VmId;
use logchan::time::Time;
use netpath::{LinkState, MacAddr, PacketPort, PacketStats, PortError};
use replication::driver::Wire;

/// Counters since the link was opened, without the channel's own counters ([`Channel::stats`]).
#[derive(Clone, Copy, Debug)]
pub struct LinkReport {
    /// Counters of the port.
    pub port: PacketStats,
    /// Counters of handshakes and seals.
    pub link: LinkStats,
    /// Frames to this host from other stations than the peer.
    pub other_senders: u64,
    /// The last of these stations, unless the link has followed it.
    pub last_other: Option<MacAddr>,
    /// The VM of the last frame for this host that was another VM's. Only requests for a handshake are looked at.
    pub other_vm: Option<VmId>,
    /// The state of the interface.
    pub state: LinkState,
}

/// One host's end of the logging channel: an endpoint on a wire, without a replica. One thread owns it.
///
/// The driver repeats these steps: call [`receive`](Self::receive); call
/// [`poll_event`](Self::poll_event) until `None`; read what the channel received, and append what is to be
/// sent; call [`transmit`](Self::transmit); call [`wait`](Self::wait).
pub struct LogLink {
    wire: Wire<EthernetLink>,
    endpoint: Endpoint,
}

impl LogLink {
    /// Opens the interface and starts the handshake with the peer. The frame size is the interface's MTU,
    /// whatever `settings` says.
    ///
    /// # Errors
    ///
    /// The interface can't be used, or the settings are invalid.
    pub fn open(
        options: &LinkOptions,
        mut settings: Settings,
        security: Security,
    ) -> Result<LogLink, LinkError> {
        let link = EthernetLink::open(options)?;
        settings.frame_bytes_max = link.frame_bytes_max();
        let endpoint = Endpoint::new(settings, security, Box::new(system_entropy), now())?;
        Ok(LogLink { wire: link.into_wire(), endpoint })
    }

    /// See [`Wire::receive`].
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn receive(&mut self) -> Result<bool, PortError> {
        self.wire.receive(&BootClock, &mut self.endpoint)
    }

    /// See [`Wire::transmit`].
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn transmit(&mut self) -> Result<bool, PortError> {
        self.wire.transmit(&BootClock, &mut self.endpoint)?;
        Ok(self.wire.has_bulk_to_give(&self.endpoint))
    }

    /// See [`Wire::transmit_at`].
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn transmit_at(&mut self, now: Time) -> Result<bool, PortError> {
        self.wire.transmit_at(&mut self.endpoint, now)
    }

    /// See [`Wire::wait`].
    ///
    /// # Errors
    ///
    /// Errors of the port.
    pub fn wait(&mut self, until: Option<Time>) -> Result<(), PortError> {
        self.wire.wait(&BootClock, &mut self.endpoint, until)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.endpoint.poll_event()
    }

    /// Returns the channel to the peer that was met. It may be closed.
    pub fn channel(&self) -> Option<&Channel> {
        self.endpoint.channel()
    }

    /// Returns the channel, to append to it and to read from it.
    pub fn channel_mut(&mut self) -> Option<&mut Channel> {
        self.endpoint.channel_mut()
    }

    /// Returns the endpoint, for queries.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Drops the channel and starts a new handshake: [`Endpoint::renew`].
    ///
    /// # Errors
    ///
    /// The settings are invalid.
    pub fn renew(&mut self, mut settings: Settings) -> Result<(), LinkError> {
        settings.frame_bytes_max = self.endpoint.settings().frame_bytes_max;
        Ok(self.endpoint.renew(now(), settings)?)
    }

    /// Returns the MAC address of the other host's interface.
    pub fn peer(&self) -> MacAddr {
        self.wire.port().peer()
    }

    /// Returns the VM.
    pub fn vm(&self) -> VmId {
        self.wire.port().vm()
    }

    /// Returns the counters. Costs some system calls, which may wait for changes of interfaces.
    pub fn report(&mut self) -> LinkReport {
        self.wire.port_mut().report(self.endpoint.link_stats())
    }

    /// Returns the port, for queries.
    pub fn port(&self) -> &PacketPort {
        self.wire.port().port()
    }

    /// Returns the next change of the interface's state.
    pub fn next_link_event(&mut self) -> Option<LinkState> {
        self.wire.port_mut().port_mut().next_link_event()
    }
}

/// Fills `bytes` with the kernel's randomness, for handshakes.
///
/// # Panics
///
/// Panics if getrandom(2) fails.
pub fn system_entropy(bytes: &mut [u8]) {
    entropy::fill(bytes).expect("getrandom gives bytes once the system has booted");
}
