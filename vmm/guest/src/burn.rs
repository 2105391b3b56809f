//! Compute without exits: the load that replay cannot follow by exits.
//!
//! No port, no device, no gate; the only thing read from outside is the tick count, which the stub's
//! interrupt handler advances. How many rounds fit into the time differs from run to run; the result is a
//! function of the rounds, so a client can check it.
//!
//! A burn may have a working set: so much memory, of which every page is written once between two looks
//! at the tick. It makes checkpoints large.

use core::hint::black_box;

use crate::clock::TICK_MS;
use crate::gate::ticks;

/// Rounds between two looks at the tick: some microseconds.
const ROUNDS_PER_LOOK: u64 = 4096;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

const PAGE: usize = 4096;

/// Memory for a working set, behind the image; `tables.s` maps it for writing.
const SCRATCH: usize = 0x40_0000;
/// The largest working set in KiB.
pub(crate) const WORKING_SET_KIB_MAX: u64 = 4096;

/// What to do.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    /// For so many milliseconds, rounded up to ticks.
    pub(crate) ms: u64,
    /// The working set, rounded down to pages; [`WORKING_SET_KIB_MAX`] at most.
    pub(crate) kib: u64,
}

/// What a burn did.
pub(crate) struct Burned {
    pub(crate) rounds: u64,
    /// The xorshift64 sequence (13, 7, 17) that starts at 0x9e3779b97f4a7c15, after `rounds` steps.
    pub(crate) result: u64,
}

/// Computes.
pub(crate) fn burn(task: Task) -> Burned {
    let end = ticks() + task.ms.div_ceil(TICK_MS);
    let pages = (task.kib.min(WORKING_SET_KIB_MAX) * 1024) as usize / PAGE;
    let mut burned = Burned { rounds: 0, result: SEED };
    while ticks() < end {
        for _ in 0..ROUNDS_PER_LOOK {
            let mut x = burned.result;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            burned.result = black_box(x);
        }
        burned.rounds += ROUNDS_PER_LOOK;
        for page in 0..pages {
            write(page, burned.result);
        }
    }
    burned
}

/// Writes a word of page `page` of the working set, another one each time.
fn write(page: usize, value: u64) {
    let word = value as usize % (PAGE / size_of::<u64>());
    let address = SCRATCH + page * PAGE + word * size_of::<u64>();
    // SAFETY: the callers' pages lie in [SCRATCH, SCRATCH + WORKING_SET_KIB_MAX), RAM that is mapped for
    // writing and that nothing of this program refers to; boot parameters that were there have been read.
    unsafe { (address as *mut u64).write_volatile(value) };
}
