//! [`EthernetLink`]: a packet port to one peer, as the wire of the logging channel.

use super::LinkReport;
use super::error::LinkError;
use crate::kvm::clock;
use logchan::handshake::LinkStats;
use logchan::limits::IN_FLIGHT_FRAMES_BOTH;
use logchan::time::{Duration as Span, Time};
use netpath::wait::spin;
use netpath::{
    FRAME_MAX, FramePort, LinkState, MacAddr, Mark, PacketConfig, PacketPort, PortError,
    ReceivePath, WaitPolicy,
};
use replication::Mutants;
use replication::driver::{Clock, LINK_HEADER_BYTES, LinkPort, Wire};
use std::time::{Duration, Instant};

// The receive ring holds all frames that can be in flight, plus 32 that carry no lane. So a peer that is
// stopped for a while loses no frame.
const _: () = assert!(IN_FLIGHT_FRAMES_BOTH + 32 <= netpath::RECEIVE_FRAMES);
const _: () = assert!(LINK_HEADER_BYTES == netpath::FRAME_MIN);

/// Position of the source address in the Ethernet header.
const SOURCE: std::ops::Range<usize> = 6..12;

/// Options of a log link.
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

/// The channel's clock, CLOCK_BOOTTIME. It runs while the host is suspended: the lease must end during that
/// time, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Time {
        now()
    }
}

/// Reads the channel's clock.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime_ns())
}

/// A packet port to one peer. One thread owns it.
pub struct EthernetLink {
    port: PacketPort,
    peer: MacAddr,
    wait: WaitPolicy,
    other_senders: u64,
}

impl EthernetLink {
    /// Opens the interface.
    ///
    /// # Errors
    ///
    /// The interface can't be used, or the peer's address is its own.
    pub fn open(options: &LinkOptions) -> Result<EthernetLink, LinkError> {
        let LinkOptions { interface, peer, wait, receive } = options.clone();
        let port = PacketPort::open(&PacketConfig { interface, receive, wait })?;
        if port.mac() == peer {
            let interface = options.interface.clone();
            return Err(LinkError::OwnAddress { interface, mac: peer });
        }
        Ok(EthernetLink { port, peer, wait, other_senders: 0 })
    }

    /// Returns the wire on this link.
    pub fn into_wire(self) -> Wire<EthernetLink> {
        Wire::new(self, Mutants::default())
    }

    /// Returns the largest payload of an Ethernet frame, bytes.
    pub fn frame_bytes_max(&self) -> usize {
        (self.port.mtu_bytes() as usize).min(FRAME_MAX - LINK_HEADER_BYTES)
    }

    /// Returns how this link waits for frames.
    pub fn wait_policy(&self) -> WaitPolicy {
        self.wait
    }

    /// Returns the MAC address of the other host's interface.
    pub fn peer(&self) -> MacAddr {
        self.peer
    }

    /// Returns the counters of this link, together with `link`, the transport's counters. Costs one or two
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

/// The time that is left to spin.
pub struct Spin {
    now: Instant,
    until: Instant,
    policy: WaitPolicy,
}

impl LinkPort for EthernetLink {
    type Error = PortError;
    type Mark = Mark;
    type Spin = Spin;

    fn arrived(&mut self, frames_max: usize) -> Result<Option<Mark>, PortError> {
        self.port.arrived(frames_max)
    }

    fn receive_until(
        &mut self,
        mark: Mark,
        handle: impl FnOnce(&mut [u8]),
    ) -> Result<bool, PortError> {
        let EthernetLink { port, other_senders, .. } = self;
        let peer = self.peer.octets();
        let taken = port.receive_until(mark, |frame| {
            if frame[SOURCE] == peer {
                handle(&mut frame[LINK_HEADER_BYTES..]);
            } else {
                *other_senders += 1;
            }
        })?;
        Ok(taken.is_some())
    }

    fn has_frame(&self) -> bool {
        self.port.has_frame()
    }

    fn send(&mut self, frame: &mut [u8]) -> Result<(), PortError> {
        frame[..LINK_HEADER_BYTES].copy_from_slice(&self.port.header_to(self.peer));
        self.port.send(frame)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.port.flush()
    }

    fn unsent_bytes(&mut self) -> Result<u32, PortError> {
        self.port.unsent_bytes()
    }

    fn wait(&mut self, timeout: Option<Span>) -> Result<(), PortError> {
        self.port.wait(timeout.map(|timeout| Duration::from_nanos(timeout.as_nanos())))?;
        Ok(())
    }

    fn looked(&self) -> Option<Span> {
        self.port.looked().map(|looked| Span::from_nanos(looked.as_nanos() as u64))
    }

    fn begin_spin(&self, span: Span) -> Spin {
        // It does not yield: the acknowledgement arrives sooner than another thread would give the CPU
        // back. It reads the clock rarely, because each reading can be a system call on a vCPU thread.
        let span = Duration::from_nanos(span.as_nanos());
        let now = Instant::now();
        let policy = WaitPolicy { spin: span, yield_after: span, wake_signal: None };
        Spin { now, until: now + span, policy }
    }

    fn spin(&mut self, state: &mut Spin) -> bool {
        let Spin { now, until, policy } = state;
        spin(policy, now, Some(*until), || self.port.has_frame())
    }
}
