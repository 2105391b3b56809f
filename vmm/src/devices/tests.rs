use super::test_machine::{TestMachine, claimants};
use super::virtio::test_driver::{Driver, EVENT_IDX, NET_DEVICE, RNG_DEVICE, VERSION_1, WRITE};
use super::*;

#[test]
fn access_reads_the_clock_once_and_the_timer_fires_before_it() {
    let mut m = TestMachine::new();
    m.init_pics();
    m.out8(0x43, 0x34);
    m.out8(0x40, 100);
    m.out8(0x40, 0);
    let readings = m.boundary.clock_readings;
    m.boundary.now_ns = 1_000_000;
    // Two counters in one access.
    m.read_port(0x40, &mut [0; 2]);
    assert_eq!(m.boundary.clock_readings, readings + 1);
    assert!(m.devices.interrupt_pending());
    assert_eq!(m.devices.now_ns(), 1_000_000);
    assert_eq!(m.devices.acknowledge_interrupt(), Some(0x30));
}

#[test]
fn time_never_goes_back() {
    let mut m = TestMachine::new();
    m.clock(500);
    m.clock(400);
    assert_eq!(m.devices.now_ns(), 500);
    assert_eq!(m.in32(0xE8), 500);
}

#[test]
fn capacity_reports_the_next_timer() {
    let mut m = TestMachine::new();
    assert_eq!(m.devices.capacity(&m.ram).timer_ns, None);
    m.out8(0x43, 0x34);
    m.out8(0x40, 0);
    m.out8(0x40, 0);
    let due = m.devices.capacity(&m.ram).timer_ns.unwrap();
    m.init_pics();
    m.clock(due - 1);
    assert!(!m.devices.interrupt_pending());
    m.clock(due);
    assert!(m.devices.interrupt_pending());
}

#[test]
fn unclaimed_reads_are_ones_and_are_counted() {
    let mut m = TestMachine::new();
    assert_eq!(m.in32(0x1F0), 0xFFFF_FFFF);
    m.out32(0x1F0, 1);
    let mut data = [0; 8];
    m.read_memory(0xFEE0_0000, &mut data);
    assert_eq!(data, [0xFF; 8]);
    m.write_memory(0xFEE0_0000, &data);
    let expected = BusCounters {
        port_reads: 4,
        port_writes: 4,
        memory_reads: 1,
        memory_writes: 1,
        config_aborts: 0,
    };
    assert_eq!(m.devices.counters().bus, expected);
}

#[test]
fn wide_access_to_byte_ports_is_split_upwards() {
    let mut m = TestMachine::new();
    m.init_pics();
    // One OUT to 0x20 writes OCW3 there and the mask at 0x21.
    m.write_port(0x20, &[0x0B, 0xFB]);
    assert_eq!(m.in8(0x21), 0xFB);
    // Index and data of the RTC in one access.
    m.write_port(0x70, &[0x50, 0x77]);
    assert_eq!(m.in8(0x71), 0x77);
    // At the end of the port space it wraps.
    m.read_port(0xFFFF, &mut [0; 4]);
}

#[test]
fn no_two_devices_claim_one_access() {
    let mut claimed = 0;
    for port in 0..=u16::MAX {
        for bytes in 1..=4 {
            let claimants = claimants(port, bytes);
            assert!(claimants.len() <= 1, "{port:#x}, {bytes} bytes: {claimants:?}");
            claimed += claimants.len();
        }
    }
    assert!(claimed > 0);
}

#[test]
fn neighbours_of_every_port_block_are_unclaimed() {
    for port in [0x1F, 0x22, 0x3F, 0x44, 0x62, 0x63, 0x72, 0x9F, 0xA2, 0x3F7, 0x400, 0x60C] {
        assert!(claimants(port, 1).is_empty(), "{port:#x}");
    }
}

#[test]
fn first_function_wins_where_windows_overlap() {
    let mut m = TestMachine::new();
    let queues = |m: &mut TestMachine| {
        let mut data = [0; 2];
        m.read_memory(0xFEB0_0012, &mut data);
        u16::from_le_bytes(data)
    };
    for device in [NET_DEVICE, RNG_DEVICE] {
        m.config_write(device, 0x10, 0xFEB0_0000);
    }
    assert_eq!(queues(&mut m), 0xFFFF);
    m.config_write(RNG_DEVICE, 4, 2);
    assert_eq!(queues(&mut m), 1);
    m.config_write(NET_DEVICE, 4, 2);
    assert_eq!(queues(&mut m), 2);
}

#[test]
fn fresh_state_survives_a_round_trip() {
    let saved = TestMachine::new().devices.save();
    let bytes = postcard::to_allocvec(&saved).unwrap();
    let back: DevicesState = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back, saved);
    assert_eq!(Devices::restore(back).unwrap().save(), saved);
}

/// Returns devices of which every part has a state of its own.
fn busy_machine() -> TestMachine {
    let mut m = TestMachine::new();
    m.init_pics();
    m.boundary.now_ns = 0x5_0000_0007;
    m.boundary.wall_ns = 1_795_453_689_500_000_000;
    for (port, value) in [
        (0x21, 0x40),
        (0x4D0, 0x28),
        (0x43, 0x34),
        (0x40, 100),
        (0x40, 1),
        (0x43, 0x00),
        (0x61, 1),
        (0x3FB, 3),
        (0x3F9, 1),
        (0x70, 0x40),
        (0x71, 0x77),
        (0xCF9, 2),
    ] {
        m.out8(port, value);
    }
    m.devices.apply(Input::Console(b"hi"), &m.ram);
    m.out8(0x70, 0);
    m.in8(0x71);
    m.in32(0xE8);
    let mut net = Driver::start(&mut m, NET_DEVICE, VERSION_1 | EVENT_IDX, 2, 8);
    net.add(&m, 0, &[(0x8_0000, 2048, WRITE)]);
    m.frame(&[7; 60]);
    let mut rng = Driver::start(&mut m, RNG_DEVICE, VERSION_1, 1, 4);
    rng.add(&m, 0, &[(0x8_1000, 64, WRITE)]);
    rng.kick(&mut m, 0);
    m.config_write(0, 4, 0x2);
    m.devices.set_irq_windows(false);
    m
}

#[test]
fn encoded_state_equals_its_fixture() {
    let encoded: String = [TestMachine::new(), busy_machine()]
        .iter()
        .map(|m| postcard::to_allocvec(&m.devices.save()).unwrap())
        .map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    assert_eq!(
        encoded,
        include_str!("../../fixtures/devices_state.hex"),
        "a change of the encoding needs a new MACHINE_SCHEMA and this fixture"
    );
}
