use super::*;
use crate::limits::FRAME_MIN;
use crate::limits::{HOLD_BYTES_MAX, HOLD_BYTES_MIN, HOLD_FRAMES_MAX};

fn queue(frames: usize, bytes: usize) -> HoldQueue {
    HoldQueue::new(HoldLimits::new(frames, bytes).unwrap())
}

/// Positions of a frame before which no flush is.
fn at(release_at: u64, watermark: u64) -> Positions {
    Positions { release_at, durable_at: 0, watermark }
}

/// A frame filled with its number.
fn frame(number: u8, length: usize) -> Vec<u8> {
    vec![number; length]
}

/// Pops all frames and returns their watermarks and first bytes.
fn drain(queue: &mut HoldQueue) -> Vec<(u64, u8)> {
    let mut out = Vec::new();
    while let Some(held) = queue.front() {
        assert!(held.frame.iter().all(|byte| *byte == held.frame[0]));
        out.push((held.watermark, held.frame[0]));
        queue.pop();
    }
    out
}

/// Returns the oldest frame, if it may leave once everything up to `acknowledged` is acknowledged.
fn released(queue: &HoldQueue, acknowledged: u64) -> Option<Held<'_>> {
    queue.front().filter(|held| held.release_at <= acknowledged)
}

#[test]
fn frame_is_released_when_its_position_is_acknowledged() {
    let mut queue = queue(8, 4096);
    queue.push(at(10, 10), 1000, &frame(1, 60)).unwrap();
    queue.push(at(10, 10), 1001, &frame(2, 61)).unwrap();
    queue.push(at(12, 12), 1002, &frame(3, 62)).unwrap();
    assert_eq!(released(&queue, 9), None);
    let held = Held {
        release_at: 10,
        durable_at: 0,
        watermark: 10,
        made_at_ns: 1000,
        frame: &frame(1, 60),
    };
    assert_eq!(released(&queue, 10), Some(held));
    assert_eq!((queue.front(), queue.get(0)), (Some(held), Some(held)));
    assert_eq!(queue.get(2).unwrap().frame, frame(3, 62));
    assert_eq!(queue.get(3), None);
    assert_eq!(
        (queue.front().map(|held| held.made_at_ns), queue.newest_release_at()),
        (Some(1000), Some(12))
    );
    queue.pop();
    queue.pop();
    assert_eq!(released(&queue, 11), None);
    assert_eq!(released(&queue, u64::MAX).unwrap().frame, frame(3, 62));
    assert_eq!((queue.len(), queue.bytes()), (1, 62));
    assert_eq!(queue.stats().released, 2);
}

#[test]
fn release_uses_release_at_and_drop_uses_watermark() {
    let mut queue = queue(8, 4096);
    queue.push(at(4, 10), 0, &frame(1, 60)).unwrap();
    queue.push(at(4, 12), 0, &frame(2, 60)).unwrap();
    assert_eq!(released(&queue, 3), None);
    assert_eq!(released(&queue, 4).unwrap().watermark, 10);
    assert_eq!(queue.drop_up_to(9), 0);
    assert_eq!(queue.drop_up_to(10), 1);
    assert_eq!(queue.newest_release_at(), Some(4));
    assert_eq!(drain(&mut queue), [(12, 2)]);
}

#[test]
fn push_to_full_queue_is_refused_and_changes_nothing() {
    let mut by_frames = queue(2, 4096);
    by_frames.push(at(1, 1), 0, &frame(1, 14)).unwrap();
    by_frames.push(at(2, 2), 0, &frame(2, 14)).unwrap();
    assert!(!by_frames.room_for(14));
    assert_eq!(by_frames.push(at(3, 3), 0, &frame(3, 14)), Err(Full));

    let mut by_bytes = queue(100, HOLD_BYTES_MIN);
    by_bytes.push(at(1, 1), 0, &frame(1, 1000)).unwrap();
    assert!(by_bytes.room_for(518) && !by_bytes.room_for(519));
    assert_eq!(by_bytes.push(at(2, 2), 0, &frame(2, 519)), Err(Full));
    by_bytes.push(at(2, 2), 0, &frame(2, 518)).unwrap();

    let stats = by_bytes.stats();
    assert_eq!((stats.pushed, stats.refused), (2, 1));
    assert_eq!((stats.frames_high, stats.bytes_high), (2, 1518));
    assert_eq!(drain(&mut by_frames), [(1, 1), (2, 2)]);
    assert_eq!(drain(&mut by_bytes), [(1, 1), (2, 2)]);
    assert!(by_bytes.is_empty() && by_bytes.bytes() == 0);
    // A refused frame may be pushed again.
    by_frames.push(at(3, 3), 0, &frame(3, 14)).unwrap();
    assert_eq!(drain(&mut by_frames), [(3, 3)]);
}

#[test]
fn drop_up_to_released_watermark_keeps_the_rest() {
    let mut queue = queue(8, 4096);
    for (number, watermark) in [(1, 5), (2, 5), (3, 7), (4, 9)] {
        queue.push(at(watermark, watermark), 0, &frame(number, 60)).unwrap();
    }
    assert_eq!(queue.drop_up_to(4), 0);
    assert_eq!(queue.drop_up_to(7), 3);
    assert_eq!(queue.drop_up_to(7), 0);
    assert_eq!(queue.stats().dropped, 3);
    assert_eq!(drain(&mut queue), [(9, 4)]);
    assert_eq!(queue.drop_up_to(u64::MAX), 0);
    assert_eq!((queue.newest_release_at(), queue.front()), (None, None));
}

#[test]
fn clear_allows_positions_to_start_again() {
    let mut queue = queue(8, 4096);
    queue.push(at(u64::MAX, u64::MAX), 0, &frame(1, 60)).unwrap();
    queue.push(at(u64::MAX, u64::MAX), 0, &frame(2, 60)).unwrap();
    assert_eq!(queue.clear(), 2);
    assert_eq!((queue.len(), queue.bytes(), queue.stats().dropped), (0, 0, 2));
    queue.push(at(1, 1), 0, &frame(3, 60)).unwrap();
    assert_eq!(drain(&mut queue), [(1, 3)]);
}

/// The one case that needs the last byte of the ring: a frame of maximum length that ends there, because
/// the space before the oldest frame is one byte too short.
#[test]
fn longest_frame_fits_in_the_worst_case() {
    let mut queue = queue(100, 2 * FRAME_MAX);
    queue.push(at(1, 1), 0, &frame(1, FRAME_MAX - 1)).unwrap();
    queue.push(at(2, 2), 0, &frame(2, FRAME_MAX)).unwrap();
    queue.pop();
    queue.push(at(3, 3), 0, &frame(3, FRAME_MAX)).unwrap();
    assert_eq!(queue.bytes(), queue.limits().bytes());
    assert_eq!(drain(&mut queue), [(2, 2), (3, 3)]);
}

/// Fills the queue to its limit all around the ring, with frames that seldom end where the ring ends.
#[test]
fn limit_on_bytes_is_exact_at_every_ring_offset() {
    for first in (FRAME_MIN..=FRAME_MAX).step_by(7) {
        let mut queue = queue(100, 2 * FRAME_MAX);
        for (number, length) in
            [first, FRAME_MAX, FRAME_MIN, 1001].iter().cycle().take(40).enumerate()
        {
            while !queue.room_for(*length) {
                queue.pop();
            }
            queue.push(at(number as u64, number as u64), 0, &frame(number as u8, *length)).unwrap();
            let left = queue.limits().bytes() - queue.bytes();
            if left >= FRAME_MIN {
                // A frame of exactly the remaining size fits.
                let left = left.min(FRAME_MAX);
                queue
                    .push(at(number as u64, number as u64), 0, &frame(number as u8, left))
                    .unwrap();
            }
        }
        let numbers: Vec<u8> = drain(&mut queue).iter().map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted() && numbers.last() == Some(&39), "{numbers:?}");
    }
}

#[test]
#[should_panic(expected = "watermark 4 after 5")]
fn push_with_decreasing_watermark_panics_even_when_empty() {
    let mut queue = queue(8, 4096);
    queue.push(at(5, 5), 0, &frame(1, 60)).unwrap();
    queue.pop();
    let _ = queue.push(at(4, 4), 0, &frame(2, 60));
}

#[test]
#[should_panic(expected = "a frame of 1519 bytes")]
fn push_of_too_long_frame_panics() {
    let _ = queue(8, 4096).push(at(1, 1), 0, &frame(1, FRAME_MAX + 1));
}

#[test]
#[should_panic(expected = "a frame at the front")]
fn pop_of_empty_queue_panics() {
    queue(8, 4096).pop();
}

#[test]
fn limits_out_of_bounds_are_refused() {
    let error = HoldLimits::new(0, 4096).unwrap_err();
    assert_eq!(error.to_string(), "a hold queue of 0 frames: choose 1 to 65536");
    let error = HoldLimits::new(8, FRAME_MAX - 1).unwrap_err();
    assert_eq!(error.to_string(), "a hold queue of 1517 bytes: choose 1518 to 268435456");
    assert_eq!(HoldLimits::new(HOLD_FRAMES_MAX + 1, 4096), Err(HoldLimitsError::Frames(65537)));
    assert_eq!(
        HoldLimits::new(8, HOLD_BYTES_MAX + 1),
        Err(HoldLimitsError::Bytes(HOLD_BYTES_MAX + 1))
    );
    let limits = HoldLimits::default();
    assert_eq!(HoldLimits::new(limits.frames(), limits.bytes()), Ok(limits));
}
