//! What noise does to a frame.

use super::rng::{Chance, Rng};

/// Shortest frame that Ethernet carries, without its header and check sequence: IEEE 802.3 clause
/// 3.2.8, less the 14 bytes that are not in front of us.
const PAYLOAD_BYTES_MIN: usize = 60 - 14;

/// Fills up a short frame as a NIC does; some leave there what was in memory.
pub fn pad(frame: &mut Vec<u8>, rng: &mut Rng) {
    let byte = if rng.chance(Chance::percent(70)) { 0 } else { rng.word() as u8 };
    if frame.len() < PAYLOAD_BYTES_MIN {
        frame.resize(PAYLOAD_BYTES_MIN, byte);
    }
}

/// PageDelta, cuts or lengthens a frame.
pub fn damage(frame: &mut Vec<u8>, rng: &mut Rng) {
    if frame.is_empty() {
        return;
    }
    let length = frame.len() as u64;
    match rng.below(8) {
        0..=2 => {
            for _ in 0..rng.within(1..=8) {
                let at = rng.below(length) as usize;
                frame[at] ^= 1 << rng.below(8);
            }
        }
        // Where what the receiver decides by stands.
        3 => {
            let at = rng.below(length.min(16)) as usize;
            frame[at] = rng.word() as u8;
        }
        4 => frame.truncate(rng.below(length) as usize),
        5 => {
            let start = rng.below(length) as usize;
            let end = (start + rng.magnitude(1..=64) as usize).min(frame.len());
            frame[start..end].fill(0);
        }
        6 => {
            let longer = frame.len() + rng.magnitude(1..=64) as usize;
            frame.resize(longer, rng.word() as u8);
        }
        _ => {
            let start = rng.below(length) as usize;
            rng.fill(&mut frame[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_the_same_for_a_seed_and_mostly_does_something() {
        let original = vec![0x5a; 100];
        let damaged = |seed| {
            let mut frame = original.clone();
            damage(&mut frame, &mut Rng::new(seed));
            frame
        };
        let changed = (0..1000).filter(|&seed| damaged(seed) != original).count();
        assert!(changed > 950, "{changed} of 1000");
        assert!((0..1000).all(|seed| damaged(seed) == damaged(seed)));
        assert!((0..1000).any(|seed| damaged(seed).len() < 100));
    }
}
