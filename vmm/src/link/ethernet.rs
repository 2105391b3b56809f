//! [`EthernetLink`]: a packet port to one peer, as the wire of the logging channel.

use super::LinkReport;
use super::error::LinkError;
use super::header::{self, DESTINATION, SOURCE};
use super::nic_watch::{NicWatch, NicWatchConfig};
use super::peer_address::{AddressChange, OtherAddresses, PeerAddress};
use super::reach::{Reach, Target};
use crate::kvm::clock;
use crate::opener;
use logchan::handshake::{LinkStats, Proof};
use logchan::ids::VmId;
use logchan::limits::IN_FLIGHT_FRAMES_BOTH;
use logchan::time::{Duration as Span, Time};
use netpath::wait::spin;
use netpath::{
    FRAME_MAX, FramePort, LinkState, MacAddr, Mark, NicProbe, NullPort, PacketConfig, PacketPort,
    PacketStats, PortError, ReceivePath, WaitPolicy,
};
use replication::Mutants;
use replication::driver::{Clock, Heard, LINK_HEADER_BYTES, LinkPort, Wire};
use replication::limits::{FRAMES_PER_RECEIVE, RECEIVES_PER_DRIVE};
use std::time::{Duration, Instant};

// The receive ring holds all frames that can be in flight, plus 32 that carry no lane. So a peer that is
// stopped for a while loses no frame.
const _: () = assert!(IN_FLIGHT_FRAMES_BOTH + 32 <= netpath::RECEIVE_FRAMES);
// One drive takes all frames that wait in the ring, so that a flood delays timeouts by one drive at most.
const _: () = assert!(netpath::RECEIVE_FRAMES <= FRAMES_PER_RECEIVE * RECEIVES_PER_DRIVE);

/// Bytes of an Ethernet frame's payload that are not the transport's.
const VM_BYTES: usize = LINK_HEADER_BYTES - netpath::FRAME_MIN;

/// Options of a log link.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Name of the interface.
    pub interface: String,
    /// MAC address of the other host's interface.
    pub peer: MacAddr,
    /// The VM. Several of them can share the interface.
    pub vm: VmId,
    /// How to wait for frames.
    pub wait: WaitPolicy,
    /// How to receive frames.
    pub receive: ReceivePath,
}

impl LinkOptions {
    /// Returns how the port of the link is opened.
    pub fn port_config(&self) -> PacketConfig {
        let LinkOptions { interface, peer: _, vm, wait, receive } = self;
        PacketConfig {
            receive: *receive,
            wait: *wait,
            payload: Some(header::filter(*vm)),
            ..PacketConfig::new(interface.as_str())
        }
    }
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

/// Longest wait for frames without an interface, after which the caller looks for a new port.
const WAIT_WITHOUT_NIC_MAX: Duration = Duration::from_millis(50);

/// A packet port to one peer. One thread owns it.
///
/// Without a [watch](Self::watch), an interface that is gone is an error. With it, such an interface is a link on
/// which nothing is heard, until there is an interface of this name again.
pub struct EthernetLink {
    port: PacketPort,
    /// Counters of the ports before.
    earlier: PacketStats,
    config: PacketConfig,
    peer: PeerAddress,
    vm: VmId,
    /// The VM of the last frame for this host that was another VM's.
    other_vm: Option<VmId>,
    watch: Option<NicWatch>,
    /// Whether frames go to all stations, too. Only with a key: copies tell nobody anything then.
    reach: Option<Reach>,
    /// The watch knows that the port has lost its interface.
    is_loss_reported: bool,
}

impl EthernetLink {
    /// Opens the interface.
    ///
    /// # Errors
    ///
    /// The interface can't be used, or the peer's address is its own.
    pub fn open(options: &LinkOptions) -> Result<EthernetLink, LinkError> {
        let (config, peer) = (options.port_config(), options.peer);
        let port = opener::open_link(&config)?;
        if port.mac() == peer {
            let interface = options.interface.clone();
            return Err(LinkError::OwnAddress { interface, mac: peer });
        }
        Ok(EthernetLink {
            port,
            earlier: PacketStats::default(),
            config,
            peer: PeerAddress::new(peer, OtherAddresses::Drop),
            vm: options.vm,
            other_vm: None,
            watch: None,
            reach: None,
            is_loss_reported: false,
        })
    }

    /// Watches the interface on a thread of its own, which kicks the calling thread after each change, and does
    /// `other_addresses` with frames from another address than the peer's. Changes of the interface and of the
    /// peer's address are reported with the level `warn`.
    ///
    /// # Errors
    ///
    /// The kernel can't be asked for the interface, or the thread can't be started.
    pub fn watch(mut self, other_addresses: OtherAddresses) -> Result<EthernetLink, LinkError> {
        self.peer = PeerAddress::new(self.peer.current(), other_addresses);
        if other_addresses == OtherAddresses::Follow {
            self.reach = Some(Reach::new());
            self.config.accepts_broadcast = true;
            self.port.accept_broadcast();
        }
        self.watch = Some(NicWatch::start(NicWatchConfig {
            port: self.config.clone(),
            mtu_bytes_min: (self.frame_bytes_max() + VM_BYTES) as u32,
            index: self.port.index(),
            mac: self.port.mac(),
            state: self.port.link(),
        })?);
        Ok(self)
    }

    /// Handles what the watch has found. Without a change this costs a load and two comparisons.
    #[inline]
    fn follow_interface(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        if watch.has_change() {
            self.handle_change();
        } else if self.port.link() == LinkState::Gone && !self.is_loss_reported {
            watch.port_lost();
            self.is_loss_reported = true;
        }
    }

    #[cold]
    fn handle_change(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        if let Some(port) = watch.take_change() {
            let mut old = std::mem::replace(&mut self.port, port);
            self.earlier = self.earlier + old.stats();
            watch.close(old);
            self.is_loss_reported = false;
        }
        // Reads the interface's MAC address, which may have changed.
        self.port.check_link();
    }

    /// Returns the state of the interface.
    fn state(&self) -> LinkState {
        match (&self.watch, self.port.link()) {
            // The port knows the end of its interface before the watch does.
            (Some(_), LinkState::Gone) => LinkState::Gone,
            (Some(watch), _) => watch.state(),
            (None, state) => state,
        }
    }

    /// Returns the wire on this link.
    pub fn into_wire(self) -> Wire<EthernetLink> {
        Wire::new(self, Mutants::default())
    }

    /// Returns the longest frame of the transport that an Ethernet frame can carry, bytes.
    pub fn frame_bytes_max(&self) -> usize {
        (self.port.mtu_bytes() as usize - VM_BYTES).min(FRAME_MAX - LINK_HEADER_BYTES)
    }

    /// Returns how this link waits for frames.
    pub fn wait_policy(&self) -> WaitPolicy {
        self.config.wait
    }

    /// Returns the MAC address of the other host's interface.
    pub fn peer(&self) -> MacAddr {
        self.peer.current()
    }

    /// Returns the VM.
    pub fn vm(&self) -> VmId {
        self.vm
    }

    /// Returns the counters of this link, together with `link`, the transport's counters. Costs some system calls;
    /// with a watch, none of them waits.
    pub fn report(&mut self, link: LinkStats) -> LinkReport {
        self.port.check_link();
        LinkReport {
            port: self.port_stats(),
            link,
            other_senders: self.peer.other_senders(),
            last_other: self.peer.last_other(),
            other_vm: self.other_vm,
            state: self.state_for_report(),
        }
    }

    /// Returns the state of the interface. A port does not notice that its interface is a port of a bridge: without a
    /// watch, the kernel is asked.
    fn state_for_report(&self) -> LinkState {
        let state = self.state();
        if self.watch.is_some() || state != LinkState::Up {
            return state;
        }
        let mut probe = NicProbe::open(self.port.name()).ok();
        let nic = probe.as_mut().and_then(|probe| probe.by_index(self.port.index()).ok().flatten());
        nic.map_or(state, |nic| nic.state)
    }

    /// Returns the counters of this link's ports, since it was opened. Costs a system call.
    pub fn port_stats(&mut self) -> PacketStats {
        self.earlier + self.port.stats()
    }

    /// Returns the port.
    pub fn port(&self) -> &PacketPort {
        &self.port
    }

    /// Returns the port, to wait on it. Its counters begin again with each new interface:
    /// [`port_stats`](Self::port_stats).
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
        self.follow_interface();
        self.port.arrived(frames_max)
    }

    fn receive_until(
        &mut self,
        mark: Mark,
        handle: impl FnOnce(&mut [u8]) -> Proof,
    ) -> Result<bool, PortError> {
        let EthernetLink { port, peer, reach, vm, other_vm, .. } = self;
        let taken = port.receive_until(mark, |frame| {
            let address = |at: std::ops::Range<usize>| -> [u8; 6] {
                frame[at].try_into().expect("a frame has a header")
            };
            let source = MacAddr::from(address(SOURCE));
            let is_to_all = MacAddr::from(address(DESTINATION)).is_broadcast();
            let of_vm = header::vm(frame);
            if is_to_all && source != peer.current() {
                // Of other pairs on this segment.
                None
            } else if of_vm != Some(*vm) {
                // What the filter lets through of the other VMs of these hosts.
                if source == peer.current() {
                    *other_vm = of_vm;
                }
                None
            } else if peer.handles(source) {
                let proof = handle(&mut frame[LINK_HEADER_BYTES..]);
                if proof == Proof::Presence
                    && let Some(reach) = reach
                {
                    reach.received(is_to_all);
                }
                peer.handled(source, proof)
            } else {
                peer.dropped(source)
            }
        })?;
        if let Some(Some(change)) = taken {
            report(change, self.peer.current());
        }
        Ok(taken.is_some())
    }

    fn is_cut_off(&self) -> bool {
        self.state() != LinkState::Up
    }

    fn has_frame(&self) -> bool {
        self.port.has_frame()
    }

    fn frames_waiting_max(&self) -> usize {
        self.port.frames_waiting_max()
    }

    fn send(&mut self, frame: &mut [u8]) -> Result<(), PortError> {
        let target = self.reach.as_mut().map_or(Target::Peer, Reach::next);
        if target != Target::All {
            header::write(frame, self.port.header_to(self.peer.current()), self.vm);
            self.port.send(frame)?;
        }
        if let Some(candidate) = self.peer.candidate() {
            header::write(frame, self.port.header_to(candidate), self.vm);
            self.port.send(frame)?;
        }
        if target != Target::Peer {
            header::write(frame, self.port.header_to(MacAddr::broadcast()), self.vm);
            self.port.send(frame)?;
        }
        Ok(())
    }

    fn set_heard(&mut self, heard: Heard) {
        if let Some(reach) = &mut self.reach {
            reach.set_heard(heard);
        }
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.port.flush()
    }

    fn unsent_bytes(&mut self) -> Result<u32, PortError> {
        self.port.unsent_bytes()
    }

    fn wait(&mut self, timeout: Option<Span>) -> Result<(), PortError> {
        self.follow_interface();
        let timeout = timeout.map(|timeout| Duration::from_nanos(timeout.as_nanos()));
        match self.port.wait(timeout) {
            Ok(_) => Ok(()),
            Err(PortError::InterfaceGone { .. }) if self.watch.is_some() => {
                let mut silence = match self.config.wait.wake_signal {
                    Some(signal) => NullPort::with_wake_signal(signal),
                    None => NullPort::new(),
                };
                let longest = WAIT_WITHOUT_NIC_MAX;
                silence.wait(Some(timeout.map_or(longest, |timeout| timeout.min(longest))))?;
                Ok(())
            }
            Err(error) => Err(error),
        }
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

/// Reports a change of the peer's address.
#[cold]
fn report(change: AddressChange, peer: MacAddr) {
    match change {
        AddressChange::Followed { from, to } => tracing::warn!(
            "the other host's log interface has another MAC address: {to} instead of {from}; following it"
        ),
        AddressChange::NotFollowed(address) => tracing::warn!(
            "frames come from {address}, not from {peer} (--peer): without a key they are not followed"
        ),
    }
}
