//! virtio-net (virtio 1.2, section 5.1): one receive and one transmit queue, no offloads.
//!
//! Transmit queue: a kick is handled completely before the guest runs again. Each frame is gathered into
//! one buffer and passed to the boundary, and the used ring is updated.
//!
//! Receive queue: a frame enters when an input delivers it. The driver need not kick when it adds
//! buffers, because the queue is examined whenever a frame is available. A kick is requested only after
//! the queue has run empty.
//!
//! One kick sends at most as many frames as the queue has entries, each of at most [`FRAME_MAX`] bytes.

mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::NetState;

use serde::Serialize;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use crate::devices::pci::Identity;
use crate::devices::virtio::queue::{QueueError, VirtQueue, gather, room, scatter};
use crate::devices::virtio::transport_pci::TransportState;
use crate::devices::virtio::{Failure, TransportCounters, VirtioDevice, VirtioPci};
use crate::devices::{Access, DeviceConfig};
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use config::{CONFIG_BYTES, IDENTITY, QUEUE_SIZE};
use replication::boundary::{DeviceBoundary, DeviceCapacity, Input};

/// The network device as a PCI function.
pub(crate) type NetFunction = VirtioPci<Net>;

/// Longest Ethernet frame without check sequence: 1500 bytes, the header, one VLAN tag.
const FRAME_MAX: usize = 1518;
/// Shortest Ethernet frame: a header.
const FRAME_MIN: usize = 14;
/// Bytes of `struct virtio_net_hdr` with `num_buffers` (section 5.1.6), which VERSION_1 always includes.
const HEADER_BYTES: usize = 12;
/// Offset of `num_buffers` in the header. Without VIRTIO_NET_F_MRG_RXBUF the field is 1 (section
/// 5.1.6.4.1).
const NUM_BUFFERS: usize = 10;
/// Queue indices (section 5.1.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Event counters, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NetCounters {
    /// Transport and queues.
    pub transport: TransportCounters,
    /// Frames put into the receive queue.
    pub received: u64,
    /// Received frames that were dropped because there was no buffer or no running driver.
    pub no_buffer: u64,
    /// Received frames that were dropped because they were longer than the next buffer.
    pub short_buffer: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames that the guest sent and that are too short or too long for Ethernet.
    pub bad_size: u64,
}

/// The network device.
#[derive(Debug)]
pub(crate) struct Net {
    /// `struct virtio_net_config` (section 5.1.4): MAC, then the link status.
    config: [u8; CONFIG_BYTES],
    /// Buffer for the header and the frame that are being sent.
    outgoing: Box<[u8; HEADER_BYTES + FRAME_MAX]>,
    /// Buffer for the header and the frame that are being received.
    incoming: Box<[u8; HEADER_BYTES + FRAME_MAX]>,
    counters: NetCounters,
}

impl Net {
    fn new(mac: [u8; 6]) -> Self {
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&mac);
        config[6..].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        let mut incoming = Box::new([0; HEADER_BYTES + FRAME_MAX]);
        incoming[NUM_BUFFERS] = 1;
        Self {
            config,
            outgoing: Box::new([0; HEADER_BYTES + FRAME_MAX]),
            incoming,
            counters: NetCounters::default(),
        }
    }

    fn mac(&self) -> [u8; 6] {
        std::array::from_fn(|i| self.config[i])
    }

    /// Sends the frames that the driver made available. The loop is bounded; frames that the driver adds
    /// meanwhile wait for a kick.
    fn transmit(
        &mut self,
        queue: &mut VirtQueue,
        access: &mut Access<'_>,
    ) -> Result<bool, Failure> {
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(access.ram)? else { break };
            let head = chain.head_index();
            let bytes = gather(access.ram, chain, queue.size(), &mut self.outgoing[..])?;
            match usize::try_from(bytes).ok().and_then(|end| self.outgoing.get(..end)) {
                Some(packet) if packet.len() >= HEADER_BYTES + FRAME_MIN => {
                    access.boundary.output(&packet[HEADER_BYTES..])?;
                    self.counters.sent += 1;
                }
                Some(_) | None => self.counters.bad_size += 1,
            }
            queue.push(access.ram, head, 0)?;
        }
        queue.set_kicks_enabled(access.ram, true)?;
        Ok(queue.needs_interrupt(access.ram)?)
    }

    /// Puts a frame into the receive queue.
    fn receive(
        &mut self,
        frame: &[u8],
        queue: &mut VirtQueue,
        ram: &GuestRam,
    ) -> Result<bool, QueueError> {
        let end = HEADER_BYTES + frame.len();
        let Some(slot) = self.incoming.get_mut(HEADER_BYTES..end) else {
            self.counters.short_buffer += 1;
            return Ok(false);
        };
        slot.copy_from_slice(frame);
        let Some(chain) = queue.pop(ram)? else {
            self.counters.no_buffer += 1;
            return Ok(false);
        };
        let head = chain.head_index();
        if room(chain.clone(), queue.size())? < end as u64 {
            // The buffer stays available for a frame that fits. The driver violated section 5.1.6.3.1.
            queue.unpop();
            self.counters.short_buffer += 1;
            return Ok(false);
        }
        scatter(ram, chain, queue.size(), &self.incoming[..end])?;
        queue.push(ram, head, end as u32)?;
        self.counters.received += 1;
        let empty = !queue.has_available(ram);
        queue.set_kicks_enabled(ram, empty)?;
        queue.needs_interrupt(ram)
    }
}

impl VirtioDevice for Net {
    const NAME: &'static str = "virtio-net";
    const IDENTITY: &'static Identity = IDENTITY;
    const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
        | 1 << VIRTIO_RING_F_EVENT_IDX
        | 1 << VIRTIO_NET_F_MAC
        | 1 << VIRTIO_NET_F_STATUS;
    const QUEUE_SIZES: &'static [u16] = &[QUEUE_SIZE, QUEUE_SIZE];
    type State = NetState;
    type Counters = NetCounters;

    fn power_on(config: &DeviceConfig) -> Self {
        Self::new(config.mac)
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, queues: &mut [VirtQueue], ram: &GuestRam) -> Result<(), QueueError> {
        let empty = !queues[RECEIVE].has_available(ram);
        queues[RECEIVE].set_kicks_enabled(ram, empty)?;
        queues[TRANSMIT].set_kicks_enabled(ram, true)
    }

    fn kick(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<bool, Failure> {
        if index == TRANSMIT {
            return self.transmit(&mut queues[TRANSMIT], access);
        }
        // There are buffers now, so no kick is needed until they are used up.
        let empty = !queues[RECEIVE].has_available(access.ram);
        queues[RECEIVE].set_kicks_enabled(access.ram, empty)?;
        Ok(false)
    }

    /// Receives a frame. It is dropped if there is no driver or no buffer for it.
    fn accept(function: &mut VirtioPci<Self>, input: Input<'_>, ram: &GuestRam) -> bool {
        match input {
            Input::Frame(frame) => {
                let running = function
                    .at_input(|device, queues| device.receive(frame, &mut queues[RECEIVE], ram));
                if !running {
                    function.device_mut().counters.no_buffer += 1;
                }
                true
            }
            Input::Clock { .. } | Input::Console(_) | Input::Disk(_) => false,
        }
    }

    fn add_capacity(function: &VirtioPci<Self>, capacity: &mut DeviceCapacity, ram: &GuestRam) {
        capacity.frame = function.has_buffer(RECEIVE, ram);
    }

    fn interrupt_served(boundary: &mut dyn DeviceBoundary<Error = SourceError>) {
        boundary.interrupt_served();
    }

    fn save(&self, transport: TransportState) -> NetState {
        NetState { transport, mac: self.mac() }
    }

    fn restore(state: NetState) -> Option<(Self, TransportState)> {
        Some((Self::new(state.mac), state.transport))
    }

    fn counters(&self, transport: TransportCounters) -> NetCounters {
        NetCounters { transport, ..self.counters }
    }
}
