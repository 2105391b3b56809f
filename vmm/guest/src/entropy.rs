//! virtio-rng, polled. A machine may do without it.

use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::pci::PciTransport;

use crate::dma::StaticDma;
use crate::mem::once;

/// The machine's source of randomness, if it has one.
pub(crate) struct Entropy {
    device: Option<VirtIORng<StaticDma, PciTransport>>,
    /// What the device writes to: static, so that nothing on the stack is ever shared with it.
    word: &'static mut [u8; 8],
}

impl Entropy {
    pub(crate) fn new(transport: Option<PciTransport>) -> Self {
        let device = transport.map(|transport| {
            VirtIORng::new(transport).unwrap_or_else(|error| panic!("virtio-rng: {error}"))
        });
        Self { device, word: once!([u8; 8], [0; 8]) }
    }

    /// 64 random bits; `None` without a device, or if it gave fewer.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let device = self.device.as_mut()?;
        let mut filled = 0;
        while filled < self.word.len() {
            match device.request_entropy(&mut self.word[filled..]) {
                Ok(n @ 1..) => filled += n,
                Ok(0) | Err(_) => return None,
            }
        }
        Some(u64::from_le_bytes(*self.word))
    }
}
