//! The hold queue, the guest's addresses and the announcer allocate when they are created and never
//! again.
//!
//! This is a separate test program with a single test, because the counting allocator applies to the
//! whole program.
//!
//! `GlobalAlloc` cannot be implemented without unsafe code. The allocator passes every request to the
//! system's allocator unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use replication::announce::{ADDRESSES_BYTES_MAX, Station};
use replication::hold::Positions;
use replication::limits::ANNOUNCEMENT_BYTES_MAX;
use replication::{Announcement, Announcer, GuestAddresses, HoldLimits, HoldQueue, MacAddr};

struct Counting;

thread_local! {
    /// Allocations of this thread; the test harness allocates on its own threads while a test runs. The
    /// variable is constant-initialized and has no destructor, so that counting does not allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is passed on to `System`, which keeps the contract; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of this function, which is that of `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `alloc` or `realloc` above, and thus from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and the caller keeps the contract for `size`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the frames that a guest with many addresses sends.
fn guest_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    for number in 0..20 {
        let station = Station { mac: MacAddr(0x52, 0x54, 0, 0, 0, number % 6), vlan: 0 };
        let ipv4 = Ipv4Addr::new(10, 9, 9, number);
        let ipv6 = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number.into());
        for announcement in [
            Announcement::Rarp { station },
            Announcement::ArpRequest { station, address: ipv4 },
            Announcement::NeighbourAdvert { station, address: ipv6, router: false },
        ] {
            let length = announcement.build(&mut buffer);
            frames.push(buffer[..length].to_vec());
            // Longer, so that the queue wraps around, and damaged.
            frames.push([&buffer[..length], &[0; 900]].concat());
            buffer[12 + usize::from(number)] ^= 1;
            frames.push(buffer[..length].to_vec());
        }
    }
    frames
}

/// Positions of a frame that waits for its own.
fn at(watermark: u64) -> Positions {
    Positions { release_at: watermark, durable_at: 0, watermark }
}

#[test]
fn output_path_allocates_nothing_after_start_up() {
    let frames = guest_frames();
    let mut queue = HoldQueue::new(HoldLimits::new(64, 20_000).unwrap());
    let mut addresses = GuestAddresses::new(MacAddr(0x52, 0x54, 0, 0, 0, 1));
    let mut announcer = Announcer::new();
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let mut encoded = [0; ADDRESSES_BYTES_MAX];

    let before = ALLOCATIONS.get();
    let mut now_ns = 0;
    for round in 0..1000 {
        for (number, frame) in frames.iter().enumerate() {
            let watermark = (round * frames.len() + number) as u64;
            addresses.learn(frame);
            while queue.push(at(watermark), now_ns, frame).is_err() {
                let up_to = watermark.saturating_sub(20);
                while queue.front().is_some_and(|held| held.release_at <= up_to) {
                    queue.pop();
                }
                queue.drop_up_to(up_to + 1);
            }
            now_ns += 1_000_000;
            while announcer.poll_transmit(now_ns, &addresses, &mut buffer).is_some() {}
        }
        announcer.start(now_ns);
        announcer.request_round(now_ns);
        let length = addresses.encode(&mut encoded);
        assert_eq!(GuestAddresses::decode(&encoded[..length]).as_ref(), Ok(&addresses));
    }
    let allocations = ALLOCATIONS.get() - before;
    let (held, announced) = (queue.stats(), announcer.stats());
    println!("{held:?}, {announced:?}, {allocations} allocations");
    assert!(held.refused > 1000 && held.dropped > 100 && announced.frames > 1000);
    assert_eq!(allocations, 0);
}
