//! The common configuration structure (virtio 1.2, section 4.1.4.3): its registers and the device status
//! (section 2.1).

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::queue::{QueueArea, VirtQueue};

/// Bytes of the structure up to and including `queue_device`. The later fields belong to features that
/// are not offered.
pub(super) const COMMON_BYTES: usize = 56;
/// VIRTIO_MSI_NO_VECTOR: there is no MSI-X.
const NO_VECTOR: u16 = 0xFFFF;

/// Status bits (section 2.1).
const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;

/// Field offsets (section 4.1.4.3).
const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0C;
const CONFIG_MSIX_VECTOR: usize = 0x10;
const NUM_QUEUES: usize = 0x12;
const DEVICE_STATUS: usize = 0x14;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_MSIX_VECTOR: usize = 0x1A;
const QUEUE_ENABLE: usize = 0x1C;
const QUEUE_NOTIFY_OFF: usize = 0x1E;
const QUEUE_DESC: usize = 0x20;
const QUEUE_DRIVER: usize = 0x28;
const QUEUE_DEVICE: usize = 0x30;

/// State of the registers that do not belong to a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommonState {
    /// Index of the half of the device features that can be read.
    pub(crate) device_feature_select: u32,
    /// Index of the half of the driver features that can be written.
    pub(crate) driver_feature_select: u32,
    /// Features that the driver accepted.
    pub(crate) driver_features: u64,
    /// Device status.
    pub(crate) status: u8,
    /// Index of the queue to which the queue registers refer.
    pub(crate) queue_select: u16,
}

/// Feature bits of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    /// What it offers.
    pub(super) offered: u64,
    /// What the driver must accept.
    pub(super) required: u64,
}

/// What the transport must do after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommonWrite {
    /// Nothing more.
    Done,
    /// Nothing. The write is invalid, so it is only counted.
    Invalid,
    /// Nothing. The features were refused, which is counted.
    RefusedFeatures,
    /// Status 0 was written: reset the device.
    Reset,
    /// DRIVER_OK was set: start the device.
    Start,
    /// Enable this queue.
    Enable(usize),
}

impl CommonState {
    pub(super) fn event_idx(&self) -> bool {
        self.driver_features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1
    }

    /// Whether the device may use its queues.
    pub(super) fn is_running(&self) -> bool {
        self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// Sets DEVICE_NEEDS_RESET. Returns true if the driver must be notified by an interrupt.
    pub(super) fn fail(&mut self) -> bool {
        self.status |= NEEDS_RESET;
        self.status & DRIVER_OK != 0
    }

    /// Returns the whole structure as the driver would read it now.
    pub(super) fn image(&self, features: u64, queues: &[VirtQueue]) -> [u8; COMMON_BYTES] {
        let mut image = [0; COMMON_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            image[offset..offset + field.len()].copy_from_slice(field);
        };
        put(DEVICE_FEATURE_SELECT, &self.device_feature_select.to_le_bytes());
        put(DEVICE_FEATURE, &half(features, self.device_feature_select).to_le_bytes());
        put(DRIVER_FEATURE_SELECT, &self.driver_feature_select.to_le_bytes());
        let accepted = half(self.driver_features, self.driver_feature_select);
        put(DRIVER_FEATURE, &accepted.to_le_bytes());
        put(CONFIG_MSIX_VECTOR, &NO_VECTOR.to_le_bytes());
        put(NUM_QUEUES, &(queues.len() as u16).to_le_bytes());
        // config_generation, the byte after it, stays 0: device configuration never changes.
        put(DEVICE_STATUS, &[self.status]);
        put(QUEUE_SELECT, &self.queue_select.to_le_bytes());
        put(QUEUE_MSIX_VECTOR, &NO_VECTOR.to_le_bytes());
        // A queue that does not exist has size 0.
        if let Some(queue) = queues.get(usize::from(self.queue_select)) {
            put(QUEUE_SIZE, &queue.size().to_le_bytes());
            put(QUEUE_ENABLE, &u16::from(queue.enabled()).to_le_bytes());
            put(QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            put(QUEUE_DESC, &queue.area(QueueArea::Descriptors).to_le_bytes());
            put(QUEUE_DRIVER, &queue.area(QueueArea::Driver).to_le_bytes());
            put(QUEUE_DEVICE, &queue.area(QueueArea::Device).to_le_bytes());
        }
        image
    }

    /// Writes one whole field, or one half of a 64-bit field.
    pub(super) fn write(
        &mut self,
        offset: usize,
        data: &[u8],
        features: Features,
        queues: &mut [VirtQueue],
    ) -> CommonWrite {
        let value = data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        match (offset, data.len()) {
            (DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value as u32,
            (DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value as u32,
            (DRIVER_FEATURE, 4) => return self.accept_features(value as u32),
            (DEVICE_STATUS, 1) => return self.set_status(value as u8, features),
            (QUEUE_SELECT, 2) => self.queue_select = value as u16,
            // Without MSI-X every vector is refused: it reads back as NO_VECTOR.
            (CONFIG_MSIX_VECTOR | QUEUE_MSIX_VECTOR, 2) => {}
            (QUEUE_SIZE..COMMON_BYTES, _) => {
                let index = usize::from(self.queue_select);
                return queues.get_mut(index).map_or(CommonWrite::Invalid, |queue| {
                    write_queue(queue, index, offset, data.len(), value)
                });
            }
            _ => return CommonWrite::Invalid,
        }
        CommonWrite::Done
    }

    fn accept_features(&mut self, value: u32) -> CommonWrite {
        if self.status & FEATURES_OK != 0 {
            return CommonWrite::Invalid;
        }
        match self.driver_feature_select {
            0 => self.driver_features = with_half(self.driver_features, false, value),
            1 => self.driver_features = with_half(self.driver_features, true, value),
            // There are no features above bit 63, so a driver that accepts none of them is right.
            _ if value == 0 => {}
            _ => return CommonWrite::Invalid,
        }
        CommonWrite::Done
    }

    /// Sets status bits (section 3.1.1). FEATURES_OK stays set only if the features are a subset of those
    /// offered and include those required (VERSION_1); DRIVER_OK must come after it. A bit that is set stays set until a
    /// reset.
    fn set_status(&mut self, value: u8, features: Features) -> CommonWrite {
        if value == 0 {
            return CommonWrite::Reset;
        }
        let new = value & !self.status & !NEEDS_RESET;
        self.status |= new & !(FEATURES_OK | DRIVER_OK);
        if new & FEATURES_OK != 0 {
            let Features { offered, required } = features;
            let accepted = self.driver_features;
            if accepted & required != required || accepted & !offered != 0 {
                return CommonWrite::RefusedFeatures;
            }
            self.status |= FEATURES_OK;
        }
        if new & DRIVER_OK == 0 {
            return CommonWrite::Done;
        }
        if self.status & FEATURES_OK == 0 {
            return CommonWrite::Invalid;
        }
        self.status |= DRIVER_OK;
        CommonWrite::Start
    }
}

fn write_queue(
    queue: &mut VirtQueue,
    index: usize,
    offset: usize,
    bytes: usize,
    value: u64,
) -> CommonWrite {
    let accepted = match (offset, bytes) {
        (QUEUE_SIZE, 2) => queue.set_size(value as u16),
        (QUEUE_ENABLE, 2) if value == 1 && !queue.enabled() => return CommonWrite::Enable(index),
        (QUEUE_DESC.., 4 | 8) if offset.is_multiple_of(bytes) => {
            let area = match offset & !7 {
                QUEUE_DESC => QueueArea::Descriptors,
                QUEUE_DRIVER => QueueArea::Driver,
                _ => QueueArea::Device,
            };
            let address = match bytes {
                8 => value,
                _ => with_half(queue.area(area), offset & 4 != 0, value as u32),
            };
            queue.set_area(area, address)
        }
        _ => false,
    };
    if accepted { CommonWrite::Done } else { CommonWrite::Invalid }
}

/// Returns the low (0) or high (1) half; other halves are zero.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn with_half(old: u64, high: bool, half: u32) -> u64 {
    if high {
        old & 0xFFFF_FFFF | u64::from(half) << 32
    } else {
        old & !0xFFFF_FFFF | u64::from(half)
    }
}
