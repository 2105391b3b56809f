//! A channel allocates when it is created, and never again.
//!
//! This is a program of its own, because the counting allocator is that of the whole program: it has one
//! test, and nothing else runs in it.
//!
//! It has the only unsafe code of this crate's tests besides `sealed_allocation.rs`: `GlobalAlloc`
//! cannot be implemented without. Every request is passed to the system's allocator unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use logchan::channel::{Channel, Config};
use logchan::ids::{Lane, Role, SessionId, Term, VmId};
use logchan::time::{Duration, Time};

struct Counting;

thread_local! {
    /// Allocations of this thread; the test harness allocates on its own threads while a test runs. The
    /// variable is constant-initialized and has no destructor, so that counting does not allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is passed on to `System`, which fulfils the contract; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller fulfils the contract of this function, which is the one of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `alloc` or `realloc` above, and thus from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and the caller fulfils the contract for `size`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Frames in flight in one direction, in memory allocated in advance.
struct Wire {
    frames: Vec<[u8; 1500]>,
    lengths: Vec<usize>,
    delivered: u64,
}

const WIRE_FRAMES_MAX: usize = 4096;

impl Wire {
    fn new() -> Self {
        let lengths = Vec::with_capacity(WIRE_FRAMES_MAX);
        Self { frames: vec![[0; 1500]; WIRE_FRAMES_MAX], lengths, delivered: 0 }
    }

    fn fill(&mut self, channel: &mut Channel, now: Time) {
        while self.lengths.len() < WIRE_FRAMES_MAX {
            let Some(length) = channel.poll_transmit(now, &mut self.frames[self.lengths.len()])
            else {
                return;
            };
            self.lengths.push(length);
        }
    }

    /// Delivers the frames: every fifth one is lost, and the others arrive in groups of seven, each in
    /// reverse order.
    fn deliver(&mut self, channel: &mut Channel, now: Time) {
        let count = self.lengths.len();
        for group in 0..count.div_ceil(7) {
            for index in (7 * group..count.min(7 * group + 7)).rev() {
                self.delivered += 1;
                if !self.delivered.is_multiple_of(5) {
                    channel.handle_frame(now, &self.frames[index][..self.lengths[index]]);
                }
            }
        }
        self.lengths.clear();
    }
}

#[test]
fn channel_with_losses_and_full_windows_allocates_nothing_after_new() {
    let config = Config::new(VmId(1), SessionId(1), Term(1));
    let mut now = Time::from_nanos(1);
    let mut ends = [Role::Primary, Role::Backup]
        .map(|role| Channel::new(config.clone(), role, now).expect("the configuration is valid"));
    let mut wires = [Wire::new(), Wire::new()];
    let entry = [0x5a; 700];

    let before = ALLOCATIONS.get();
    let mut received = 0;
    for _ in 0..2000 {
        now = now + Duration::from_micros(400);
        for lane in Lane::ALL {
            while ends[0].append(now, lane, &entry).is_ok() {}
            ends[0].require_bulk();
        }
        for end in [0, 1] {
            ends[end].handle_timeout(now);
            wires[end].fill(&mut ends[end], now);
            wires[end].deliver(&mut ends[1 - end], now);
            while ends[1 - end].poll_event().is_some() {}
        }
        for lane in Lane::ALL {
            let length = ends[1].received(lane).len() / 2;
            ends[1].consume(lane, length);
            received += length;
        }
    }
    let allocations = ALLOCATIONS.get() - before;
    let resent = ends[0].stats().resent;
    println!("{received} bytes received, {resent} frames retransmitted, {allocations} allocations");
    assert!(received > 10_000_000 && resent > 1000, "too little was transferred or retransmitted");
    assert_eq!(allocations, 0);
}
