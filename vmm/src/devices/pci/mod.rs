//! PCI configuration mechanism #1 (PCI 3.0, section 3.2.2.3.2): the function and register that an access
//! to ports 0xCF8 and 0xCFC..=0xCFF selects. Also the host bridge.

mod function;
#[cfg(test)]
mod tests;

pub use function::FunctionState;
pub(crate) use function::{Function, Identity, WINDOW_BYTES};

use serde::{Deserialize, Serialize};

/// CONFIG_ADDRESS: configuration cycles are enabled.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS: writable bits.
const ADDRESS_MASK: u32 = ENABLE | 0x00FF_FFFC;

/// Intel 82441FX, a host bridge that every PC guest knows. It has no window and no interrupt.
pub(crate) const HOST_BRIDGE: Identity = Identity {
    vendor: 0x8086,
    device: 0x1237,
    revision: 2,
    class: 0x0600,
    subsystem: 0,
    interrupt_line: None,
    window: None,
    capabilities: &[],
};

/// The PCI functions of this machine, all on bus 0 and function 0 of their device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// 00:00.0
    HostBridge,
    /// 00:01.0
    Net,
    /// 00:02.0
    Rng,
}

/// State of CONFIG_ADDRESS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPortState {
    /// The value that the guest wrote to port 0xCF8.
    pub address: u32,
}

/// The ports of the configuration mechanism.
#[derive(Debug, Default)]
pub(crate) struct ConfigPort {
    state: ConfigPortState,
}

impl ConfigPort {
    pub(crate) fn address(&self) -> u32 {
        self.state.address
    }

    pub(crate) fn set_address(&mut self, address: u32) {
        self.state.address = address & ADDRESS_MASK;
    }

    /// Returns the selected function and the register at byte `lane` of CONFIG_DATA. `None` is a master
    /// abort: reads return all ones, writes have no effect.
    pub(crate) fn target(&self, lane: u8) -> Option<(Slot, u8)> {
        let address = self.state.address;
        if address & ENABLE == 0 {
            return None;
        }
        let [register, device_function, bus, _] = address.to_le_bytes();
        let slot = match (bus, device_function >> 3, device_function & 7) {
            (0, 0, 0) => Slot::HostBridge,
            (0, 1, 0) => Slot::Net,
            (0, 2, 0) => Slot::Rng,
            _ => return None,
        };
        Some((slot, register | lane & 3))
    }

    pub(crate) fn save(&self) -> ConfigPortState {
        self.state.clone()
    }

    pub(crate) fn restore(state: &ConfigPortState) -> Self {
        let mut port = Self::default();
        port.set_address(state.address);
        port
    }
}
