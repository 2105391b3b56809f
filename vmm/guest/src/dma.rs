//! Memory that devices see: the driver crate's `Hal`.
//!
//! Addresses are physical and virtual at once, so sharing a buffer is only a cast. Queue memory comes
//! from a static arena and is never given back: no driver here is ever torn down.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Two pages for each queue in use: two of the network device, one of the entropy device, one of a disk.
const ARENA_PAGES: usize = 8;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; ARENA_PAGES * PAGE_SIZE]>);

// SAFETY: the bytes are only reached through `dma_alloc`, which hands out each page once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_PAGES * PAGE_SIZE]));
static PAGES_USED: AtomicUsize = AtomicUsize::new(0);

/// The arena as a `Hal`.
pub(crate) struct StaticDma;

// SAFETY: `dma_alloc` returns page-aligned, zeroed memory of a static that nobody else uses;
// `mmio_phys_to_virt` returns the identity-mapped address, and the MMIO gigabyte holds no Rust object;
// `share` returns the address of the buffer itself.
unsafe impl Hal for StaticDma {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = PAGES_USED.fetch_add(pages, Relaxed);
        assert!(first + pages <= ARENA_PAGES, "the queues need more than {ARENA_PAGES} pages");
        // SAFETY: the assertion keeps the offset inside the arena.
        let start = unsafe { ARENA.0.get().cast::<u8>().add(first * PAGE_SIZE) };
        (start.addr() as PhysAddr, NonNull::new(start).expect("a static has an address"))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8> {
        // The page tables in tables.s map 3 to 4 GiB for devices.
        assert!(
            address >= 0xc000_0000 && address + size as u64 <= 0x1_0000_0000,
            "registers at {address:#x} are outside the mapped window"
        );
        NonNull::new(address as *mut u8).expect("checked above")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().addr().get() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
