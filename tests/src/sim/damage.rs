//! Padding and corruption of frames in transit.

use super::rng::{Chance, Rng};

/// Shortest Ethernet payload: the minimum frame of IEEE 802.3 clause 3.2.8 without the check sequence,
/// less the header of 14 bytes, which simulated frames do not have.
const PAYLOAD_BYTES_MIN: usize = 60 - 14;

/// Pads a short frame as a NIC does, with zeros or, as some do, with what was in memory.
pub fn pad(frame: &mut Vec<u8>, rng: &mut Rng) {
    let byte = if rng.chance(Chance::percent(70)) { 0 } else { rng.word() as u8 };
    if frame.len() < PAYLOAD_BYTES_MIN {
        frame.resize(PAYLOAD_BYTES_MIN, byte);
    }
}

/// Corrupts, truncates or lengthens a frame.
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
        // The first bytes of the header, by which the receiver classifies the frame.
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
    fn damage_is_deterministic_and_usually_changes_the_frame() {
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
