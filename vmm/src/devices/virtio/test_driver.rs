//! A minimal virtio driver for the device tests.

use crate::devices::test_machine::TestMachine;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const NET_DEVICE: u32 = 1;
pub(crate) const RNG_DEVICE: u32 = 2;
/// The disk that can be written, and the one that can't.
pub(crate) const DISK_DEVICE: u32 = 3;
pub(crate) const READ_ONLY_DISK_DEVICE: u32 = 4;
/// VIRTIO_BLK_F_FLUSH, which a driver of a disk must accept.
pub(crate) const FLUSH: u64 = 1 << 9;

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

/// Status as a driver leaves it: ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK.
pub(crate) const RUNNING: u8 = 15;
pub(crate) const NEEDS_RESET: u8 = 0x40;

/// Addresses of a queue's rings.
const fn descriptors(queue: u16) -> u64 {
    0x1_0000 + 0x1_0000 * queue as u64
}
pub(crate) const fn avail(queue: u16) -> u64 {
    descriptors(queue) + 0x4000
}
pub(crate) const fn used(queue: u16) -> u64 {
    descriptors(queue) + 0x8000
}

/// The driver of one device.
pub(crate) struct Driver {
    pub(crate) window: u64,
    pub(crate) size: u16,
    next_descriptor: [u16; 2],
    added: [u16; 2],
    seen: [u16; 2],
}

impl Driver {
    /// Finds the device, enables its window and takes it to FEATURES_OK.
    pub(crate) fn negotiate(m: &mut TestMachine, device: u32, features: u64) -> Self {
        let window = u64::from(m.config_read(device, 0x10));
        m.config_write(device, 4, 6);
        let this = Self { window, size: 8, next_descriptor: [0; 2], added: [0; 2], seen: [0; 2] };
        this.set_status(m, 0);
        this.set_status(m, 1);
        this.set_status(m, 3);
        for half in 0..2u32 {
            m.write_memory(window + 0x08, &half.to_le_bytes());
            m.write_memory(window + 0x0C, &((features >> (32 * half)) as u32).to_le_bytes());
        }
        this.set_status(m, 11);
        this
    }

    /// Initializes a device with `queues` queues of `size` entries.
    pub(crate) fn start(
        m: &mut TestMachine,
        device: u32,
        features: u64,
        queues: u16,
        size: u16,
    ) -> Self {
        let mut this = Self::negotiate(m, device, features);
        this.size = size;
        for queue in 0..queues {
            this.set_up_queue(m, queue);
        }
        this.set_status(m, RUNNING);
        assert_eq!(this.status(m), RUNNING);
        this
    }

    pub(crate) fn set_up_queue(&self, m: &mut TestMachine, queue: u16) {
        m.write_memory(self.window + 0x16, &queue.to_le_bytes());
        m.write_memory(self.window + 0x18, &self.size.to_le_bytes());
        m.write_memory(self.window + 0x20, &descriptors(queue).to_le_bytes());
        // One address in halves, as Linux writes them.
        m.write_memory(self.window + 0x28, &(avail(queue) as u32).to_le_bytes());
        m.write_memory(self.window + 0x2C, &0u32.to_le_bytes());
        m.write_memory(self.window + 0x30, &used(queue).to_le_bytes());
        m.write_memory(self.window + 0x1C, &1u16.to_le_bytes());
    }

    pub(crate) fn set_status(&self, m: &mut TestMachine, status: u8) {
        m.write_memory(self.window + 0x14, &[status]);
    }

    pub(crate) fn status(&self, m: &mut TestMachine) -> u8 {
        let mut status = [0];
        m.read_memory(self.window + 0x14, &mut status);
        status[0]
    }

    /// Reads ISR status, which clears it.
    pub(crate) fn isr(&self, m: &mut TestMachine) -> u8 {
        let mut isr = [0];
        m.read_memory(self.window + 0x1000, &mut isr);
        isr[0]
    }

    pub(crate) fn kick(&self, m: &mut TestMachine, queue: u16) {
        m.write_memory(self.window + 0x3000 + 4 * u64::from(queue), &queue.to_le_bytes());
    }

    pub(crate) fn write_descriptor(
        &self,
        m: &TestMachine,
        queue: u16,
        index: u16,
        (address, bytes, flags, next): (u64, u32, u16, u16),
    ) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&bytes.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        m.write_ram(descriptors(queue) + 16 * u64::from(index), &raw);
    }

    /// Makes the chain at `head` available.
    pub(crate) fn make_available(&mut self, m: &TestMachine, queue: u16, head: u16) {
        let added = &mut self.added[usize::from(queue)];
        let slot = avail(queue) + 4 + 2 * u64::from(*added % self.size);
        m.write_ram(slot, &head.to_le_bytes());
        *added = added.wrapping_add(1);
        m.write_ram(avail(queue) + 2, &added.to_le_bytes());
    }

    /// Makes a chain of `parts` (address, bytes, WRITE or 0) available and returns its head.
    pub(crate) fn add(&mut self, m: &TestMachine, queue: u16, parts: &[(u64, u32, u16)]) -> u16 {
        let head = self.next_descriptor[usize::from(queue)] % self.size;
        for (i, (address, bytes, flags)) in parts.iter().enumerate() {
            let index = (head + i as u16) % self.size;
            let next = (index + 1) % self.size;
            let link = if i + 1 < parts.len() { NEXT } else { 0 };
            self.write_descriptor(m, queue, index, (*address, *bytes, flags | link, next));
        }
        self.next_descriptor[usize::from(queue)] = head + parts.len() as u16;
        self.make_available(m, queue, head);
        head
    }

    /// Returns the used entries since the last call: head and bytes written.
    pub(crate) fn take_used(&mut self, m: &TestMachine, queue: u16) -> Vec<(u32, u32)> {
        let index = u16::from_le_bytes(m.read_ram(used(queue) + 2));
        let seen = &mut self.seen[usize::from(queue)];
        let mut entries = Vec::new();
        while *seen != index {
            let raw: [u8; 8] = m.read_ram(used(queue) + 4 + 8 * u64::from(*seen % self.size));
            let (head, bytes) = raw.split_at(4);
            entries.push((
                u32::from_le_bytes(head.try_into().unwrap()),
                u32::from_le_bytes(bytes.try_into().unwrap()),
            ));
            *seen = seen.wrapping_add(1);
        }
        entries
    }

    /// Sets used_event: the device interrupts when the used index passes it.
    pub(crate) fn set_used_event(&self, m: &TestMachine, queue: u16, event: u16) {
        m.write_ram(avail(queue) + 4 + 2 * u64::from(self.size), &event.to_le_bytes());
    }

    /// Returns avail_event: the device requests a kick when the available index passes it.
    pub(crate) fn avail_event(&self, m: &TestMachine, queue: u16) -> u16 {
        u16::from_le_bytes(m.read_ram(used(queue) + 4 + 8 * u64::from(self.size)))
    }

    /// Whether a driver that adds one buffer now would kick (virtio 1.2, section 2.7.10).
    pub(crate) fn would_kick(&self, m: &TestMachine, queue: u16) -> bool {
        let old = self.added[usize::from(queue)];
        let new = old.wrapping_add(1);
        let event = self.avail_event(m, queue);
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }
}
