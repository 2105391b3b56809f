use super::*;
use crate::devices::Devices;
use crate::devices::test_machine::{MAC, RAM_BYTES, TestMachine};
use crate::devices::virtio::test_driver::{
    Driver, EVENT_IDX, NEEDS_RESET, NET_DEVICE, NEXT, RUNNING, VERSION_1, WRITE, avail, used,
};

const RX: u16 = 0;
const TX: u16 = 1;
const BUFFER: u64 = 0x8_0000;

fn started(features: u64) -> (TestMachine, Driver) {
    let mut m = TestMachine::new();
    m.init_pics();
    let driver = Driver::start(&mut m, NET_DEVICE, VERSION_1 | features, 2, 8);
    (m, driver)
}

/// Writes a header of zeros and `frame` to `address`.
fn put_packet(m: &TestMachine, address: u64, frame: &[u8]) -> u32 {
    m.write_ram(address, &[0; HEADER_BYTES]);
    m.write_ram(address + HEADER_BYTES as u64, frame);
    (HEADER_BYTES + frame.len()) as u32
}

#[test]
fn transmitted_frame_leaves_without_its_header_and_the_buffer_returns() {
    let (mut m, mut driver) = started(0);
    let frame: Vec<u8> = (0..64).collect();
    let bytes = put_packet(&m, BUFFER, &frame);
    let head = driver.add(&m, TX, &[(BUFFER, bytes, 0)]);
    driver.kick(&mut m, TX);
    assert_eq!(m.boundary.frames, [frame]);
    assert_eq!(driver.take_used(&m, TX), [(u32::from(head), 0)]);
    assert!(m.devices.interrupt_pending());
    assert_eq!(m.devices.acknowledge_interrupt(), Some(0x35));
    assert_eq!(driver.isr(&mut m), 1);
}

#[test]
fn frame_in_parts_is_gathered_in_order() {
    let (mut m, mut driver) = started(0);
    let frame: Vec<u8> = (0..100).collect();
    put_packet(&m, BUFFER, &frame);
    // Header alone, an empty part, a split that cuts the frame, the rest.
    let parts = [(BUFFER, 12, 0), (BUFFER, 0, 0), (BUFFER + 12, 33, 0), (BUFFER + 45, 67, 0)];
    driver.add(&m, TX, &parts);
    driver.kick(&mut m, TX);
    assert_eq!(m.boundary.frames, [frame]);
}

#[test]
fn longest_frame_is_sent_and_one_byte_more_is_dropped() {
    let (mut m, mut driver) = started(0);
    for bytes in [FRAME_MAX, FRAME_MAX + 1, FRAME_MIN, FRAME_MIN - 1] {
        let bytes = (HEADER_BYTES + bytes) as u32;
        driver.add(&m, TX, &[(BUFFER, bytes, 0)]);
    }
    driver.kick(&mut m, TX);
    let sent: Vec<usize> = m.boundary.frames.iter().map(Vec::len).collect();
    assert_eq!(sent, [FRAME_MAX, FRAME_MIN]);
    assert_eq!(driver.take_used(&m, TX).len(), 4);
    assert_eq!(m.devices.counters().net.bad_size, 2);
    assert_eq!(driver.status(&mut m), RUNNING);
}

#[test]
fn received_frame_has_a_header_with_one_buffer_and_raises_the_line() {
    let (mut m, mut driver) = started(0);
    assert!(!m.devices.capacity(&m.ram).frame);
    let head = driver.add(&m, RX, &[(BUFFER, 12, WRITE), (BUFFER + 0x100, 1518, WRITE)]);
    assert!(m.devices.capacity(&m.ram).frame);
    let frame: Vec<u8> = (1..=60).collect();
    m.frame(&frame);
    assert!(!m.devices.capacity(&m.ram).frame);
    assert_eq!(driver.take_used(&m, RX), [(u32::from(head), 72)]);
    assert_eq!(m.read_ram::<12>(BUFFER), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(m.read_ram::<60>(BUFFER + 0x100), frame[..]);
    assert!(m.devices.interrupt_pending());
}

#[test]
fn interrupt_line_stays_high_until_isr_is_read() {
    let (mut m, mut driver) = started(0);
    driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
    m.frame(&[7; 60]);
    assert_eq!(m.devices.acknowledge_interrupt(), Some(0x35));
    m.out8(0x20, 0x20);
    assert!(m.devices.interrupt_pending(), "still asserted after EOI");
    assert_eq!(driver.isr(&mut m), 1);
    assert!(!m.devices.interrupt_pending());
    assert_eq!(driver.isr(&mut m), 0);
}

#[test]
fn frame_without_buffer_or_driver_is_dropped_and_counted() {
    let mut m = TestMachine::new();
    m.frame(&[1; 60]);
    assert_eq!(m.devices.counters().net.no_buffer, 1);
    let (mut m, _driver) = started(0);
    m.frame(&[1; 60]);
    assert_eq!(m.devices.counters().net.no_buffer, 1);
    assert!(!m.devices.interrupt_pending());
}

#[test]
fn frame_that_does_not_fit_leaves_the_buffer_for_one_that_does() {
    let (mut m, mut driver) = started(0);
    let head = driver.add(&m, RX, &[(BUFFER, 12 + 100, WRITE)]);
    m.frame(&[1; 101]);
    m.frame(&[1; FRAME_MAX + 1]);
    assert_eq!(m.devices.counters().net.short_buffer, 2);
    assert!(driver.take_used(&m, RX).is_empty());
    m.frame(&[2; 100]);
    assert_eq!(driver.take_used(&m, RX), [(u32::from(head), 112)]);
}

#[test]
fn device_readable_parts_are_not_written() {
    let (mut m, mut driver) = started(0);
    m.write_ram(BUFFER, &[0xEE; 64]);
    driver.add(&m, RX, &[(BUFFER, 64, 0), (BUFFER + 0x1000, 2048, WRITE)]);
    m.frame(&[3; 60]);
    assert_eq!(m.read_ram::<64>(BUFFER), [0xEE; 64]);
    assert_eq!(m.read_ram::<2>(BUFFER + 0x1000 + 12), [3, 3]);
}

#[test]
fn no_interrupt_flag_is_honoured() {
    let (mut m, mut driver) = started(0);
    m.write_ram(avail(TX), &1u16.to_le_bytes());
    driver.add(&m, TX, &[(BUFFER, 100, 0)]);
    driver.kick(&mut m, TX);
    assert_eq!(driver.take_used(&m, TX).len(), 1);
    assert_eq!(driver.isr(&mut m), 0);
}

#[test]
fn event_idx_interrupts_only_when_used_event_is_passed() {
    let (mut m, mut driver) = started(EVENT_IDX);
    driver.set_used_event(&m, TX, 2);
    for expected in [0, 0, 1, 0] {
        driver.add(&m, TX, &[(BUFFER, 100, 0)]);
        driver.kick(&mut m, TX);
        assert_eq!(driver.isr(&mut m), expected);
    }
    // A batch that passes used_event causes one interrupt.
    driver.set_used_event(&m, TX, 5);
    for _ in 0..4 {
        driver.add(&m, TX, &[(BUFFER, 100, 0)]);
    }
    driver.kick(&mut m, TX);
    assert_eq!(driver.isr(&mut m), 1);
}

#[test]
fn event_idx_requests_transmit_kicks_always_and_receive_kicks_only_when_empty() {
    let (mut m, mut driver) = started(EVENT_IDX);
    assert!(driver.would_kick(&m, TX));
    assert!(driver.would_kick(&m, RX), "the queue is empty");
    driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
    driver.kick(&mut m, RX);
    assert!(!driver.would_kick(&m, RX));
    driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
    m.frame(&[1; 60]);
    assert!(!driver.would_kick(&m, RX), "one buffer left");
    m.frame(&[1; 60]);
    assert!(driver.would_kick(&m, RX), "used up");
    for _ in 0..20 {
        driver.add(&m, TX, &[(BUFFER, 100, 0)]);
        driver.kick(&mut m, TX);
        assert!(driver.would_kick(&m, TX));
    }
}

#[test]
fn receive_kicks_stay_suppressed_over_index_wrap() {
    let (mut m, mut driver) = started(EVENT_IDX);
    driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
    driver.kick(&mut m, RX);
    for _ in 0..70_000u32 {
        assert!(!driver.would_kick(&m, RX));
        driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
        m.frame(&[1; 60]);
    }
    assert_eq!(driver.take_used(&m, RX).len(), 70_000 % 0x1_0000);
}

#[test]
fn without_event_idx_the_flag_suppresses_receive_kicks() {
    let (mut m, mut driver) = started(0);
    let flags = |m: &TestMachine| u16::from_le_bytes(m.read_ram(used(RX)));
    assert_eq!(flags(&m), 0);
    driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
    driver.kick(&mut m, RX);
    assert_eq!(flags(&m), 1);
    m.frame(&[1; 60]);
    assert_eq!(flags(&m), 0);
}

#[test]
fn configuration_is_mac_and_link_up_and_cannot_be_written() {
    let (mut m, driver) = started(0);
    m.write_memory(driver.window + 0x2000, &[0xFF; 4]);
    let mut config = [0xAA; 12];
    for (i, chunk) in config.chunks_mut(4).enumerate() {
        m.read_memory(driver.window + 0x2000 + 4 * i as u64, chunk);
    }
    assert_eq!(config[..6], MAC);
    assert_eq!(config[6..], [1, 0, 0, 0, 0, 0]);
}

#[test]
fn broken_chains_need_a_reset_and_interrupt_the_driver() {
    // (descriptor 0, descriptor 1): a loop; a "next" beyond the table; memory outside RAM; lengths that
    // add up to more than 4 GiB.
    let outside = RAM_BYTES as u64;
    let cases = [
        [(BUFFER, 64, NEXT, 1), (BUFFER, 64, NEXT, 0)],
        [(BUFFER, 64, NEXT, 8), (0, 0, 0, 0)],
        [(outside - 8, 64, 0, 0), (0, 0, 0, 0)],
        [(u64::MAX - 3, 64, 0, 0), (0, 0, 0, 0)],
        [(BUFFER, 0xFFFF_FFFF, NEXT, 1), (BUFFER, 0xFFFF_FFFF, 0, 0)],
    ];
    for (case, [first, second]) in cases.into_iter().enumerate() {
        let (mut m, mut driver) = started(0);
        driver.write_descriptor(&m, TX, 0, first);
        driver.write_descriptor(&m, TX, 1, second);
        driver.make_available(&m, TX, 0);
        driver.kick(&mut m, TX);
        assert_eq!(driver.status(&mut m), RUNNING | NEEDS_RESET, "case {case}");
        assert_eq!(driver.isr(&mut m), 2, "case {case}");
        assert!(m.boundary.frames.is_empty(), "case {case}");
        // The device accesses no queue until the reset, and works after it.
        driver.kick(&mut m, TX);
        m.frame(&[1; 60]);
        assert_eq!(driver.isr(&mut m), 0, "case {case}");
        m.write_ram(avail(TX), &[0; 4]);
        let mut driver = Driver::start(&mut m, NET_DEVICE, VERSION_1, 2, 8);
        driver.add(&m, TX, &[(BUFFER, 100, 0)]);
        driver.kick(&mut m, TX);
        assert_eq!(m.boundary.frames.len(), 1, "case {case}");
    }
}

#[test]
fn chain_with_more_parts_than_the_queue_has_entries_is_broken() {
    // Only an indirect table can be that long, and it was not negotiated.
    const INDIRECT: u16 = 4;
    for (parts, status) in [(8u16, RUNNING), (9, RUNNING | NEEDS_RESET)] {
        let (mut m, mut driver) = started(0);
        for i in 0..parts {
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&BUFFER.to_le_bytes());
            raw[8] = 16;
            raw[12] = u8::from(i + 1 < parts);
            raw[14] = (i + 1) as u8;
            m.write_ram(BUFFER + 0x1000 + 16 * u64::from(i), &raw);
        }
        let table = (BUFFER + 0x1000, 16 * u32::from(parts), INDIRECT, 0);
        driver.write_descriptor(&m, TX, 0, table);
        driver.make_available(&m, TX, 0);
        driver.kick(&mut m, TX);
        assert_eq!(driver.status(&mut m), status, "{parts} parts");
    }
}

#[test]
fn ring_indices_out_of_range_need_a_reset() {
    let (mut m, driver) = started(0);
    // More entries than the ring has.
    m.write_ram(avail(TX) + 2, &9u16.to_le_bytes());
    driver.kick(&mut m, TX);
    assert_eq!(driver.status(&mut m), RUNNING | NEEDS_RESET);
    assert_eq!(m.devices.counters().net.transport.broken_rings, 1);
    // A head beyond the table, which a received frame uses.
    let (mut m, mut driver) = started(0);
    driver.make_available(&m, RX, 8);
    m.frame(&[1; 60]);
    assert_eq!(driver.status(&mut m), RUNNING | NEEDS_RESET);
    assert!(!m.devices.capacity(&m.ram).frame);
}

#[test]
fn used_ring_over_the_available_ring_terminates() {
    let mut m = TestMachine::new();
    let mut driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    driver.set_up_queue(&mut m, RX);
    m.write_memory(driver.window + 0x16, &TX.to_le_bytes());
    m.write_memory(driver.window + 0x18, &8u16.to_le_bytes());
    m.write_memory(driver.window + 0x20, &0x1_0000u64.to_le_bytes());
    m.write_memory(driver.window + 0x28, &avail(TX).to_le_bytes());
    m.write_memory(driver.window + 0x30, &avail(TX).to_le_bytes());
    m.write_memory(driver.window + 0x1C, &1u16.to_le_bytes());
    driver.set_status(&mut m, RUNNING);
    driver.add(&m, TX, &[(BUFFER, 100, 0)]);
    driver.kick(&mut m, TX);
    assert!(m.boundary.frames.len() <= 8);
}

#[test]
fn restored_device_continues_from_the_saved_state() {
    let (mut m, mut driver) = started(EVENT_IDX);
    for _ in 0..3 {
        driver.add(&m, RX, &[(BUFFER, 2048, WRITE)]);
        driver.add(&m, TX, &[(BUFFER + 0x1000, 100, 0)]);
    }
    driver.kick(&mut m, TX);
    m.frame(&[1; 60]);
    let saved = m.devices.save();
    let bytes = postcard::to_allocvec(&saved).unwrap();
    m.devices = Devices::restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(m.devices.save(), saved);
    assert_eq!(driver.take_used(&m, RX).len(), 1);
    m.frame(&[2; 60]);
    driver.add(&m, TX, &[(BUFFER + 0x1000, 100, 0)]);
    driver.kick(&mut m, TX);
    assert_eq!(driver.take_used(&m, RX).len(), 1);
    assert_eq!(driver.take_used(&m, TX).len(), 4);
    assert_eq!(m.boundary.frames.len(), 4);
    assert_eq!(driver.isr(&mut m), 1);
    let mut mac = [0; 4];
    m.read_memory(driver.window + 0x2000, &mut mac);
    assert_eq!(mac, MAC[..4]);
}
