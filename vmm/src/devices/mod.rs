//! The devices of the machine.
//!
//! A device is a folder: `mod.rs` is its behaviour, `config.rs` says what it claims (ports or PCI
//! identity, interrupt line), `state.rs` is its state as it is saved, `tests.rs` tests it. It implements
//! the traits in `device.rs` and has a line in the list in this file, from which `registry.rs` derives the
//! rest, the folder's `mod` included. `scripts/format.sh` formats the folders: `cargo fmt` does not find
//! them.
//!
//! Devices act only when they are called: inside an exit ([`Devices::pio_in`] and similar functions) or
//! when an input is applied at a position ([`Devices::apply`]). Their behaviour is a function of guest
//! accesses, guest memory, inputs and readings from the boundary; they use no thread, clock or randomness
//! of their own.
//!
//! Order within an exit: an access that depends on the time first reads the guest clock from the
//! boundary, once per element of a REP string. The timer then advances to that time and may raise IRQ 0.
//! Then the access is performed, with all of its bytes at that one time. The interrupt lines of PCI
//! functions are updated at the end of the access that changed them.

mod counters;
mod device;
mod error;
#[cfg(test)]
mod fuzz;
mod pci;
mod port_bus;
mod registry;
#[cfg(test)]
pub(crate) mod test_machine;
#[cfg(test)]
mod tests;
mod ticks;
mod virtio;

pub use counters::BusCounters;
pub use error::{ReissueError, RestoreError};

use std::convert::identity;

use serde::{Deserialize, Serialize};

use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use device::{Device, Line, PciDevice, PortDevice, Signal};
use logchan::limits::{DISK_SERIAL_BYTES, DISKS_MAX};
use netpath::mac::MacAddr;
use pci::Identity;
use port_bus::Exit;
use replication::boundary::{DeviceBoundary, DeviceCapacity, Input};

// A line of `ports` names a device's folder and type; one of `functions`, in its folder, a function and its type. The states are encoded in this order. A new state, or a new
// order, needs a new `MACHINE_SCHEMA`.
registry::devices! {
    ports {
        pic::Pic;
        pit::Pit, counters PitCounters;
        uart::Uart, counters UartCounters;
        rtc::Rtc;
        clock_port::ClockPort;
        pm_timer::PmTimer;
        post::PostPort;
        reset::ResetPorts;
        config_port::ConfigPort;
    }
    functions {
        host_bridge { host_bridge: HostBridge; }
        net { net: NetFunction, counters NetCounters; }
        rng { rng: RngFunction, counters RngCounters; }
        blk {
            disk0: Disk0, counters BlkCounters;
            disk1: Disk1, counters BlkCounters;
            disk2: Disk2, counters BlkCounters;
            disk3: Disk3, counters BlkCounters;
        }
    }
}

/// MAC address of a VM's NIC, unless its configuration names another.
pub const DEFAULT_MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0x77, 0, 2);

/// The configuration in which the devices of two machines differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The disks, by index; those that the machine has come first.
    pub disks: [Option<DiskConfig>; DISKS_MAX],
}

/// A disk, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// The guest may only read.
    pub read_only: bool,
    /// Serial number, padded with zeros.
    pub serial: [u8; DISK_SERIAL_BYTES],
}

/// What a device may use while it handles an exit.
pub struct Access<'a> {
    /// Guest memory.
    pub ram: &'a GuestRam,
    /// The nondeterminism boundary.
    pub boundary: &'a mut (dyn DeviceBoundary<Error = SourceError> + 'a),
}

/// What the machine must do after an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The guest requested a machine reset.
    Reset,
}

impl DevicesState {
    /// Returns the disks, by index.
    pub(crate) fn disks(&self) -> [Option<DiskConfig>; DISKS_MAX] {
        [self.disk0.disk, self.disk1.disk, self.disk2.disk, self.disk3.disk]
    }

    /// Returns how many requests to disks are in flight.
    pub(crate) fn disk_requests(&self) -> usize {
        let disks = [&self.disk0, &self.disk1, &self.disk2, &self.disk3];
        disks.iter().map(|disk| disk.in_flight.len()).sum()
    }
}

impl Devices {
    /// Returns the devices after power-on, with the PCI lines level triggered as firmware would leave
    /// them.
    pub fn new(config: &DeviceConfig) -> Self {
        let mut devices = Self::power_on(config);
        for line in devices.function_lines().collect::<Vec<_>>() {
            devices.pic.set_level_triggered(line);
        }
        devices
    }

    /// Applies an input at a position. An input for which a device has no capacity is dropped and
    /// counted.
    pub fn apply(&mut self, input: Input<'_>, ram: &GuestRam) {
        match input {
            Input::Clock { now_ns } => self.advance_time(now_ns),
            Input::Frame(_) | Input::Console(_) | Input::Disk(_) => self.accept(input, ram),
        }
    }

    /// Whether the PIC's output to the processor is high.
    pub fn interrupt_pending(&self) -> bool {
        self.pic.interrupt_pending()
    }

    /// Performs an INTA cycle: acknowledges the highest pending interrupt and returns its vector.
    pub fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.pic.acknowledge()
    }

    /// Whether an interrupt window is requested when a pending interrupt cannot be injected.
    pub fn irq_windows(&self) -> bool {
        self.irq_windows
    }

    pub(crate) fn set_irq_windows(&mut self, windows: bool) {
        self.irq_windows = windows;
    }

    /// Returns guest time as read or received last, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }
}
