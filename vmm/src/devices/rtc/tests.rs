use super::*;
use crate::devices::test_machine::TestMachine;

/// 2026-11-23T17:08:09Z, a Monday.
const MOMENT_NS: u64 = 1_795_453_689_500_000_000;

fn register(m: &mut TestMachine, index: u8) -> u8 {
    m.out8(0x70, index);
    m.in8(0x71)
}

fn set_register(m: &mut TestMachine, index: u8, value: u8) {
    m.out8(0x70, index);
    m.out8(0x71, value);
}

fn at(wall_ns: u64) -> TestMachine {
    let mut m = TestMachine::new();
    m.boundary.wall_ns = wall_ns;
    m
}

#[test]
fn time_is_bcd_and_24_hours_after_power_on() {
    let mut m = at(MOMENT_NS);
    let time = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];
    let read = time.map(|index| register(&mut m, index));
    assert_eq!(read, [0x09, 0x08, 0x17, 0x02, 0x23, 0x11, 0x26, 0x20]);
}

#[test]
fn status_b_switches_to_binary_and_12_hours() {
    let mut m = at(MOMENT_NS);
    set_register(&mut m, STATUS_B, B_24_HOURS | B_BINARY);
    assert_eq!(register(&mut m, HOURS), 17);
    set_register(&mut m, STATUS_B, B_BINARY);
    assert_eq!(register(&mut m, HOURS), 5 | PM);
    set_register(&mut m, STATUS_B, 0);
    for (hour, expected) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (23, 0x91)] {
        m.boundary.wall_ns = hour * 3_600_000_000_000;
        register(&mut m, SECONDS);
        assert_eq!(register(&mut m, HOURS), expected, "hour {hour}");
    }
}

#[test]
fn one_reading_serves_all_registers_until_the_seconds_are_read_again() {
    // One nanosecond before midnight of a new year.
    let mut m = at(1_798_761_600_000_000_000 - 1);
    assert_eq!(register(&mut m, STATUS_A) & A_UPDATE, 0);
    m.boundary.wall_ns += 1;
    let read = [MINUTES, HOURS, DAY, MONTH, YEAR].map(|index| register(&mut m, index));
    assert_eq!(read, [0x59, 0x23, 0x31, 0x12, 0x26]);
    assert_eq!(m.boundary.wall_readings, 1);
    assert_eq!(register(&mut m, SECONDS), 0);
    assert_eq!(register(&mut m, YEAR), 0x27);
    assert_eq!(m.boundary.wall_readings, 2);
    // A read of status A latches the clock as well.
    m.boundary.wall_ns += 60_000_000_000;
    register(&mut m, STATUS_A);
    assert_eq!(register(&mut m, MINUTES), 0x01);
}

#[test]
fn first_and_last_moment_of_the_wall_clock_are_dates() {
    let time = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];
    for (wall_ns, expected) in [
        (0, [0x00, 0x00, 0x00, 0x05, 0x01, 0x01, 0x70, 0x19]),
        (u64::MAX, [0x33, 0x34, 0x23, 0x01, 0x21, 0x07, 0x54, 0x25]),
    ] {
        let mut m = at(wall_ns);
        assert_eq!(time.map(|index| register(&mut m, index)), expected);
    }
}

#[test]
fn first_read_of_any_time_register_latches_and_memory_never_does() {
    let mut m = at(MOMENT_NS);
    register(&mut m, 0x40);
    register(&mut m, STATUS_B);
    assert_eq!(m.boundary.wall_readings, 0);
    assert_eq!(register(&mut m, DAY), 0x23);
    assert_eq!(m.boundary.wall_readings, 1);
}

#[test]
fn time_cannot_be_set_but_memory_can() {
    let mut m = at(MOMENT_NS);
    for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
        set_register(&mut m, index, 0x01);
    }
    assert_eq!(register(&mut m, HOURS), 0x17);
    set_register(&mut m, 0x7F, 0xA5);
    // The top bit of the index is the NMI mask.
    assert_eq!(register(&mut m, 0xFF), 0xA5);
    set_register(&mut m, STATUS_A, 0xFF);
    assert_eq!(register(&mut m, STATUS_A), 0x7F, "update in progress stays clear");
    set_register(&mut m, STATUS_C, 0xFF);
    set_register(&mut m, STATUS_D, 0);
    assert_eq!((register(&mut m, STATUS_C), register(&mut m, STATUS_D)), (0, D_VALID));
}

#[test]
fn restored_clock_answers_from_the_same_reading() {
    let mut m = at(MOMENT_NS);
    register(&mut m, SECONDS);
    m.out8(0x70, MONTH);
    let saved = m.devices.save().rtc;
    let restored = Rtc::restore(saved.clone()).unwrap();
    assert_eq!(restored.save(), saved);
    assert!(!restored.read_needs_wall_clock());
    assert_eq!(restored.read(), 0x11);
}

#[test]
fn impossible_state_is_refused() {
    let mut state = Rtc::new().save();
    state.index = 128;
    assert!(Rtc::restore(state).is_err());
    let mut state = Rtc::new().save();
    state.memory.pop();
    assert!(Rtc::restore(state).is_err());
}
