//! Support for device tests: devices, memory, and a boundary that counts what passes through it.

use vm_memory::{Bytes, GuestAddress};

use super::config_port::ConfigPort;
use super::{Access, DeviceConfig, Devices, DiskConfig, Effect};
use crate::mem::GuestRam;
use crate::replay::error::{HostError, SourceError};
use replication::boundary::{
    DeviceBoundary, DiskCompletion, DiskOperation, DiskRequest, DiskStatus, Input,
};

pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
/// Disk 0 may be written, disk 1 only read; there are no others.
pub(crate) const DISK: DiskConfig =
    DiskConfig { sectors: 2048, read_only: false, serial: *b"SERIAL-01\0\0\0\0\0\0\0\0\0\0\0" };
pub(crate) const CONFIG: DeviceConfig = DeviceConfig {
    mac: MAC,
    disks: [Some(DISK), Some(DiskConfig { read_only: true, ..DISK }), None, None],
};
pub(crate) const RAM_BYTES: usize = 1 << 20;

/// A boundary whose answers the test sets.
#[derive(Debug, Default)]
pub(crate) struct TestBoundary {
    pub(crate) now_ns: u64,
    /// Added to `now_ns` by every reading of the clock.
    pub(crate) step_ns: u64,
    pub(crate) wall_ns: u64,
    pub(crate) clock_readings: u64,
    pub(crate) wall_readings: u64,
    /// Sizes of entropy requests; the bytes count up from 1.
    pub(crate) entropy: Vec<usize>,
    pub(crate) entropy_fails: bool,
    /// Most bytes that a request gets.
    pub(crate) entropy_limit: Option<usize>,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) console: Vec<u8>,
    pub(crate) disk_requests: Vec<TestRequest>,
    /// Disks must leave new requests in their queues.
    pub(crate) holds_disk_requests: bool,
}

/// A request that a disk was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestRequest {
    pub(crate) disk: u8,
    pub(crate) number: u64,
    pub(crate) operation: DiskOperation,
    pub(crate) sector: u64,
    pub(crate) bytes: u32,
    pub(crate) data: Vec<u8>,
}

impl DeviceBoundary for TestBoundary {
    type Error = SourceError;

    fn clock_ns(&mut self) -> Result<u64, SourceError> {
        self.clock_readings += 1;
        self.now_ns += self.step_ns;
        Ok(self.now_ns)
    }

    fn wall_clock_ns(&mut self) -> Result<u64, SourceError> {
        self.wall_readings += 1;
        Ok(self.wall_ns)
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> Result<usize, SourceError> {
        if self.entropy_fails {
            return Err(HostError::Entropy(std::io::Error::other("none left")).into());
        }
        let filled = bytes.len().min(self.entropy_limit.unwrap_or(usize::MAX));
        self.entropy.push(filled);
        for (value, byte) in (1..).zip(&mut bytes[..filled]) {
            *byte = value as u8;
        }
        Ok(filled)
    }

    fn output(&mut self, frame: &[u8]) -> Result<(), SourceError> {
        self.frames.push(frame.to_vec());
        Ok(())
    }

    fn console_output(&mut self, byte: u8) {
        self.console.push(byte);
    }

    fn disk_request(&mut self, request: &DiskRequest<'_>) -> Result<(), SourceError> {
        let &DiskRequest { disk, number, operation, sector, bytes, data } = request;
        let data = data.to_vec();
        self.disk_requests.push(TestRequest { disk, number, operation, sector, bytes, data });
        Ok(())
    }

    fn holds_disk_requests(&mut self) -> bool {
        self.holds_disk_requests
    }

    fn interrupt_served(&mut self) {}
}

/// A machine without a vCPU: the test makes its exits.
pub(crate) struct TestMachine {
    pub(crate) devices: Devices,
    pub(crate) ram: GuestRam,
    pub(crate) boundary: TestBoundary,
}

impl TestMachine {
    pub(crate) fn new() -> Self {
        Self {
            devices: Devices::new(&CONFIG),
            ram: GuestRam::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).unwrap(),
            boundary: TestBoundary::default(),
        }
    }

    pub(crate) fn read_port(&mut self, port: u16, data: &mut [u8]) {
        let mut access = Access { ram: &self.ram, boundary: &mut self.boundary };
        self.devices.pio_in(port, data, &mut access).unwrap();
    }

    pub(crate) fn write_port(&mut self, port: u16, data: &[u8]) -> Effect {
        let mut access = Access { ram: &self.ram, boundary: &mut self.boundary };
        self.devices.pio_out(port, data, &mut access).unwrap()
    }

    pub(crate) fn in8(&mut self, port: u16) -> u8 {
        let mut data = [0];
        self.read_port(port, &mut data);
        data[0]
    }

    pub(crate) fn in32(&mut self, port: u16) -> u32 {
        let mut data = [0; 4];
        self.read_port(port, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn out8(&mut self, port: u16, value: u8) -> Effect {
        self.write_port(port, &[value])
    }

    pub(crate) fn out32(&mut self, port: u16, value: u32) {
        self.write_port(port, &value.to_le_bytes());
    }

    pub(crate) fn try_write_memory(
        &mut self,
        address: u64,
        data: &[u8],
    ) -> Result<(), SourceError> {
        let mut access = Access { ram: &self.ram, boundary: &mut self.boundary };
        self.devices.mmio_write(address, data, &mut access)
    }

    pub(crate) fn write_memory(&mut self, address: u64, data: &[u8]) {
        self.try_write_memory(address, data).unwrap();
    }

    pub(crate) fn read_memory(&mut self, address: u64, data: &mut [u8]) {
        let mut access = Access { ram: &self.ram, boundary: &mut self.boundary };
        self.devices.mmio_read(address, data, &mut access);
    }

    /// Advances guest time, as a clock input does.
    pub(crate) fn clock(&mut self, now_ns: u64) {
        self.boundary.now_ns = now_ns;
        self.devices.apply(Input::Clock { now_ns }, &self.ram);
    }

    pub(crate) fn frame(&mut self, frame: &[u8]) {
        self.devices.apply(Input::Frame(frame), &self.ram);
    }

    /// Completes a request of disk `disk`, and goes on with what waited for that.
    pub(crate) fn disk_done(&mut self, disk: u8, number: u64, status: DiskStatus, data: &[u8]) {
        let completion = DiskCompletion { disk, number, status, data };
        self.devices.apply(Input::Disk(completion), &self.ram);
        let mut access = Access { ram: &self.ram, boundary: &mut self.boundary };
        self.devices.resume(&mut access).unwrap();
    }

    /// Reads a configuration register of 00:`device`.0.
    pub(crate) fn config_read(&mut self, device: u32, register: u32) -> u32 {
        self.out32(0xCF8, 1 << 31 | device << 11 | register);
        self.in32(0xCFC)
    }

    pub(crate) fn config_write(&mut self, device: u32, register: u32, value: u32) {
        self.out32(0xCF8, 1 << 31 | device << 11 | register);
        self.out32(0xCFC, value);
    }

    /// Initializes both PICs as Linux does, with all inputs unmasked and vectors 0x30 and 0x38.
    pub(crate) fn init_pics(&mut self) {
        for (port, base, wiring) in [(0x20, 0x30, 4), (0xA0, 0x38, 2)] {
            self.out8(port, 0x11);
            self.out8(port + 1, base);
            self.out8(port + 1, wiring);
            self.out8(port + 1, 1);
        }
    }

    pub(crate) fn read_ram<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.ram.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    pub(crate) fn write_ram(&self, address: u64, data: &[u8]) {
        self.ram.write_slice(data, GuestAddress(address)).unwrap();
    }
}

/// Returns the names of the devices that claim an access of `bytes` bytes at `port`.
pub(crate) fn claimants(port: u16, bytes: usize) -> Vec<&'static str> {
    let data = ConfigPort::data_lane(port).map(|_| "PCI configuration data");
    Devices::claimants(port, bytes).into_iter().chain(data).collect()
}

/// A small generator of test inputs (xorshift64*), so that a seed is enough to repeat a test.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number in 0..`end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 16) % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
