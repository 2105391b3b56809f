use super::*;
use crate::devices::test_machine::TestMachine;

const SECOND: u64 = 1_000_000_000;

fn tick_ns(tick: u64) -> u64 {
    ns_of_tick(tick, HZ)
}

fn program(pit: &mut Pit, counter: u8, mode: u8, count: u16, now_ns: u64) {
    let index = [CounterIndex::Zero, CounterIndex::One, CounterIndex::Two][usize::from(counter)];
    pit.write(PitRegister::Control, counter << 6 | 0x30 | mode << 1, now_ns);
    for byte in count.to_le_bytes() {
        pit.write(PitRegister::Counter(index), byte, now_ns);
    }
}

fn read_count(pit: &mut Pit, index: CounterIndex, now_ns: u64) -> u16 {
    let low = pit.read(PitRegister::Counter(index), now_ns);
    u16::from_le_bytes([low, pit.read(PitRegister::Counter(index), now_ns)])
}

#[test]
fn nothing_runs_after_power_on() {
    let mut pit = Pit::new();
    assert_eq!(pit.next_timer_ns(), None);
    assert_eq!(pit.advance(u64::MAX), Signal::Keep);
}

#[test]
fn rate_generator_does_not_drift_in_a_day() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 11_932, 0);
    let mut edges = 0;
    while let Some(due) = pit.next_timer_ns().filter(|due| *due <= 86_400 * SECOND) {
        assert_eq!(pit.advance(due - 1), Signal::Keep);
        assert_eq!(pit.advance(due), Signal::Edge);
        edges += 1;
        assert_eq!(due, tick_ns(1 + edges * 11_932));
    }
    assert_eq!(edges, (86_400 * HZ - 1) / 11_932);
    assert_eq!(pit.counters(), PitCounters { edges, coalesced: 0 });
}

#[test]
fn missed_edges_coalesce_into_one_and_keep_the_phase() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1000, 0);
    assert_eq!(pit.advance(tick_ns(5_500)), Signal::Edge);
    assert_eq!(pit.advance(tick_ns(5_501)), Signal::Keep);
    assert_eq!(pit.counters(), PitCounters { edges: 1, coalesced: 4 });
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(6_001)));
}

#[test]
fn terminal_count_edge_comes_once_one_tick_after_the_count() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 100, tick_ns(50));
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(151)));
    assert_eq!(pit.advance(tick_ns(10_000)), Signal::Edge);
    assert_eq!(pit.next_timer_ns(), None);
    assert_eq!(pit.counters().coalesced, 0);
    // A new count restarts the counter without a control word.
    pit.write(PitRegister::Counter(CounterIndex::Zero), 10, tick_ns(10_000));
    assert_eq!(pit.next_timer_ns(), None, "half a count does not start the counter");
    pit.write(PitRegister::Counter(CounterIndex::Zero), 0, tick_ns(10_000));
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(10_011)));
    pit.write(PitRegister::Counter(CounterIndex::Zero), 20, tick_ns(10_000));
    assert_eq!(pit.next_timer_ns(), None, "the first byte of a new count stops the old one");
}

#[test]
fn control_word_stops_the_counter() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1000, 0);
    pit.write(PitRegister::Control, 0x30, 0);
    assert_eq!(pit.next_timer_ns(), None);
    assert_eq!(pit.advance(SECOND), Signal::Keep);
}

#[test]
fn count_of_zero_is_65536_and_strobe_and_one_shot_edges_are_as_documented() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 3, 0, 0);
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(65_537)));
    program(&mut pit, 0, 4, 10, 0);
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(12)));
    for waits_for_gate in [1, 5] {
        program(&mut pit, 0, waits_for_gate, 10, 0);
        assert_eq!(pit.next_timer_ns(), None);
    }
}

#[test]
fn counts_go_down_in_every_mode() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1000, 0);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(1)), 1000);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(301)), 700);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(1000)), 1);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(1001)), 1000);
    program(&mut pit, 0, 3, 1000, 0);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(301)), 400);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(601)), 800);
    program(&mut pit, 0, 0, 1000, 0);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(1001)), 0);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(1002)), 0xFFFF);
}

#[test]
fn bcd_counts_in_decimal_digits() {
    let mut pit = Pit::new();
    pit.write(PitRegister::Control, 0x30 | 1, 0);
    for byte in 0x1234u16.to_le_bytes() {
        pit.write(PitRegister::Counter(CounterIndex::Zero), byte, 0);
    }
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(1235)));
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(6)), 0x1229);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(1236)), 0x9999);
}

#[test]
fn single_byte_access_modes_move_one_byte() {
    let mut pit = Pit::new();
    let zero = PitRegister::Counter(CounterIndex::Zero);
    pit.write(PitRegister::Control, 0x14, 0);
    pit.write(zero, 200, 0);
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(201)));
    assert_eq!(pit.read(zero, tick_ns(101)), 100);
    pit.write(PitRegister::Control, 0x24, 0);
    pit.write(zero, 2, 0);
    assert_eq!(pit.next_timer_ns(), Some(tick_ns(513)));
    assert_eq!(pit.read(zero, tick_ns(2)), 1);
}

#[test]
fn latched_count_stands_still_until_both_bytes_are_read() {
    let mut pit = Pit::new();
    let zero = PitRegister::Counter(CounterIndex::Zero);
    program(&mut pit, 0, 2, 1000, 0);
    pit.write(PitRegister::Control, 0x00, tick_ns(101));
    pit.write(PitRegister::Control, 0x00, tick_ns(201));
    assert!(!pit.read_needs_time(zero));
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(301)), 900);
    assert!(pit.read_needs_time(zero));
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(401)), 600);
}

#[test]
fn read_back_latches_status_before_count_of_each_counter_named() {
    let mut pit = Pit::new();
    let zero = PitRegister::Counter(CounterIndex::Zero);
    program(&mut pit, 0, 2, 1000, 0);
    pit.write(PitRegister::Control, 0xC2 | 8, tick_ns(101));
    // OUT high, loaded, both bytes, mode 2, binary.
    assert_eq!(pit.read(zero, tick_ns(500)), 0xB4);
    assert_eq!(read_count(&mut pit, CounterIndex::Zero, tick_ns(500)), 900);
    // Counter 2 has a mode and no count: null count; mode 0 keeps OUT low.
    pit.write(PitRegister::Control, 0xB0, tick_ns(500));
    pit.write(PitRegister::Control, 0xE8, tick_ns(500));
    assert_eq!(pit.read(PitRegister::Counter(CounterIndex::Two), tick_ns(500)), 0x70);
}

#[test]
fn odd_square_wave_is_high_for_the_longer_half() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 3, 5, 0);
    let high: Vec<bool> = (1..11).map(|t| pit.state.channels[0].output(t)).collect();
    let period = [true, true, true, false, false];
    assert_eq!(high, [period, period].concat());
}

#[test]
fn gate_of_counter_2_stops_it_and_port_61_shows_out_2() {
    let mut pit = Pit::new();
    let port = PitRegister::Port61;
    program(&mut pit, 2, 0, 100, 0);
    assert_eq!(pit.read(port, tick_ns(1000)) & 0x2F, 0, "gate low: the counter is stopped");
    pit.write(port, 1, tick_ns(1000));
    assert_eq!(pit.read(port, tick_ns(1040)) & 0x2F, 1);
    pit.write(port, 0, tick_ns(1040));
    assert_eq!(read_count(&mut pit, CounterIndex::Two, tick_ns(2000)), 60);
    pit.write(port, 1, tick_ns(2000));
    assert_eq!(pit.read(port, tick_ns(2059)) & 0x20, 0);
    assert_eq!(pit.read(port, tick_ns(2060)) & 0x20, 0x20);
    // One-shot: a rising gate starts it, and starts it again.
    pit.write(port, 0, tick_ns(3000));
    program(&mut pit, 2, 1, 100, tick_ns(3000));
    assert_eq!(pit.read(port, tick_ns(3050)) & 0x20, 0x20);
    pit.write(port, 1, tick_ns(3050));
    assert_eq!(pit.read(port, tick_ns(3150)) & 0x20, 0);
    assert_eq!(pit.read(port, tick_ns(3151)) & 0x20, 0x20);
}

#[test]
fn linux_calibration_measures_50_ms() {
    // pit_calibrate_tsc: gate on, mode 0, wait for OUT 2 in port 0x61.
    let mut m = TestMachine::new();
    m.boundary.step_ns = 1000;
    let port61 = m.in8(0x61);
    m.out8(0x61, port61 & !2 | 1);
    m.out8(0x43, 0xB0);
    m.out8(0x42, (59_659 & 0xFF) as u8);
    m.out8(0x42, (59_659 >> 8) as u8);
    let start = m.boundary.now_ns;
    while m.in8(0x61) & 0x20 == 0 {}
    let waited = m.boundary.now_ns - start;
    assert!((50_000_000..50_003_000).contains(&waited), "{waited}");
}

#[test]
fn refresh_bit_toggles_with_guest_time() {
    let mut pit = Pit::new();
    let seen: Vec<u8> =
        (0..4).map(|i| pit.read(PitRegister::Port61, tick_ns(18 * i)) & 0x10).collect();
    assert_eq!(seen, [0, 0x10, 0, 0x10]);
}

#[test]
fn restored_timer_continues_from_the_saved_state() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1000, 0);
    program(&mut pit, 2, 0, 50, tick_ns(10));
    pit.write(PitRegister::Control, 0x00, tick_ns(101));
    pit.read(PitRegister::Counter(CounterIndex::Zero), tick_ns(101));
    pit.write(PitRegister::Counter(CounterIndex::Two), 7, tick_ns(120));
    let saved = pit.save();
    let mut restored = Pit::restore(saved.clone()).unwrap();
    assert_eq!(restored.save(), saved);
    for pit in [&mut pit, &mut restored] {
        pit.write(PitRegister::Counter(CounterIndex::Two), 7, tick_ns(120));
        pit.read(PitRegister::Counter(CounterIndex::Zero), tick_ns(130));
        pit.advance(tick_ns(1234));
    }
    assert_eq!(restored.save(), pit.save());
    assert_eq!(restored.next_timer_ns(), pit.next_timer_ns());
}

#[test]
fn impossible_state_is_refused() {
    for count in [0, 65_537] {
        let mut state = Pit::new().save();
        state.channels[1].count = count;
        assert!(Pit::restore(state).is_err());
    }
}
