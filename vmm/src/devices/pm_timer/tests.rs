use super::*;
use crate::devices::test_machine::TestMachine;

#[test]
fn counter_after_one_second_is_its_rate() {
    assert_eq!(read(1_000_000_000), 3_579_545);
}

#[test]
fn counter_wraps_after_24_bits() {
    // 2^24 ticks take 4.6869988 s.
    let wrap_ns = crate::devices::ticks::ns_of_tick(1 << 24, HZ);
    assert_eq!(read(wrap_ns - 1), MASK);
    assert_eq!(read(wrap_ns), 0);
}

#[test]
fn timer_reads_in_parts() {
    let mut m = TestMachine::new();
    m.boundary.now_ns = 1_000_000_000;
    let whole = m.in32(0x608);
    assert_eq!(whole, 3_579_545);
    let mut high = [0; 2];
    m.read_port(0x60A, &mut high);
    assert_eq!(u32::from(u16::from_le_bytes(high)), whole >> 16);
    // Bytes beyond the register.
    let mut across = [0; 4];
    m.read_port(0x60A, &mut across);
    assert_eq!(across, [high[0], high[1], 0xFF, 0xFF]);
}

#[test]
fn timer_cannot_be_written() {
    let mut m = TestMachine::new();
    m.out32(0x608, 0);
    assert_eq!(m.devices.counters().bus.port_writes, 4);
}
