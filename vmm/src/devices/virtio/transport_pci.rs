//! virtio over PCI (virtio 1.2, section 4.1), with one memory window and INTA, without MSI-X.
//!
//! The window holds the four structures that a driver finds through the capability list:
//!
//! | offset | structure |
//! |---|---|
//! | 0x0000 | common configuration |
//! | 0x1000 | ISR status: a read clears it and deasserts INTA |
//! | 0x2000 | device configuration |
//! | 0x3000 | notification, 4 bytes per queue: the address selects the queue, the data is ignored |

use serde::{Deserialize, Serialize};

use super::common::{COMMON_BYTES, CommonState, CommonWrite, Features};
use super::queue::{QueueError, VirtQueue, VirtQueueState};
use super::{Failure, TransportCounters, VirtioDevice};
use crate::bus::mmio::Window;
use crate::devices::device::{Device, Line, PciDevice, Signal};
use crate::devices::error::{ReissueError, RestoreError};
use crate::devices::pci::{Function, FunctionState, Identity, WINDOW_BYTES};
use crate::devices::{Access, DeviceConfig};
use crate::mem::GuestRam;
use crate::replay::error::SourceError;
use replication::boundary::{DeviceCapacity, Input};

const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_MULTIPLIER: u64 = 4;
const SECTION_BYTES: u64 = 0x1000;

/// ISR status bits (section 4.1.4.5).
const ISR_QUEUE: u8 = 1 << 0;
const ISR_CONFIG: u8 = 1 << 1;

/// The capability list (section 4.1.4), from configuration register 0x40 on: id 0x09 (vendor),
/// next, length, type; BAR 0; offset; length; and the multiplier for the notification structure.
pub(crate) const fn capability_list(device_bytes: u32, queues: u32) -> [u32; 17] {
    const fn head(next: u32, length: u32, kind: u32) -> u32 {
        0x09 | next << 8 | length << 16 | kind << 24
    }
    [
        head(0x50, 16, 1),
        0,
        0,
        COMMON_BYTES as u32,
        // A device without configuration omits this structure, because drivers refuse an empty one.
        head(if device_bytes == 0 { 0x70 } else { 0x60 }, 16, 3),
        0,
        ISR as u32,
        1,
        head(0x70, 16, 4),
        0,
        DEVICE as u32,
        device_bytes,
        head(0, 20, 2),
        0,
        NOTIFY as u32,
        queues * NOTIFY_MULTIPLIER as u32,
        NOTIFY_MULTIPLIER as u32,
    ]
}

/// State of a virtio function without the state of its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransportState {
    /// PCI configuration.
    pub(crate) function: FunctionState,
    /// Common configuration.
    pub(crate) common: CommonState,
    /// ISR status.
    pub(crate) isr: u8,
    /// Queues, by index.
    pub(crate) queues: Vec<VirtQueueState>,
}

/// A virtio device as a PCI function.
#[derive(Debug)]
pub(crate) struct VirtioPci<D> {
    function: Function,
    common: CommonState,
    isr: u8,
    queues: Vec<VirtQueue>,
    device: D,
    counters: TransportCounters,
}

impl<D: VirtioDevice> VirtioPci<D> {
    fn enable(&mut self, index: usize, ram: &GuestRam) {
        let event_idx = self.common.event_idx();
        if let Err(broken) = self.queues[index].enable(ram, event_idx) {
            self.fail(&broken);
        }
    }

    fn kick(&mut self, offset: u64, access: &mut Access<'_>) -> Result<(), SourceError> {
        let index = (offset / NOTIFY_MULTIPLIER) as usize;
        let known = offset.is_multiple_of(NOTIFY_MULTIPLIER) && index < self.queues.len();
        if !known || !self.common.is_running() {
            self.counters.odd_accesses += 1;
            return Ok(());
        }
        self.counters.kicks += 1;
        match self.device.kick(index, &mut self.queues, access) {
            Ok(true) => self.interrupt(ISR_QUEUE),
            Ok(false) => {}
            Err(Failure::Queue(broken)) => self.fail(&broken),
            Err(Failure::Boundary(error)) => return Err(error),
        }
        Ok(())
    }

    /// Runs `act` on the device and its queues for an input. Returns false if the queues may not be used
    /// now.
    pub(crate) fn at_input(
        &mut self,
        act: impl FnOnce(&mut D, &mut [VirtQueue]) -> Result<bool, QueueError>,
    ) -> bool {
        if !self.common.is_running() {
            return false;
        }
        match act(&mut self.device, &mut self.queues) {
            Ok(true) => self.interrupt(ISR_QUEUE),
            Ok(false) => {}
            Err(broken) => self.fail(&broken),
        }
        true
    }

    /// Whether queue `index` has a buffer that the device may take.
    pub(crate) fn has_buffer(&self, index: usize, ram: &GuestRam) -> bool {
        self.common.is_running() && self.queues[index].has_available(ram)
    }

    fn interrupt(&mut self, cause: u8) {
        self.counters.interrupts += u64::from(self.isr == 0);
        self.isr |= cause;
    }

    /// Marks the device as needing a reset. Until the reset it does not access any queue.
    fn fail(&mut self, error: &QueueError) {
        match error {
            QueueError::Ring(_) => self.counters.broken_rings += 1,
            QueueError::BrokenChain => self.counters.broken_chains += 1,
            QueueError::NotRam | QueueError::Buffer(_) => self.counters.bad_addresses += 1,
        }
        if self.common.fail() {
            self.interrupt(ISR_CONFIG);
        }
    }

    fn reset(&mut self) {
        self.counters.resets += 1;
        self.common = CommonState::default();
        self.isr = 0;
        self.queues.iter_mut().for_each(VirtQueue::reset);
        self.device.reset();
    }

    pub(crate) fn device(&self) -> &D {
        &self.device
    }

    pub(crate) fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Returns the event counts since the device was created or restored.
    pub(crate) fn counters(&self) -> D::Counters {
        self.device.counters(self.counters)
    }
}

impl<D: VirtioDevice> Device for VirtioPci<D> {
    const NAME: &'static str = D::NAME;
    const LINE: Option<Line> = D::IDENTITY.interrupt;
    type State = D::State;

    fn power_on(config: &DeviceConfig) -> Self {
        Self {
            function: Function::new(D::IDENTITY),
            common: CommonState::default(),
            isr: 0,
            queues: D::QUEUE_SIZES.iter().map(|size| VirtQueue::new(*size)).collect(),
            device: D::power_on(config),
            counters: TransportCounters::default(),
        }
    }

    fn accept(&mut self, input: Input<'_>, ram: &GuestRam) -> Option<Signal> {
        D::accept(self, input, ram).then(|| Signal::Level(self.inta()))
    }

    fn add_capacity(&self, capacity: &mut DeviceCapacity, ram: &GuestRam) {
        D::add_capacity(self, capacity, ram);
    }

    fn save(&self) -> D::State {
        self.device.save(TransportState {
            function: self.function.save(),
            common: self.common.clone(),
            isr: self.isr,
            queues: self.queues.iter().map(VirtQueue::save).collect(),
        })
    }

    fn restore(state: D::State) -> Result<Self, RestoreError> {
        let impossible = RestoreError::Impossible(D::NAME);
        let Some((device, state)) = D::restore(state) else { return Err(impossible) };
        let function = Function::restore(D::IDENTITY, state.function)
            .filter(|_| state.queues.len() == D::QUEUE_SIZES.len())
            .ok_or(impossible)?;
        let queues = D::QUEUE_SIZES
            .iter()
            .zip(state.queues)
            .enumerate()
            .map(|(index, (max_size, queue))| {
                VirtQueue::restore(*max_size, queue).map_err(|reason| RestoreError::Queue {
                    device: D::NAME,
                    index,
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            function,
            common: state.common,
            isr: state.isr,
            queues,
            device,
            counters: TransportCounters::default(),
        })
    }
}

impl<D: VirtioDevice> PciDevice for VirtioPci<D> {
    const IDENTITY: &'static Identity = D::IDENTITY;

    fn is_present(&self) -> bool {
        self.device.is_present()
    }

    fn resume(&mut self, access: &mut Access<'_>) -> Result<bool, SourceError> {
        if !self.common.is_running() {
            return Ok(false);
        }
        match self.device.resume(&mut self.queues, access) {
            Ok(None) => return Ok(false),
            Ok(Some(true)) => self.interrupt(ISR_QUEUE),
            Ok(Some(false)) => {}
            Err(Failure::Queue(broken)) => self.fail(&broken),
            Err(Failure::Boundary(error)) => return Err(error),
        }
        Ok(true)
    }

    fn reissue(&mut self, access: &mut Access<'_>) -> Result<(), ReissueError> {
        self.device.reissue(&self.queues, access)
    }

    fn config_read(&self, register: u8, data: &mut [u8]) {
        self.function.read(register, data, self.isr != 0);
    }

    fn config_write(&mut self, register: u8, data: &[u8]) {
        self.function.write(register, data);
    }

    fn inta(&self) -> bool {
        self.isr != 0 && self.function.intx_enabled()
    }

    fn window(&self) -> Option<Window> {
        self.function.window()
    }

    /// Bytes outside the structures read as zero.
    fn read_window(&mut self, offset: u64, data: &mut [u8], access: &mut Access<'_>) {
        let was_asserted = self.inta();
        data.fill(0);
        match offset {
            0..ISR => {
                let features = self.device.features();
                copy_from(&self.common.image(features, &self.queues), offset, data);
            }
            ISR => {
                if let Some(first) = data.first_mut() {
                    *first = std::mem::take(&mut self.isr);
                }
            }
            DEVICE..NOTIFY => copy_from(self.device.config(), offset - DEVICE, data),
            _ => self.counters.odd_accesses += 1,
        }
        if was_asserted && !self.inta() {
            D::interrupt_served(access.boundary);
        }
    }

    fn write_window(
        &mut self,
        offset: u64,
        data: &[u8],
        access: &mut Access<'_>,
    ) -> Result<(), SourceError> {
        match offset {
            0..ISR => {
                let features =
                    Features { offered: self.device.features(), required: D::REQUIRED_FEATURES };
                match self.common.write(offset as usize, data, features, &mut self.queues) {
                    CommonWrite::Done => {}
                    CommonWrite::Invalid => self.counters.odd_accesses += 1,
                    CommonWrite::RefusedFeatures => self.counters.refused_features += 1,
                    CommonWrite::Reset => self.reset(),
                    CommonWrite::Start => {
                        if let Err(broken) = self.device.start(&mut self.queues, access.ram) {
                            self.fail(&broken);
                        }
                    }
                    CommonWrite::Enable(index) => self.enable(index, access.ram),
                }
            }
            NOTIFY.. => return self.kick(offset - NOTIFY, access),
            // ISR and device configuration are read-only.
            _ => self.counters.odd_accesses += 1,
        }
        Ok(())
    }
}

const _: () = assert!(NOTIFY + SECTION_BYTES == WINDOW_BYTES as u64);

/// Copies the bytes of `structure` from `offset` on. The rest of `data` keeps its zeros.
fn copy_from(structure: &[u8], offset: u64, data: &mut [u8]) {
    let rest = structure.get(offset as usize..).unwrap_or(&[]);
    let bytes = rest.len().min(data.len());
    data[..bytes].copy_from_slice(&rest[..bytes]);
}
