//! The devices, as a guest reaches them.

use super::Input;
use logchan::limits::PAGE_BYTES;
use replication::boundary::{
    DeviceBoundary, DiskCompletion, DiskOperation, DiskRequest, DiskStatus, Input as MachineInput,
};
use vm_memory::{Bytes, GuestAddress};
use vmm::devices::{Access, DEFAULT_MAC, DeviceConfig, Devices, DiskConfig};
use vmm::mem::GuestRam;
use vmm::replay::SourceError;

const RAM_BYTES: usize = 256 * PAGE_BYTES;
const NET: u32 = 1;
const RNG: u32 = 2;
const DISK: u32 = 3;
const READ_ONLY_DISK: u32 = 4;
/// VIRTIO_BLK_F_FLUSH, which a driver of a disk must accept.
const FLUSH: u32 = 1 << 9;
/// Most accesses of one input.
const STEPS_MAX: usize = 256;
/// Most bytes of entropy and frames that one access may cause: a whole ring of the longest buffers.
const BYTES_MAX: usize = 64 << 20;

/// A boundary that counts what passes through it.
#[derive(Default)]
struct Counting {
    now_ns: u64,
    bytes: usize,
    /// Requests to disks that are not done: disk, number, and the bytes that a read returns.
    requests: Vec<(u8, u64, usize)>,
}

impl DeviceBoundary for Counting {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.now_ns += 1000;
        Ok(self.now_ns)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        Ok(1_700_000_000_000_000_000)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        self.bytes += bytes.len();
        bytes.fill(0xE7);
        Ok(bytes.len())
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.bytes += frame.len();
        Ok(())
    }

    fn console_output(&mut self, _byte: u8) {
        self.bytes += 1;
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        self.bytes += request.data.len();
        let read = if request.operation == DiskOperation::Read { request.bytes } else { 0 };
        self.requests.push((request.disk, request.number, read as usize));
        Ok(())
    }

    fn interrupt_served(&mut self) {}
}

/// Devices and memory without a vCPU.
struct Machine {
    devices: Devices,
    ram: GuestRam,
    boundary: Counting,
}

impl Machine {
    fn new() -> Self {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("it is small");
        let disk = DiskConfig { sectors: 2048, read_only: false, serial: *b"fuzz----------------" };
        let disks = [Some(disk), Some(DiskConfig { read_only: true, ..disk }), None, None];
        let devices = Devices::new(&DeviceConfig { mac: DEFAULT_MAC.octets(), disks });
        Self { devices, ram, boundary: Counting::default() }
    }

    /// Performs one access and checks how much it caused.
    fn access(&mut self, perform: impl FnOnce(&mut Devices, &mut Access<'_>)) {
        self.boundary.bytes = 0;
        perform(&mut self.devices, &mut Access { ram: &self.ram, boundary: &mut self.boundary });
        assert!(self.boundary.bytes < BYTES_MAX, "one access caused {} bytes", self.boundary.bytes);
    }

    fn out(&mut self, port: u16, data: &[u8]) {
        self.access(|devices, access| {
            devices.pio_out(port, data, access).expect("this boundary does not fail");
        });
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.access(|devices, access| {
            devices.mmio_write(address, data, access).expect("this boundary does not fail");
        });
    }

    fn read(&mut self, address: u64, bytes: usize) {
        let mut data = [0; 8];
        self.access(|devices, access| devices.mmio_read(address, &mut data[..bytes], access));
    }

    fn configure(&mut self, slot: u32, register: u32, data: &[u8]) {
        self.out(0xCF8, &(1 << 31 | (slot & 31) << 11 | register & 0xFC).to_le_bytes());
        self.out(0xCFC + (register & 3) as u16, data);
    }

    /// Initializes a device as a driver does. Queue `i` has its areas at `0x10000 * (i + 1)`.
    fn start(&mut self, slot: u32, size: u16, features: u32) -> u64 {
        let window = 0xFEB0_0000 + 0x4000 * (slot - 1);
        self.configure(slot, 0x10, &window.to_le_bytes());
        self.configure(slot, 4, &6u16.to_le_bytes());
        let window = u64::from(window);
        for status in [0, 1, 3] {
            self.write(window + 0x14, &[status]);
        }
        for (half, value) in [(0, features), (1u32, 1)] {
            self.write(window + 8, &half.to_le_bytes());
            self.write(window + 12, &value.to_le_bytes());
        }
        self.write(window + 0x14, &[11]);
        for queue in 0..2u16 {
            let area = 0x1_0000 * (u64::from(queue) + 1);
            self.write(window + 0x16, &queue.to_le_bytes());
            self.write(window + 0x18, &size.to_le_bytes());
            for (register, offset) in [(0x20, 0), (0x28, 0x4000), (0x30, 0x8000)] {
                self.write(window + register, &(area + offset).to_le_bytes());
            }
            self.write(window + 0x1C, &1u16.to_le_bytes());
        }
        self.write(window + 0x14, &[15]);
        window
    }

    /// Completes the requests to disks, every second one with a failure.
    fn complete(&mut self) {
        for (disk, number, bytes) in std::mem::take(&mut self.boundary.requests) {
            let data = vec![0xD1; bytes];
            let (status, data) = match number % 2 {
                0 => (DiskStatus::Failed, &[][..]),
                _ => (DiskStatus::Done, &data[..]),
            };
            let completion = DiskCompletion { disk, number, status, data };
            self.devices.apply(MachineInput::Disk(completion), &self.ram);
            self.access(|devices, access| {
                devices.resume(access).expect("this boundary does not fail");
            });
        }
    }

    /// Checks that the state can be saved, as it is in a checkpoint, and that the inputs which the devices say
    /// they accept are harmless.
    fn receive(&mut self, frame: &[u8]) {
        let _capacity = self.devices.capacity(&self.ram);
        self.devices.apply(MachineInput::Frame(frame), &self.ram);
        self.complete();
        let now_ns = self.boundary.now_ns + 1_000_000;
        self.devices.apply(MachineInput::Clock { now_ns }, &self.ram);
        self.devices.acknowledge_interrupt();
    }
}

/// Descriptors, an available ring and what lies around them, as the guest wrote them; then kicks and frames.
pub(crate) fn virtqueue(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (flags, size) = (input.u8(), 1 << (input.u8() % 9));
    let slot = match flags & 5 {
        0 => NET,
        1 => RNG,
        4 => DISK,
        _ => READ_ONLY_DISK,
    };
    let required = if flags & 4 == 0 { 0 } else { FLUSH };
    let mut machine = Machine::new();
    let window = machine.start(slot, size, u32::from(flags & 2) << 28 | required);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let (kind, queue) = (input.u8(), u64::from(input.u8() & 1));
        let area = 0x1_0000 * (queue + 1);
        match kind % 8 {
            // A descriptor, its address and length narrow enough to be in RAM most of the time.
            0 | 1 => {
                let index = u64::from(input.u16() % 257);
                let mut descriptor = [0; 16];
                let (address, length, more) = (input.u32(), input.u16(), input.u8());
                descriptor[..4].copy_from_slice(&(address & 0x1F_FFFF).to_le_bytes());
                descriptor[8..10].copy_from_slice(&length.to_le_bytes());
                descriptor[12] = more & 7;
                descriptor[14] = input.u8();
                if more & 0x80 != 0 {
                    descriptor[4..8].copy_from_slice(&address.to_le_bytes());
                    descriptor[10..12].copy_from_slice(&length.to_le_bytes());
                    descriptor[15] = more;
                }
                poke(&machine, area + 16 * index, &descriptor);
            }
            2 => poke(
                &machine,
                area + 0x4004 + 2 * u64::from(input.u8()),
                &input.u16().to_le_bytes(),
            ),
            3 => poke(&machine, area + 0x4002, &input.u16().to_le_bytes()),
            4 => {
                let (at, length) = (u64::from(input.u16()), usize::from(input.u8()));
                poke(&machine, area + at, input.piece(length));
            }
            5 => machine.write(window + 0x3000 + 4 * queue, &[queue as u8, 0]),
            6 => {
                let length = usize::from(input.u16() % 2000);
                let frame = input.piece(length).to_vec();
                machine.receive(&frame);
            }
            _ => machine.read(window + 0x1000, 1),
        }
    }
    machine.write(window + 0x3000, &[0, 0]);
    machine.write(window + 0x3004, &[1, 0]);
    machine.receive(&[0x52; 64]);
}

fn poke(machine: &Machine, address: u64, bytes: &[u8]) {
    // Past the end of RAM, the guest writes nothing.
    let _ = machine.ram.write_slice(bytes, GuestAddress(address));
}

/// Configuration accesses of any width, and accesses to where they have put the devices' windows.
pub(crate) fn pci(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut machine = Machine::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let (kind, place, value) = (input.u8(), input.u8(), input.u32());
        let width = [1, 2, 4][usize::from(kind >> 6) % 3];
        let data = &value.to_le_bytes()[..width];
        let (slot, register) = (u32::from(kind >> 3 & 3), u32::from(place));
        match kind % 8 {
            0 | 1 => machine.configure(slot, register, data),
            2 => machine.out(0xCF8 + u16::from(place & 7), data),
            3 => {
                let mut read = [0; 4];
                machine.access(|devices, access| {
                    let port = 0xCF8 + u16::from(place & 7);
                    devices.pio_in(port, &mut read[..width], access).expect("as above");
                });
            }
            4 => machine.write(0xFEB0_0000 + u64::from(value & 0xFFFF), &[place; 8][..width]),
            5 => machine.read(0xFEB0_0000 + u64::from(value & 0xFFFF), width),
            6 => machine.write(u64::from(value), &[place; 8]),
            _ => machine.read(u64::from(value), 8),
        }
    }
}
