//! PCI by configuration mechanism #1, as much as virtio devices need.
//!
//! Each configuration access is an exit, so probing looks at function 0 of each slot of bus 0 and stops
//! when everything is found, and the address register is written only when it changes.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, PCI_CAP_ID_VNDR, PciRoot,
};
use virtio_drivers::transport::pci::{
    PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG,
    VIRTIO_PCI_CAP_NOTIFY_CFG,
};

use crate::dma::StaticDma;
use crate::port::{inl, outl};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const BAR_0: u8 = 0x10;
const INTERRUPT_LINE: u8 = 0x3c;
const SLOTS: u8 = 32;
/// Four bytes each, behind the 64-byte header.
const CAPABILITIES_MAX: usize = 48;

/// Vendor 1af4; modern device ids, and the transitional ones with modern capabilities.
const NET_IDS: [u32; 2] = [0x1041_1af4, 0x1000_1af4];
const DISK_ID: u32 = 0x1042_1af4;
const RNG_IDS: [u32; 2] = [0x1044_1af4, 0x1005_1af4];

/// BARs that firmware left unassigned go here, upwards: inside the memory hole below 4 GiB on every PC,
/// below the I/O APIC.
const BAR_WINDOW_START: u32 = 0xfe00_0000;
const BAR_WINDOW_END: u32 = 0xfec0_0000;

/// What the last write to CONFIG_ADDRESS was; 0 (configuration disabled) before the first.
static SELECTED: AtomicU32 = AtomicU32::new(0);

/// Access to configuration space through ports 0xcf8 and 0xcfc.
pub(crate) struct ConfigPorts;

impl ConfigPorts {
    fn select(device: DeviceFunction, register: u8) {
        let address = 1 << 31
            | u32::from(device.bus) << 16
            | u32::from(device.device) << 11
            | u32::from(device.function) << 8
            | u32::from(register & 0xfc);
        if SELECTED.swap(address, Relaxed) != address {
            outl(CONFIG_ADDRESS, address);
        }
    }
}

impl ConfigurationAccess for ConfigPorts {
    fn read_word(&self, device: DeviceFunction, register: u8) -> u32 {
        Self::select(device, register);
        inl(CONFIG_DATA)
    }

    fn write_word(&mut self, device: DeviceFunction, register: u8, value: u32) {
        Self::select(device, register);
        outl(CONFIG_DATA, value);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// Where the devices are.
pub(crate) struct Found {
    pub(crate) net: Option<DeviceFunction>,
    pub(crate) rng: Option<DeviceFunction>,
    pub(crate) disk: Option<DeviceFunction>,
}

/// Looks for the network device, the entropy device and the first disk.
pub(crate) fn probe() -> Found {
    let mut found = Found { net: None, rng: None, disk: None };
    for slot in 0..SLOTS {
        let device = DeviceFunction { bus: 0, device: slot, function: 0 };
        let id = ConfigPorts.read_word(device, 0);
        if NET_IDS.contains(&id) && found.net.is_none() {
            found.net = Some(device);
        } else if RNG_IDS.contains(&id) && found.rng.is_none() {
            found.rng = Some(device);
        } else if id == DISK_ID && found.disk.is_none() {
            found.disk = Some(device);
        }
        if found.net.is_some() && found.rng.is_some() && found.disk.is_some() {
            break;
        }
    }
    found
}

/// A virtio device that decodes its registers and may access memory.
pub(crate) struct Function {
    /// The driver crate's view.
    pub(crate) transport: PciTransport,
    pub(crate) registers: Registers,
    /// The 8259 line that firmware (or the VMM) routed INTA to.
    pub(crate) interrupt_line: u8,
}

/// Addresses of the registers that the stub and the kick path use directly.
#[derive(Default)]
pub(crate) struct Registers {
    pub(crate) common: u64,
    pub(crate) isr: u64,
    pub(crate) notify: u64,
    pub(crate) notify_multiplier: u32,
}

impl Function {
    /// Places BARs that have no address yet and turns the device on. `line_off` keeps its INTx silent.
    pub(crate) fn enable(device: DeviceFunction, bars: &mut BarAllocator, line_off: bool) -> Self {
        let mut root = PciRoot::new(ConfigPorts);
        let registers = Registers::find(&mut root, device, bars);
        // Before the command: the crate sizes BARs, and a device that decodes them has to be stopped for
        // each.
        let transport = PciTransport::new::<StaticDma, _>(&mut root, device)
            .unwrap_or_else(|error| panic!("virtio-pci: {error}"));
        let mut command = Command::MEMORY_SPACE | Command::BUS_MASTER;
        command.set(Command::INTERRUPT_DISABLE, line_off);
        root.set_command(device, command);
        let interrupt_line = ConfigPorts.read_word(device, INTERRUPT_LINE) as u8;
        Self { transport, registers, interrupt_line }
    }
}

impl Registers {
    /// Follows the virtio capabilities (virtio 1.2, 4.1.4), placing the BARs they point into. The first
    /// capability of a type wins, as the specification asks; without one the address stays 0, which the
    /// crate refuses in its own search.
    fn find(
        root: &mut PciRoot<ConfigPorts>,
        device: DeviceFunction,
        bars: &mut BarAllocator,
    ) -> Self {
        let mut found = Self::default();
        // A list that a broken device closes to a ring ends too: more does not fit configuration space.
        let mut list = [const { None }; CAPABILITIES_MAX];
        for (slot, capability) in list.iter_mut().zip(root.capabilities(device)) {
            *slot = (capability.id == PCI_CAP_ID_VNDR).then_some(capability);
        }
        let mut bases = [None; 6];
        for capability in list.into_iter().flatten() {
            let at = capability.offset;
            let kind = (capability.private_header >> 8) as u8;
            // The others (configuration access, shared memory, vendor data) are of no use here.
            if !(VIRTIO_PCI_CAP_COMMON_CFG..=VIRTIO_PCI_CAP_DEVICE_CFG).contains(&kind) {
                continue;
            }
            let bar = ConfigPorts.read_word(device, at + 4) as u8;
            // Reserved values are to be ignored.
            let Some(base) = bases.get_mut(usize::from(bar)) else { continue };
            let base = *base.get_or_insert_with(|| bars.place(root, device, bar));
            let address = || base + u64::from(ConfigPorts.read_word(device, at + 8));
            match kind {
                VIRTIO_PCI_CAP_COMMON_CFG if found.common == 0 => found.common = address(),
                VIRTIO_PCI_CAP_ISR_CFG if found.isr == 0 => found.isr = address(),
                VIRTIO_PCI_CAP_NOTIFY_CFG if found.notify == 0 => {
                    found.notify = address();
                    found.notify_multiplier = ConfigPorts.read_word(device, at + 16);
                }
                _ => {}
            }
        }
        found
    }
}

/// Hands out addresses for BARs.
pub(crate) struct BarAllocator {
    next: u32,
}

impl BarAllocator {
    pub(crate) const fn new() -> Self {
        Self { next: BAR_WINDOW_START }
    }

    /// Address of a memory BAR, which gets one here if it has none.
    fn place(&mut self, root: &mut PciRoot<ConfigPorts>, device: DeviceFunction, bar: u8) -> u64 {
        let register = BAR_0 + 4 * bar;
        let low = ConfigPorts.read_word(device, register);
        let wide = low & 0b111 == 0b100;
        let high = if wide { ConfigPorts.read_word(device, register + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        if address != 0 {
            return address;
        }
        let Ok(Some(BarInfo::Memory { size, .. })) = root.bar_info(device, bar) else {
            panic!("BAR {bar} is not a memory BAR");
        };
        let room = u64::from(BAR_WINDOW_END - self.next);
        assert!(size <= room, "no room for a BAR of {size:#x} bytes");
        let address = self.next.next_multiple_of(size as u32);
        assert!(BAR_WINDOW_END - address >= size as u32, "no room for a BAR of {size:#x} bytes");
        self.next = address + size as u32;
        if wide {
            root.set_bar_64(device, bar, u64::from(address));
        } else {
            root.set_bar_32(device, bar, address);
        }
        u64::from(address)
    }
}
