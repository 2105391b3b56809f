//! The virtio devices: found and started as a driver does, then abused.

use crate::gate::{Accesses, READ, WRITE};
use crate::memory;
use crate::random::Random;

/// Slots and queue counts of virtio-net, virtio-rng and the first disk. A machine may have no disk: its slot is empty then.
const DEVICES: [(u32, u16); 3] = [(1, 2), (2, 1), (DISK, 1)];
const DISK: u32 = 3;
/// Entries in a queue that this guest sets up.
const SIZES: [u16; 4] = [1, 8, 16, 256];
/// Registers of the common configuration, some beside it, and those of the other structures.
const OFFSETS: [u32; 28] = [
    0x00, 0x04, 0x08, 0x0C, 0x10, 0x12, 0x14, 0x15, 0x16, 0x18, 0x1A, 0x1C, 0x1E, 0x20, 0x24, 0x28,
    0x2C, 0x30, 0x34, 0x38, 0x3A, 0x1000, 0x2000, 0x2006, 0x3000, 0x3004, 0x3FFC, 0x3FFF,
];
const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_BLK_F_FLUSH, which a driver of a disk must accept.
const FLUSH: u64 = 1 << 9;
/// Descriptor flags: NEXT, WRITE, INDIRECT.
const NEXT: u64 = 1;
const DEVICE_WRITES: u64 = 2;
const RAM_END: u64 = 64 << 20;
/// What devices may write without ending the guest: buffers that hold nothing else.
const BUFFERS: u64 = 0x100_0000;
const BUFFER_BYTES: u64 = 0x200_0000;

/// One of the devices.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    slot: u32,
    queues: u16,
}

/// Address of a queue's area: 0 the descriptors, 1 the available ring, 2 the used ring.
fn area(slot: u32, queue: u16, index: u64) -> u64 {
    0x20_0000 + 0x4_0000 * u64::from(slot) + 0x1_0000 * u64::from(queue) + 0x4000 * index
}

pub(crate) fn any(random: &mut Random) -> Device {
    let (slot, queues) = random.pick(&DEVICES);
    Device { slot, queues }
}

pub(crate) fn configuration(list: &mut Accesses, slot: u32, register: u32, value: u64) {
    list.out(4, 0xCF8, u64::from(1 << 31 | slot << 11 | register));
    list.out(4, 0xCFC, value);
}

impl Device {
    /// Where this guest puts the device's window.
    pub(crate) fn window(self) -> u32 {
        0xFEB0_0000 + 0x4000 * self.slot
    }

    fn queue(self, random: &mut Random) -> u16 {
        random.below(u64::from(self.queues)) as u16
    }

    /// Initializes the device and its queues. Some steps go wrong at random.
    pub(crate) fn start(self, random: &mut Random) {
        let mut list = Accesses::new();
        let window = self.window();
        configuration(&mut list, self.slot, 0x10, u64::from(window));
        configuration(&mut list, self.slot, 4, 6);
        for status in [0, 1, 3] {
            list.add(WRITE[0], window + 0x14, status);
        }
        let features = if random.once_in(2) { EVENT_IDX } else { 0 };
        let features = features | if self.slot == DISK { FLUSH } else { 0 };
        for (half, value) in [(0, features), (1, 1)] {
            list.add(WRITE[2], window + 8, half);
            list.add(WRITE[2], window + 12, value);
        }
        list.add(WRITE[0], window + 0x14, 11);
        for queue in 0..self.queues {
            list.add(WRITE[1], window + 0x16, u64::from(queue));
            list.add(WRITE[1], window + 0x18, u64::from(random.pick(&SIZES)));
            for index in 0..3 {
                let area = match random.below(40) {
                    // At the end of RAM, outside it, or on another area.
                    0 => RAM_END - random.below(0x2000),
                    1 => random.value(),
                    2 => area(self.slot, queue, random.below(3)),
                    _ => area(self.slot, queue, index),
                };
                list.add(WRITE[3], window + 0x20 + 8 * index as u32, area);
            }
            memory::write(area(self.slot, queue, 1), 0u32);
            memory::write(area(self.slot, queue, 2), 0u32);
            list.add(WRITE[1], window + 0x1C, 1);
        }
        list.add(WRITE[0], window + 0x14, 15);
        list.add(READ[0], window + 0x14, 0);
        random.fold(list.perform(0));
    }

    /// Writes a random descriptor: any length; in RAM, across its end, in a device's window, above 4 GiB.
    fn descriptor(self, random: &mut Random, queue: u16, index: u64, is_wild: bool) {
        let bytes = match random.below(8) {
            0 => u64::from(u32::MAX),
            1 => random.next() & 0xFFFF_FFFF,
            2 => 65536,
            3 => 0,
            _ => random.below(2000),
        };
        let mut flags = random.below(4);
        let address = match random.below(10) {
            0 => RAM_END - random.below(0x400),
            1 => u64::from(self.window()) + random.below(0x8000),
            2 => random.value(),
            3 => area(self.slot, queue, 0) + random.below(0xC000),
            4 if is_wild => random.below(RAM_END),
            _ => BUFFERS + random.below(BUFFER_BYTES),
        };
        // What a device writes to any place could end the guest; it may do that only in a wild run.
        if !is_wild && (address < BUFFERS || address + bytes > RAM_END && bytes > BUFFER_BYTES) {
            flags &= !DEVICE_WRITES;
        }
        if random.once_in(10) {
            flags |= 4 | random.below(16);
            if !is_wild && address < BUFFERS {
                flags &= !DEVICE_WRITES;
            }
        }
        let next = match random.below(8) {
            0 => random.below(1 << 16),
            1 => index,
            _ => index + 1,
        };
        let at = area(self.slot, queue, 0) + 16 * index;
        memory::write(at, address);
        memory::write(at + 8, bytes | flags << 32 | (next & 0xFFFF) << 48);
    }

    /// Makes a well-formed chain, which is most likely to be processed.
    fn good_descriptor(self, random: &mut Random, queue: u16, index: u64) {
        if self.slot == DISK {
            return self.disk_request(random, queue, index - index % 3);
        }
        let receives = self.slot == 2 || queue == 0;
        let bytes =
            if self.slot == 2 { random.pick(&[1, 64, 4096]) } else { 60 + random.below(1500) };
        let flags = if receives { DEVICE_WRITES } else { 0 };
        let at = area(self.slot, queue, 0) + 16 * index;
        memory::write(at, BUFFERS + random.below(BUFFER_BYTES));
        let flags = if random.once_in(4) { flags | NEXT } else { flags };
        memory::write(at + 8, bytes | flags << 32 | (index + 1) << 48);
    }

    /// Makes a request to the disk of the descriptors from `index` on: header, data, status. It is on the disk most of the
    /// time.
    fn disk_request(self, random: &mut Random, queue: u16, index: u64) {
        // Reads, writes, a flush, the serial number, a discard, zeros; and an unknown type.
        let kind = random.pick(&[0u64, 0, 1, 1, 1, 4, 8, 11, 13, 77]);
        let bytes = random.pick(&[512u64, 512, 4096, 16, 20, 100]);
        let header = BUFFERS + random.below(BUFFER_BYTES);
        let data = BUFFERS + random.below(BUFFER_BYTES);
        memory::write(header, kind);
        memory::write(header + 8, random.below(2100));
        if kind > 8 {
            memory::write(data, random.below(2100));
            memory::write(data + 8, random.below(32) | random.below(2) << 32);
        }
        let data_flags = if kind == 0 || kind == 8 { DEVICE_WRITES } else { 0 };
        let parts = [
            (header, 16, NEXT),
            (data, bytes, NEXT | data_flags),
            (BUFFERS + random.below(BUFFER_BYTES), 1, DEVICE_WRITES),
        ];
        for (part, (address, bytes, flags)) in (index..).zip(parts) {
            let at = area(self.slot, queue, 0) + 16 * part;
            memory::write(at, address);
            memory::write(at + 8, bytes | flags << 32 | (part + 1) << 48);
        }
    }

    /// Writes descriptors and indices of a ring, and kicks.
    pub(crate) fn abuse_ring(self, random: &mut Random, is_wild: bool) {
        let queue = self.queue(random);
        let is_kind = random.once_in(2);
        for _ in 0..1 + random.below(6) {
            let index = random.below(9);
            match is_kind {
                true => self.good_descriptor(random, queue, index),
                false => self.descriptor(random, queue, index, is_wild),
            }
        }
        let available = area(self.slot, queue, 1);
        for _ in 0..random.below(6) {
            let head =
                if random.once_in(10) { random.next() as u16 } else { random.below(9) as u16 };
            memory::write(available + 4 + 2 * random.below(16), head);
        }
        let step = if random.once_in(8) { random.next() as u16 } else { random.below(4) as u16 };
        let index = memory::read::<u16>(available + 2).wrapping_add(step);
        memory::write(available + 2, index);
        if random.once_in(8) {
            memory::write(available, random.next() as u16);
            memory::write(area(self.slot, queue, 2), random.next() as u16);
        }
        let mut list = Accesses::new();
        for _ in 0..1 + random.below(3) {
            let queue = if random.once_in(8) { random.below(5) as u32 } else { u32::from(queue) };
            list.add(WRITE[1], self.window() + 0x3000 + 4 * queue, u64::from(queue));
        }
        list.add(READ[0], self.window() + 0x1000, 0);
        let interrupts = random.below(2);
        random.fold(list.perform(interrupts));
        random.fold(memory::read::<u64>(area(self.slot, queue, 2)));
    }

    /// Adds accesses to any registers, of any width.
    pub(crate) fn abuse_registers(self, random: &mut Random, list: &mut Accesses) {
        let at = self.window() + random.pick(&OFFSETS);
        if random.once_in(3) {
            return list.add(random.pick(&READ), at, 0);
        }
        // A device that is reset all the time does nothing.
        if at & 0xFFFF != 0x14 || random.once_in(8) {
            let value = random.value();
            list.add(random.pick(&WRITE), at, value);
        }
    }

    /// A queue of buffers that are as long as they may be, all of them at one place.
    pub(crate) fn flood(self, random: &mut Random) {
        let queue = self.queues - 1;
        let bytes = if self.slot == 2 { 0x10_0000 } else { 1526u64 };
        let flags = if self.slot == 2 { DEVICE_WRITES } else { 0 };
        for index in 0..8 {
            let at = area(self.slot, queue, 0) + 16 * index;
            memory::write(at, BUFFERS);
            memory::write(at + 8, bytes | flags << 32);
            memory::write(area(self.slot, queue, 1) + 4 + 2 * index, index as u16);
        }
        let mut list = Accesses::new();
        for _ in 0..random.below(6) {
            let index = memory::read::<u16>(area(self.slot, queue, 1) + 2).wrapping_add(8);
            memory::write(area(self.slot, queue, 1) + 2, index);
            list.add(WRITE[1], self.window() + 0x3000 + 4 * u32::from(queue), 0);
            list.perform(0);
        }
    }
}
