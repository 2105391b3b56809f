use super::*;
use crate::testing;

/// Sends `count` numbered frames through a link with faults `rates` and returns the frames that arrived.
fn through(seed: u64, rates: FaultRates, count: u32) -> (Vec<Vec<u8>>, FaultCounts) {
    let (a, mut b) = testing::pair();
    let mut fault = Fault::new(a, FaultConfig { seed, rx: FaultRates::default(), tx: rates });
    let mut out = Vec::new();
    let mut buffer = [0; FRAME_MAX];
    for number in 0..count {
        fault.send(&frame(number)).unwrap();
        fault.flush().unwrap();
        while let Some(length) = b.receive(&mut buffer).unwrap() {
            out.push(buffer[..length].to_vec());
        }
    }
    (out, fault.tx_counts())
}

/// As [`through`], but with the faults in the receive direction.
fn through_receive(seed: u64, rates: FaultRates, count: u32) -> (Vec<Vec<u8>>, FaultCounts) {
    let (a, mut b) = testing::pair();
    let mut fault = Fault::new(a, FaultConfig { seed, rx: rates, tx: FaultRates::default() });
    let mut out = Vec::new();
    let mut buffer = [0; FRAME_MAX];
    for number in 0..count {
        b.send(&frame(number)).unwrap();
        b.flush().unwrap();
        while let Some(length) = fault.receive(&mut buffer).unwrap() {
            out.push(buffer[..length].to_vec());
        }
        assert!(!fault.has_frame());
    }
    (out, fault.rx_counts())
}

fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0x5a; 60];
    frame[20..24].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[20..24].try_into().unwrap())
}

const ALL: FaultRates = FaultRates {
    drop: 500,
    duplicate: 500,
    reorder: 500,
    delay: 500,
    corrupt: 500,
    delay_frames: 7,
};

#[test]
fn rates_of_zero_pass_every_frame_unchanged() {
    for run in [through, through_receive] {
        let (out, counts) = run(1, FaultRates::default(), 5000);
        assert_eq!(out, (0..5000).map(frame).collect::<Vec<_>>());
        assert_eq!(counts, FaultCounts { frames: 5000, ..FaultCounts::default() });
    }
}

#[test]
fn same_seed_gives_same_faults_and_another_seed_others() {
    for run in [through, through_receive] {
        assert_eq!(run(42, ALL, 3000), run(42, ALL, 3000));
        assert_ne!(run(42, ALL, 3000).0, run(43, ALL, 3000).0);
    }
    // One seed must not give both directions the same faults.
    assert_ne!(through(42, ALL, 3000).0, through_receive(42, ALL, 3000).0);
}

#[test]
fn faults_happen_at_the_configured_rates() {
    let (_, counts) = through(7, ALL, 100_000);
    // 500 in 10,000 of 100,000 frames: 5,000 expected, standard deviation 69. Of the frames not
    // dropped: 4,750. Of those not delayed either: 4,512.
    let near = |count: u64, expected: u64| count.abs_diff(expected) < 400;
    assert!(near(counts.dropped, 5000), "{counts:?}");
    assert!(near(counts.duplicated, 4750), "{counts:?}");
    assert!(near(counts.corrupted, 4750), "{counts:?}");
    assert!(near(counts.delayed, 4750), "{counts:?}");
    assert!(near(counts.reordered, 4512), "{counts:?}");
    assert_eq!(counts.overflowed, 0);
}

#[test]
fn reordered_frame_passes_after_the_next() {
    let rates = FaultRates { reorder: 10_000, ..FaultRates::default() };
    let (out, _) = through(1, rates, 1);
    assert!(out.is_empty());
    let (out, counts) = through(1, FaultRates { reorder: 1000, ..FaultRates::default() }, 10_000);
    let swaps = out.windows(2).filter(|pair| number(&pair[0]) > number(&pair[1])).count() as u64;
    assert!(swaps > 0 && swaps <= counts.reordered);
    for (position, frame) in out.iter().enumerate() {
        // A run of consecutive reordered frames moves each of them by one place.
        assert!((position as u32).abs_diff(number(frame)) <= 8);
    }
    assert!(out.len() >= 9_999);
}

#[test]
fn delayed_frame_is_overtaken_by_the_configured_number() {
    let rates = FaultRates { delay: 100, delay_frames: 5, ..FaultRates::default() };
    let (out, counts) = through(3, rates, 2000);
    assert!(counts.delayed > 0);
    let order: Vec<u32> = out.iter().map(|f| number(f)).collect();
    let late = order.windows(2).position(|pair| pair[0] > pair[1]).unwrap();
    let (before, delayed) = (order[late], order[late + 1]);
    assert_eq!(before, delayed + 5);
}

#[test]
fn corruption_flips_one_bit() {
    let rates = FaultRates { corrupt: 10_000, ..FaultRates::default() };
    let (out, _) = through(5, rates, 500);
    for (number, damaged) in (0..).zip(&out) {
        let flipped: u32 =
            frame(number).iter().zip(damaged).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1);
    }
}

#[test]
fn duplicates_follow_their_original() {
    let rates = FaultRates { duplicate: 10_000, ..FaultRates::default() };
    let (out, _) = through(5, rates, 100);
    assert_eq!(out.len(), 200);
    assert!(out.chunks(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn held_frames_are_bounded() {
    let rates = FaultRates { delay: 10_000, delay_frames: u16::MAX, ..FaultRates::default() };
    let (out, counts) = through(5, rates, 200);
    assert_eq!(out.len(), 200 - HELD_FRAMES_MAX);
    assert_eq!(counts.overflowed as usize, 200 - HELD_FRAMES_MAX);
}
