//! Every descriptor table of a small queue.

use super::*;

const RAM_BYTES: usize = 1 << 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
/// Entries of the queue.
const SIZE: u16 = 4;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Flags and `next` of a descriptor: each flag, and each index in the table and one outside.
const SHAPES: usize = 4 * (SIZE as usize + 1);

/// Returns flags and `next` of a shape.
fn shape(number: usize) -> (u16, u16) {
    ((number % 4) as u16, (number / 4) as u16)
}

/// What a walk from `head` must return: the bytes for the device to read, and those for it to write. `None` if
/// the chain has a loop, leaves the table or has more parts than the queue has entries.
fn model(table: &[(u16, u16)], head: u16) -> Option<(u64, u64)> {
    let (mut read, mut write) = (0, 0);
    let mut at = head;
    for _part in 0..SIZE {
        let &(flags, next) = table.get(usize::from(at))?;
        // Each part has another length, so that the sum says which parts were visited.
        let bytes = 1 << (4 * at);
        match flags & WRITE {
            0 => read += bytes,
            _ => write += bytes,
        }
        if flags & NEXT == 0 {
            return Some((read, write));
        }
        at = next;
    }
    None
}

#[test]
fn every_table_of_three_descriptors_is_walked_as_the_specification_says() {
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).unwrap();
    // The last descriptor is the end of a chain. Its shapes would add nothing that the others do not have.
    let last = (WRITE, 0);
    for number in 0..SHAPES.pow(3) {
        let shapes = [number, number / SHAPES, number / SHAPES.pow(2)].map(|n| shape(n % SHAPES));
        let table = [&shapes[..], &[last]].concat();
        for (index, &(flags, next)) in (0u64..).zip(&table) {
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&(BUFFERS + 0x1000 * index).to_le_bytes());
            raw[8..12].copy_from_slice(&(1u32 << (4 * index)).to_le_bytes());
            raw[12..14].copy_from_slice(&flags.to_le_bytes());
            raw[14..].copy_from_slice(&next.to_le_bytes());
            ram.write_slice(&raw, GuestAddress(DESCRIPTORS + 16 * index)).unwrap();
        }
        for head in 0..=SIZE {
            let mut queue = VirtQueue::new(SIZE);
            let areas = [QueueArea::Descriptors, QueueArea::Driver, QueueArea::Device];
            for (area, address) in areas.into_iter().zip([DESCRIPTORS, AVAIL, USED]) {
                assert!(queue.set_area(area, address));
            }
            ram.write_obj([0u16, 1, head], GuestAddress(AVAIL)).unwrap();
            queue.enable(&ram, false).unwrap();
            let chain = queue.pop(&ram).unwrap().unwrap();
            let expected = model(&table, head);
            let mut buffer = [0; RAM_BYTES];
            let found = (gather(&ram, chain.clone(), SIZE, &mut buffer), room(chain, SIZE));
            match (expected, found) {
                (Some(expected), (Ok(read), Ok(write))) => {
                    assert_eq!((read, write), expected, "{table:?} from {head}");
                }
                (None, (Err(QueueError::BrokenChain), Err(QueueError::BrokenChain))) => {}
                (expected, found) => panic!("{table:?} from {head}: {found:?}, not {expected:?}"),
            }
        }
    }
}
