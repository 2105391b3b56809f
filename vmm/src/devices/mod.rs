//! The devices of the machine.
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

pub mod clockport;
mod counters;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod pci;
pub mod pit;
mod pmtimer;
mod port_bus;
pub mod reset;
pub mod rtc;
pub mod serial;
mod state;
#[cfg(test)]
pub(crate) mod test_machine;
#[cfg(test)]
mod tests;
mod ticks;
pub mod virtio;

pub use counters::{BusCounters, DeviceCounters};
pub use error::RestoreError;
pub use state::DevicesState;

use crate::bus::mmio::{MmioTarget, Windows};
use crate::irq::Line;
use crate::irq::pic::Pic;
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use clockport::ClockPort;
use pci::{ConfigPort, Function, HOST_BRIDGE};
use pit::{CounterIndex, Pit, PitRegister};
use replication::boundary::{DeviceBoundary, DeviceCapacity, Input};
use reset::ResetPorts;
use rtc::Rtc;
use serial::Uart;
use virtio::net::Net;
use virtio::rng::Rng;
use virtio::transport_pci::VirtioPci;

/// The configuration in which the devices of two machines differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The guest's MAC address.
    pub mac: [u8; 6],
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

/// All devices. Owned by the vCPU thread.
#[derive(Debug)]
pub struct Devices {
    /// Guest time as read or received last, nanoseconds.
    now_ns: u64,
    pic: Pic,
    pit: Pit,
    uart: Uart,
    rtc: Rtc,
    clock_port: ClockPort,
    reset: ResetPorts,
    config_port: ConfigPort,
    host_bridge: Function,
    net: VirtioPci<Net>,
    rng: VirtioPci<Rng>,
    /// Interrupt windows are enabled.
    irq_windows: bool,
    unclaimed: BusCounters,
}

impl Devices {
    /// Returns the devices after power-on.
    pub fn new(config: &DeviceConfig) -> Self {
        Self {
            now_ns: 0,
            pic: Pic::new(),
            pit: Pit::new(),
            uart: Uart::new(),
            rtc: Rtc::new(),
            clock_port: ClockPort::default(),
            reset: ResetPorts::new(),
            config_port: ConfigPort::default(),
            host_bridge: Function::new(&HOST_BRIDGE),
            net: VirtioPci::with_mac(config.mac),
            rng: VirtioPci::new(Rng::default()),
            irq_windows: true,
            unclaimed: BusCounters::default(),
        }
    }

    /// Sets the state in which a PC's firmware leaves the devices before it starts a kernel: timer 0
    /// counts its full range as a square wave, and its interrupt is masked.
    pub(crate) fn act_as_firmware(&mut self) {
        /// Counter 0, low byte then high byte, mode 3, binary.
        const CONTROL: u8 = 0x36;
        self.pit.write(PitRegister::Control, CONTROL, self.now_ns);
        for byte in [0, 0] {
            self.pit.write(PitRegister::Counter(CounterIndex::Zero), byte, self.now_ns);
        }
    }

    /// Performs one read of `data.len()` bytes (1, 2, 4 or 8) from memory that is not RAM.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    pub fn mmio_read(
        &mut self,
        address: u64,
        data: &mut [u8],
        access: &mut Access<'_>,
    ) -> Result<(), SourceError> {
        match self.windows().decode(address, data.len()) {
            Some((MmioTarget::Net, offset)) => {
                let was_asserted = self.net.line();
                self.net.read(offset, data);
                self.drive_net_line();
                if was_asserted && !self.net.line() {
                    access.boundary.interrupt_served();
                }
            }
            Some((MmioTarget::Rng, offset)) => {
                self.rng.read(offset, data);
                self.drive_rng_line();
            }
            None => {
                data.fill(0xFF);
                self.unclaimed.memory_reads += 1;
            }
        }
        Ok(())
    }

    /// Performs one write of `data.len()` bytes (1, 2, 4 or 8) to memory that is not RAM.
    ///
    /// # Errors
    ///
    /// The boundary failed or found a divergence.
    pub fn mmio_write(
        &mut self,
        address: u64,
        data: &[u8],
        access: &mut Access<'_>,
    ) -> Result<(), SourceError> {
        match self.windows().decode(address, data.len()) {
            Some((MmioTarget::Net, offset)) => {
                self.net.write(offset, data, access)?;
                self.drive_net_line();
            }
            Some((MmioTarget::Rng, offset)) => {
                self.rng.write(offset, data, access)?;
                self.drive_rng_line();
            }
            None => self.unclaimed.memory_writes += 1,
        }
        Ok(())
    }

    fn windows(&self) -> Windows {
        Windows { net: self.net.window(), rng: self.rng.window() }
    }

    /// Applies an input at a position. An input for which a device has no capacity is dropped and
    /// counted.
    pub fn apply(&mut self, input: Input<'_>, ram: &GuestRam) {
        match input {
            Input::Clock { now_ns } => self.advance_time(now_ns),
            Input::Frame(frame) => {
                self.net.receive(frame, ram);
                self.drive_net_line();
            }
            Input::Console(bytes) => {
                if self.uart.receive(bytes) {
                    self.pic.pulse(Line::Serial);
                }
            }
        }
    }

    /// Returns which inputs the devices can accept now.
    pub fn capacity(&self, ram: &GuestRam) -> DeviceCapacity {
        DeviceCapacity {
            frame: self.net.has_buffer(virtio::net::RECEIVE, ram),
            console_bytes: self.uart.room(),
            timer_ns: self.pit.next_expiry_ns(),
            ..DeviceCapacity::default()
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

    /// Advances the time of all devices; a timer that is due fires. A value from the past, which no
    /// boundary returns, has no effect.
    fn advance_time(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if self.pit.advance(self.now_ns) {
            self.pic.pulse(Line::Timer);
        }
    }

    fn drive_net_line(&mut self) {
        self.pic.set_line(Line::Net, self.net.line());
    }

    fn drive_rng_line(&mut self) {
        self.pic.set_line(Line::Rng, self.rng.line());
    }

    /// Returns the complete state.
    pub fn save(&self) -> DevicesState {
        DevicesState {
            now_ns: self.now_ns,
            pic: self.pic.save(),
            pit: self.pit.save(),
            uart: self.uart.save(),
            rtc: self.rtc.save(),
            clock_port: self.clock_port.save(),
            reset: self.reset.save(),
            config_port: self.config_port.save(),
            host_bridge: self.host_bridge.save(),
            net: self.net.save_net(),
            rng: self.rng.save_rng(),
            irq_windows: self.irq_windows,
        }
    }

    /// Returns devices in a saved state, with all counters at zero.
    ///
    /// # Errors
    ///
    /// The state is not one that the devices can be in.
    pub fn restore(state: DevicesState) -> Result<Self, RestoreError> {
        let DevicesState {
            now_ns,
            pic,
            pit,
            uart,
            rtc,
            clock_port,
            reset,
            config_port,
            host_bridge,
            net,
            rng,
            irq_windows,
        } = state;
        Ok(Self {
            now_ns,
            pic: Pic::restore(pic)?,
            pit: Pit::restore(pit)?,
            uart: Uart::restore(uart)?,
            rtc: Rtc::restore(rtc)?,
            clock_port: ClockPort::restore(clock_port),
            reset: ResetPorts::restore(reset),
            config_port: ConfigPort::restore(&config_port),
            host_bridge: Function::restore(&HOST_BRIDGE, host_bridge)
                .ok_or(RestoreError::Impossible("host bridge"))?,
            net: VirtioPci::restore_net(net)?,
            rng: VirtioPci::restore_rng(rng)?,
            irq_windows,
            unclaimed: BusCounters::default(),
        })
    }

    /// Returns the event counts since the devices were created or restored.
    pub fn counters(&self) -> DeviceCounters {
        DeviceCounters {
            bus: self.unclaimed,
            pit: self.pit.counters(),
            uart: self.uart.counters(),
            net_transport: self.net.counters(),
            net: self.net.frame_counters(),
            rng_transport: self.rng.counters(),
            rng: self.rng.entropy_counters(),
        }
    }
}
