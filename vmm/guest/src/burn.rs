//! Compute without exits: the load that replay cannot follow by exits.
//!
//! No port, no device, no gate; the only thing read from outside is the tick count, which the stub's
//! interrupt handler advances. How many rounds fit into the time differs from run to run; the result is a
//! function of the rounds, so a client can check it.

use core::hint::black_box;

use crate::clock::TICK_MS;
use crate::gate::ticks;

/// Rounds between two looks at the tick: some microseconds.
const ROUNDS_PER_LOOK: u64 = 4096;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a burn did.
pub(crate) struct Burned {
    pub(crate) rounds: u64,
    /// The xorshift64 sequence (13, 7, 17) that starts at 0x9e3779b97f4a7c15, after `rounds` steps.
    pub(crate) result: u64,
}

/// Computes for `ms` milliseconds, rounded up to ticks.
pub(crate) fn burn(ms: u64) -> Burned {
    let end = ticks() + ms.div_ceil(TICK_MS);
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
    }
    burned
}
