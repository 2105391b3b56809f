//! The network device's transport: the driver crate's, with the notifications taken over.
//!
//! The crate writes a kick for each buffer, three device accesses each. Here kicks pile up until the gate
//! issues them together, so what matters is whether the device wants one *since the last gate*. That is
//! the specification's event-index rule over the whole batch (virtio 1.2, 2.7.10), computed from the
//! rings. Transmit interrupts are kept off the same way: sent buffers are collected when room is needed.

use core::cell::Cell;
use core::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pci::Registers;

/// Queue numbers of a network device without multiqueue.
const RX: usize = 0;
const TX: usize = 1;
const QUEUES: usize = 2;

const FEATURE_EVENT_IDX: u64 = 1 << 29;
/// Further ahead than a ring is long: an event that cannot come before the next gate moves it on.
const FAR: u16 = 0x4000;

/// `queue_select` and `queue_notify_off` in the common configuration (virtio 1.2, 4.1.4.3).
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;

/// Where each queue is kicked: asked once, cached for the stub.
pub(crate) fn notify_addresses(registers: &Registers) -> [u64; QUEUES] {
    [RX, TX].map(|queue| {
        // SAFETY: the capabilities named this as the device's common configuration, the window is mapped,
        // and these two registers have no effect beyond selecting a queue.
        let offset = unsafe {
            ((registers.common + QUEUE_SELECT) as *mut u16).write_volatile(queue as u16);
            ((registers.common + QUEUE_NOTIFY_OFF) as *const u16).read_volatile()
        };
        registers.notify + u64::from(offset) * u64::from(registers.notify_multiplier)
    })
}

/// The driver's and the device's ring of one queue, where the crate put them.
#[derive(Clone, Copy)]
struct Rings {
    available: PhysAddr,
    used: PhysAddr,
    size: u16,
    /// Available index at the last gate.
    gated: u16,
}

impl Rings {
    fn word(&self, address: PhysAddr) -> &AtomicU16 {
        // SAFETY: the callers below name 16-bit fields of rings that live in the static DMA arena, 2-byte
        // aligned by their layout; the crate accesses the same fields as atomics.
        unsafe { AtomicU16::from_ptr(address as *mut u16) }
    }

    fn available_index(&self) -> u16 {
        self.word(self.available + 2).load(Ordering::Acquire)
    }

    /// Set by the driver: interrupt when the used index passes this.
    fn used_event(&self) -> &AtomicU16 {
        self.word(self.available + 4 + 2 * u64::from(self.size))
    }

    fn used_index(&self) -> u16 {
        self.word(self.used + 2).load(Ordering::Acquire)
    }

    /// Set by the device: kick when the available index passes this.
    fn available_event(&self) -> u16 {
        self.word(self.used + 4 + 8 * u64::from(self.size)).load(Ordering::Acquire)
    }

    /// Whether the device asked for a kick by the buffers added since the last gate.
    fn take_wanted_kick(&mut self) -> bool {
        let (new, old) = (self.available_index(), self.gated);
        self.gated = new;
        new.wrapping_sub(self.available_event()).wrapping_sub(1) < new.wrapping_sub(old)
    }
}

/// Kicks that wait for the gate. The transport, which the driver owns, writes it; the main loop takes
/// from it.
pub(crate) struct Kicks {
    event_idx: Cell<bool>,
    rings: [Cell<Option<Rings>>; QUEUES],
    /// Kicks the crate decided on; they count when there is no event index.
    requested: Cell<u32>,
}

impl Kicks {
    pub(crate) const fn new() -> Self {
        Self {
            event_idx: Cell::new(false),
            rings: [const { Cell::new(None) }; QUEUES],
            requested: Cell::new(0),
        }
    }

    /// The queues to kick at the next gate (bit n: queue n). `sending_blocked` asks for an interrupt when
    /// the device has sent something.
    pub(crate) fn take(&self, sending_blocked: bool) -> u32 {
        let requested = self.requested.take();
        if !self.event_idx.get() {
            return requested;
        }
        if let Some(tx) = self.rings[TX].get() {
            let event = if sending_blocked {
                tx.used_index()
            } else {
                tx.available_index().wrapping_add(FAR)
            };
            tx.used_event().store(event, Ordering::Release);
        }
        // The device may run beside us on other hypervisors: what we published must be visible before we
        // look at what it published.
        fence(Ordering::SeqCst);
        let mut kicks = 0;
        for (queue, slot) in self.rings.iter().enumerate() {
            if let Some(mut rings) = slot.get() {
                kicks |= u32::from(rings.take_wanted_kick()) << queue;
                slot.set(Some(rings));
            }
        }
        kicks
    }
}

/// A `PciTransport` that notes kicks instead of making them.
pub(crate) struct GatedTransport {
    inner: PciTransport,
    kicks: &'static Kicks,
}

impl GatedTransport {
    pub(crate) fn new(inner: PciTransport, kicks: &'static Kicks) -> Self {
        Self { inner, kicks }
    }
}

impl Transport for GatedTransport {
    fn notify(&mut self, queue: u16) {
        self.kicks.requested.update(|kicks| kicks | 1 << queue);
    }

    fn write_driver_features(&mut self, features: u64) {
        self.kicks.event_idx.set(features & FEATURE_EVENT_IDX != 0);
        self.inner.write_driver_features(features);
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        desc: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        let rings = Rings { available: driver, used: device, size: size as u16, gated: 0 };
        self.kicks.rings[usize::from(queue)].set(Some(rings));
        self.inner.queue_set(queue, size, desc, driver, device);
    }

    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.inner.read_device_features()
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.inner.max_queue_size(queue)
    }

    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.inner.set_status(status);
    }

    fn set_guest_page_size(&mut self, size: u32) {
        self.inner.set_guest_page_size(size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }

    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        self.inner.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        self.inner.write_config_space(offset, value)
    }
}
