//! virtio-net as a device of the network stack.
//!
//! Frames are built and read in the ring's own buffers: nothing is copied between the driver and the
//! stack. A token that sends owns a free transmit buffer by construction, because none is handed out when
//! the ring is full; then the device counts as blocked, and the main loop waits for room.

use core::cell::RefCell;

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Ipv4Address,
};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::pci::PciTransport;

use crate::clock;
use crate::dma::StaticDma;
use crate::kick::{GatedTransport, Kicks};
use crate::mem::once;

/// Buffers in each direction. Small rings keep the set of pages that traffic dirties small, which is what
/// a checkpoint pays for; 32 frames still cover a full window of several connections.
const RING: usize = 32;
/// An Ethernet frame with its virtio header, in a size that does not straddle pages.
const BUFFER: usize = 2048;
const MTU: usize = 1514;

type Buffer = [u8; BUFFER];
type Driver = VirtIONetRaw<StaticDma, GatedTransport, RING>;

/// The network device.
pub(crate) struct Net {
    driver: RefCell<Driver>,
    receive: Receive,
    transmit: Transmit,
    kicks: &'static Kicks,
}

struct Receive {
    buffers: &'static mut [Buffer; RING],
    /// Descriptor -> buffer that was given to the device with it.
    owner: [usize; RING],
}

struct Transmit {
    buffers: &'static mut [Buffer; RING],
    /// Bytes in flight per buffer, 0 if it is free.
    in_flight: [usize; RING],
    owner: [usize; RING],
    /// A frame could not be sent for want of a buffer.
    blocked: bool,
}

impl Net {
    /// Brings the device up and gives it all receive buffers.
    pub(crate) fn new(transport: PciTransport) -> Self {
        let kicks: &'static Kicks = once!(Kicks, Kicks::new());
        let mut driver = Driver::new(GatedTransport::new(transport, kicks))
            .unwrap_or_else(|error| panic!("virtio-net: {error}"));
        let mut receive =
            Receive { buffers: once!([Buffer; RING], [[0; BUFFER]; RING]), owner: [0; RING] };
        for index in 0..RING {
            post(&mut driver, &mut receive.buffers[index], index, &mut receive.owner);
        }
        let transmit = Transmit {
            buffers: once!([Buffer; RING], [[0; BUFFER]; RING]),
            in_flight: [0; RING],
            owner: [0; RING],
            blocked: false,
        };
        Self { driver: RefCell::new(driver), receive, transmit, kicks }
    }

    pub(crate) fn mac(&self) -> EthernetAddress {
        EthernetAddress(self.driver.borrow().mac_address())
    }

    /// Whether a frame waits to be received.
    pub(crate) fn has_received(&self) -> bool {
        self.driver.borrow().poll_receive().is_some()
    }

    /// Whether sending waits for the device. Looks again, so that room that has come up since counts.
    pub(crate) fn is_blocked(&mut self) -> bool {
        self.transmit.blocked =
            self.transmit.blocked && self.transmit.free_buffer(self.driver.get_mut()).is_none();
        self.transmit.blocked
    }

    /// The kicks for the next gate.
    pub(crate) fn take_kicks(&mut self) -> u32 {
        self.kicks.take(self.transmit.blocked)
    }

    /// Tells the LAN who has the address, so that the first packet to us needs no question.
    pub(crate) fn announce(&mut self, ip: Ipv4Address) {
        let mac = self.mac();
        let ethernet = EthernetRepr {
            src_addr: mac,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: mac,
            source_protocol_addr: ip,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: ip,
        };
        let Some(token) = phy::Device::transmit(self, clock::now()) else { return };
        phy::TxToken::consume(token, ethernet.buffer_len() + arp.buffer_len(), |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            ethernet.emit(&mut frame);
            arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }
}

/// Gives a receive buffer to the device.
fn post(driver: &mut Driver, buffer: &mut Buffer, index: usize, owner: &mut [usize; RING]) {
    // SAFETY: the buffer is static, and it is read again only after the device returned its descriptor:
    // `owner` then leads back to it.
    let token = unsafe { driver.receive_begin(buffer) }
        .unwrap_or_else(|error| panic!("virtio-net receive: {error}"));
    owner[usize::from(token)] = index;
}

impl Transmit {
    /// A buffer that is free to fill. Sent ones are collected only when none is, which makes it once per
    /// ring.
    fn free_buffer(&mut self, driver: &mut Driver) -> Option<usize> {
        let free = |t: &Self| t.in_flight.iter().position(|&len| len == 0);
        free(self).or_else(|| {
            while let Some(token) = driver.poll_transmit() {
                let index = self.owner[usize::from(token) % RING];
                let sent = &self.buffers[index][..self.in_flight[index]];
                // SAFETY: `owner` gives the buffer that was passed with this descriptor, and its length
                // is the one it was passed with.
                unsafe { driver.transmit_complete(token, sent) }
                    .unwrap_or_else(|error| panic!("virtio-net transmit: {error}"));
                self.in_flight[index] = 0;
            }
            free(self)
        })
    }
}

/// A received frame; its buffer goes back to the device when the stack is done with it.
pub(crate) struct RxToken<'a> {
    driver: &'a RefCell<Driver>,
    buffer: &'a mut Buffer,
    owner: &'a mut [usize; RING],
    index: usize,
    frame: core::ops::Range<usize>,
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.buffer[self.frame]);
        post(&mut self.driver.borrow_mut(), self.buffer, self.index, self.owner);
        result
    }
}

/// The right to send one frame.
pub(crate) struct TxToken<'a> {
    driver: &'a RefCell<Driver>,
    transmit: &'a mut Transmit,
    index: usize,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut driver = self.driver.borrow_mut();
        let buffer = &mut self.transmit.buffers[self.index];
        let header = driver.fill_buffer_header(buffer).expect("a buffer holds a header");
        let result = fill(&mut buffer[header..header + len]);
        // SAFETY: the buffer is static, and `in_flight` keeps everyone off it until the device is done.
        let token = unsafe { driver.transmit_begin(&buffer[..header + len]) }
            .unwrap_or_else(|error| panic!("virtio-net transmit: {error}"));
        self.transmit.in_flight[self.index] = header + len;
        self.transmit.owner[usize::from(token)] = self.index;
        result
    }
}

impl phy::Device for Net {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    /// A frame is only taken in when its answer could be sent.
    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let driver = self.driver.get_mut();
        let token = driver.poll_receive()?;
        let Some(free) = self.transmit.free_buffer(driver) else {
            self.transmit.blocked = true;
            return None;
        };
        let index = self.receive.owner[usize::from(token) % RING];
        let buffer = &mut self.receive.buffers[index];
        // SAFETY: `owner` gives the buffer that was passed with this descriptor.
        let (header, len) = unsafe { driver.receive_complete(token, buffer) }
            .unwrap_or_else(|error| panic!("virtio-net receive: {error}"));
        let frame = header..(header + len).min(BUFFER);
        let receive =
            RxToken { driver: &self.driver, buffer, owner: &mut self.receive.owner, index, frame };
        Some((receive, TxToken { driver: &self.driver, transmit: &mut self.transmit, index: free }))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        let Some(index) = self.transmit.free_buffer(self.driver.get_mut()) else {
            self.transmit.blocked = true;
            return None;
        };
        Some(TxToken { driver: &self.driver, transmit: &mut self.transmit, index })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}
