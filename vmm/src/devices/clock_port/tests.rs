use super::*;
use crate::devices::test_machine::{CONFIG, TestMachine};

#[test]
fn high_half_is_latched_by_the_last_low_read() {
    let mut port = ClockPort::power_on(&CONFIG);
    let before_carry = 0x1_FFFF_FFFF;
    assert_eq!(port.read_low(before_carry), 0xFFFF_FFFF);
    assert_eq!(port.read_high(), 1);
    let restored = ClockPort::restore(port.save()).unwrap();
    assert_eq!(restored.read_high(), 1);
    assert_eq!(port.read_low(before_carry + 1), 0);
    assert_eq!(port.read_high(), 2);
}

#[test]
fn clock_ports_return_one_reading_in_two_halves() {
    let mut m = TestMachine::new();
    m.boundary.now_ns = 0x5_0000_0007;
    assert_eq!(m.in32(0xE8), 7);
    m.boundary.now_ns = 0x6_0000_0000;
    assert_eq!(m.in32(0xEC), 5);
    assert_eq!(m.boundary.clock_readings, 1);
}

#[test]
fn clock_ports_are_claimed_at_32_bits_only() {
    assert_eq!(ClockPort::decode(0xE8, 4), Some(ClockHalf::Low));
    assert_eq!(ClockPort::decode(0xE8, 1), None);
    assert_eq!(ClockPort::decode(0xEC, 4), Some(ClockHalf::High));
}
