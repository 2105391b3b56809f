//! virtio-rng (virtio 1.2, section 5.4). Entropy is a logged input, so it comes from the boundary.
//!
//! One kick reads at most [`KICK_BYTES_MAX`] bytes: the queue has few entries, and at most
//! [`REQUEST_BYTES_MAX`] bytes of each request are filled ("it MAY use less than the entire buffer
//! length", section 5.4.6.1).

mod state;
#[cfg(test)]
mod tests;

pub use state::RngState;

use serde::Serialize;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::queue::{QueueError, VirtQueue, room, scatter};
use super::transport_pci::{VirtioPci, capability_list};
use super::{Failure, VirtioDevice};
use crate::devices::Access;
use crate::devices::error::RestoreError;
use crate::devices::pci::{Identity, WINDOW_BYTES};
use crate::irq::Line;
use crate::mem::{GuestRam, layout};

/// Most bytes filled per request.
pub const REQUEST_BYTES_MAX: usize = 512;
/// Most bytes filled per kick.
pub const KICK_BYTES_MAX: usize = 4096;
const QUEUE_SIZE: u16 = 8;
const _: () = assert!(QUEUE_SIZE as usize * REQUEST_BYTES_MAX <= KICK_BYTES_MAX);

static CAPABILITIES: [u32; 17] = capability_list(0, 1);
static IDENTITY: Identity = Identity {
    // Section 4.1.2: 0x1040 plus the device ID (entropy source: 4).
    vendor: 0x1AF4,
    device: 0x1044,
    revision: 1,
    // No class fits. This is the value that QEMU gives this device (PCI_CLASS_OTHERS).
    class: 0x00FF,
    subsystem: 0x1044_1AF4,
    interrupt_line: Some(Line::Rng.number()),
    window: Some(layout::PCI_WINDOW as u32 + WINDOW_BYTES),
    capabilities: &CAPABILITIES,
};

/// Event counters, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RngCounters {
    /// Requests answered.
    pub requests: u64,
    /// Bytes of entropy delivered.
    pub bytes: u64,
}

/// The entropy device.
#[derive(Debug, Default)]
pub(crate) struct Rng {
    counters: RngCounters,
}

impl VirtioDevice for Rng {
    const NAME: &'static str = "virtio-rng";
    const IDENTITY: &'static Identity = &IDENTITY;
    const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;
    const QUEUE_SIZES: &'static [u16] = &[QUEUE_SIZE];

    fn config(&self) -> &[u8] {
        &[]
    }

    fn start(&mut self, queues: &mut [VirtQueue], ram: &GuestRam) -> Result<(), QueueError> {
        queues[0].set_kicks_enabled(ram, true)
    }

    fn kick(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        access: &mut Access<'_>,
    ) -> Result<bool, Failure> {
        let queue = &mut queues[index];
        let mut drawn = [0; REQUEST_BYTES_MAX];
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(access.ram)? else { break };
            let head = chain.head_index();
            let room = room(chain.clone(), queue.size())?;
            let bytes = usize::try_from(room).unwrap_or(usize::MAX).min(REQUEST_BYTES_MAX);
            let drawn = &mut drawn[..bytes];
            if !drawn.is_empty() {
                access.boundary.entropy(drawn)?;
            }
            scatter(access.ram, chain, queue.size(), drawn)?;
            queue.push(access.ram, head, bytes as u32)?;
            self.counters.requests += 1;
            self.counters.bytes += bytes as u64;
        }
        queue.set_kicks_enabled(access.ram, true)?;
        Ok(queue.needs_interrupt(access.ram)?)
    }
}

impl VirtioPci<Rng> {
    pub(crate) fn entropy_counters(&self) -> RngCounters {
        self.device().counters
    }

    pub(crate) fn save_rng(&self) -> RngState {
        RngState { transport: self.save() }
    }

    pub(crate) fn restore_rng(state: RngState) -> Result<Self, RestoreError> {
        Self::restore(Rng::default(), state.transport)
    }
}
