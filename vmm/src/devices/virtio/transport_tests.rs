use crate::devices::test_machine::TestMachine;
use crate::devices::virtio::test_driver::{
    Driver, EVENT_IDX, NEEDS_RESET, NET_DEVICE, RNG_DEVICE, RUNNING, VERSION_1,
};

fn field16(m: &mut TestMachine, driver: &Driver, offset: u64) -> u16 {
    let mut data = [0; 2];
    m.read_memory(driver.window + offset, &mut data);
    u16::from_le_bytes(data)
}

fn field32(m: &mut TestMachine, driver: &Driver, offset: u64) -> u32 {
    let mut data = [0; 4];
    m.read_memory(driver.window + offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn features_read_in_halves_and_zero_above() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    for (select, expected) in [(0u32, EVENT_IDX as u32 | 1 << 5 | 1 << 16), (1, 1), (2, 0)] {
        m.write_memory(driver.window, &select.to_le_bytes());
        assert_eq!(field32(&mut m, &driver, 4), expected);
    }
}

#[test]
fn features_ok_needs_version_1_and_only_offered_bits() {
    let mut m = TestMachine::new();
    for (features, accepted) in [
        (VERSION_1, true),
        (VERSION_1 | EVENT_IDX, true),
        (EVENT_IDX, false),
        (VERSION_1 | 1, false),
        (VERSION_1 | 1 << 34, false),
    ] {
        let driver = Driver::negotiate(&mut m, RNG_DEVICE, features);
        assert_eq!(driver.status(&mut m) & 8 != 0, accepted, "{features:#x}");
        if !accepted {
            driver.set_status(&mut m, RUNNING);
            assert_eq!(driver.status(&mut m) & 4, 0, "DRIVER_OK without FEATURES_OK");
        }
    }
    assert_eq!(m.devices.counters().rng.transport.refused_features, 6);
}

#[test]
fn features_do_not_change_after_features_ok() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    m.write_memory(driver.window + 8, &0u32.to_le_bytes());
    m.write_memory(driver.window + 12, &0xFFFF_FFFFu32.to_le_bytes());
    assert_eq!(field32(&mut m, &driver, 12), 0);
}

#[test]
fn queue_registers_belong_to_the_selected_queue() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    assert_eq!(field16(&mut m, &driver, 0x12), 2);
    driver.set_up_queue(&mut m, 1);
    assert_eq!(field16(&mut m, &driver, 0x18), 8);
    assert_eq!(field16(&mut m, &driver, 0x1C), 1);
    assert_eq!(field16(&mut m, &driver, 0x1E), 1);
    assert_eq!(field32(&mut m, &driver, 0x28), 0x2_4000);
    m.write_memory(driver.window + 0x16, &0u16.to_le_bytes());
    assert_eq!(field16(&mut m, &driver, 0x18), 256);
    assert_eq!(field16(&mut m, &driver, 0x1C), 0);
    // No such queue.
    m.write_memory(driver.window + 0x16, &2u16.to_le_bytes());
    assert_eq!(field16(&mut m, &driver, 0x18), 0);
    m.write_memory(driver.window + 0x18, &8u16.to_le_bytes());
    m.write_memory(driver.window + 0x1C, &1u16.to_le_bytes());
    assert_eq!(driver.status(&mut m), 11);
}

#[test]
fn queue_size_that_is_not_a_power_of_two_or_too_large_is_ignored() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    for size in [0u16, 3, 512, 0xFFFF] {
        m.write_memory(driver.window + 0x18, &size.to_le_bytes());
        assert_eq!(field16(&mut m, &driver, 0x18), 256);
    }
    assert_eq!(m.devices.counters().net.transport.odd_accesses, 4);
}

#[test]
fn enabled_queue_ignores_address_writes() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    driver.set_up_queue(&mut m, 0);
    m.write_memory(driver.window + 0x28, &0x9000u64.to_le_bytes());
    assert_eq!(field32(&mut m, &driver, 0x28), 0x1_4000);
    m.write_memory(driver.window + 0x1C, &0u16.to_le_bytes());
    assert_eq!(field16(&mut m, &driver, 0x1C), 1);
}

#[test]
fn queue_that_is_misaligned_or_outside_ram_needs_a_reset() {
    for (offset, address) in
        [(0x20, 0x1_0008u64), (0x28, 0x1_4001), (0x30, 0x1_8002), (0x20, 1 << 40), (0x30, !0xFFF)]
    {
        let mut m = TestMachine::new();
        let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
        m.write_memory(driver.window + 0x20, &0x1_0000u64.to_le_bytes());
        m.write_memory(driver.window + 0x28, &0x1_4000u64.to_le_bytes());
        m.write_memory(driver.window + 0x30, &0x1_8000u64.to_le_bytes());
        m.write_memory(driver.window + offset, &address.to_le_bytes());
        m.write_memory(driver.window + 0x1C, &1u16.to_le_bytes());
        assert_eq!(driver.status(&mut m), 11 | NEEDS_RESET, "{offset:#x} {address:#x}");
        assert_eq!(driver.isr(&mut m), 0, "no interrupt before DRIVER_OK");
    }
}

#[test]
fn status_zero_resets_everything_but_pci() {
    let mut m = TestMachine::new();
    let driver = Driver::start(&mut m, NET_DEVICE, VERSION_1, 2, 8);
    let fresh = TestMachine::new().devices.save().net.transport;
    driver.set_status(&mut m, 0);
    assert_eq!(driver.status(&mut m), 0);
    let now = m.devices.save().net.transport;
    assert_eq!((now.common, now.isr, now.queues), (fresh.common, fresh.isr, fresh.queues));
    assert_eq!(now.function.command, 6);
}

#[test]
fn status_bits_cannot_be_cleared_by_the_driver() {
    let mut m = TestMachine::new();
    let driver = Driver::start(&mut m, NET_DEVICE, VERSION_1, 2, 8);
    driver.set_status(&mut m, 1);
    assert_eq!(driver.status(&mut m), RUNNING);
    driver.set_status(&mut m, RUNNING | NEEDS_RESET);
    assert_eq!(driver.status(&mut m), RUNNING);
}

#[test]
fn kicks_of_no_queue_or_before_driver_ok_do_nothing() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, NET_DEVICE, VERSION_1);
    driver.kick(&mut m, 0);
    driver.set_status(&mut m, RUNNING);
    driver.kick(&mut m, 2);
    m.write_memory(driver.window + 0x3002, &[0, 0]);
    assert_eq!(m.devices.counters().net.transport.odd_accesses, 3);
    // The queue was never enabled, so a kick finds no ring.
    driver.kick(&mut m, 1);
    assert_eq!(driver.status(&mut m), RUNNING);
}

#[test]
fn reads_of_every_width_see_the_same_registers() {
    let mut m = TestMachine::new();
    let driver = Driver::start(&mut m, NET_DEVICE, VERSION_1, 2, 8);
    let mut whole = [0; 8];
    m.read_memory(driver.window + 0x20, &mut whole);
    for (address, expected) in (driver.window + 0x20..).zip(whole) {
        let mut byte = [0xAA];
        m.read_memory(address, &mut byte);
        assert_eq!(byte, [expected]);
    }
    // Beyond the structure: zeros.
    let mut past = [0xAA; 8];
    m.read_memory(driver.window + 0x34, &mut past);
    assert_eq!(past, [0; 8]);
}
