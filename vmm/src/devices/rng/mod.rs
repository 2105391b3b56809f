//! virtio-rng (virtio 1.2, section 5.4). Entropy is a logged input, so it comes from the boundary.
//!
//! One kick reads at most [`KICK_BYTES_MAX`] bytes: the queue has few entries, and at most
//! [`REQUEST_BYTES_MAX`] bytes of each request are filled ("it MAY use less than the entire buffer
//! length", section 5.4.6.1).

mod config;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::RngState;

use serde::Serialize;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use crate::devices::pci::Identity;
use crate::devices::virtio::queue::{QueueError, VirtQueue, room, scatter};
use crate::devices::virtio::transport_pci::TransportState;
use crate::devices::virtio::{Failure, TransportCounters, VirtioDevice, VirtioPci};
use crate::devices::{Access, DeviceConfig};
use crate::mem::GuestRam;
use config::{IDENTITY, QUEUE_SIZE};

/// The entropy device as a PCI function.
pub(crate) type RngFunction = VirtioPci<Rng>;

/// Most bytes filled per request.
const REQUEST_BYTES_MAX: usize = 512;
/// Most bytes filled per kick.
const KICK_BYTES_MAX: usize = 4096;
const _: () = assert!(QUEUE_SIZE as usize * REQUEST_BYTES_MAX <= KICK_BYTES_MAX);

/// Event counters, for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RngCounters {
    /// Transport and queue.
    pub transport: TransportCounters,
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
    const IDENTITY: &'static Identity = IDENTITY;
    const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;
    const QUEUE_SIZES: &'static [u16] = &[QUEUE_SIZE];
    type State = RngState;
    type Counters = RngCounters;

    fn power_on(_config: &DeviceConfig) -> Self {
        Self::default()
    }

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
            // Possibly less than there is room for: the boundary limits the rate.
            let bytes = match bytes {
                0 => 0,
                _ => access.boundary.entropy(&mut drawn[..bytes])?,
            };
            scatter(access.ram, chain, queue.size(), &drawn[..bytes])?;
            queue.push(access.ram, head, bytes as u32)?;
            self.counters.requests += 1;
            self.counters.bytes += bytes as u64;
        }
        queue.set_kicks_enabled(access.ram, true)?;
        Ok(queue.needs_interrupt(access.ram)?)
    }

    fn save(&self, transport: TransportState) -> RngState {
        RngState { transport }
    }

    fn restore(state: RngState) -> Option<(Self, TransportState)> {
        Some((Self::default(), state.transport))
    }

    fn counters(&self, transport: TransportCounters) -> RngCounters {
        RngCounters { transport, ..self.counters }
    }
}
