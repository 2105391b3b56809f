use super::*;
use crate::devices::test_machine::TestMachine;
use crate::devices::virtio::test_driver::NET_DEVICE;

#[test]
fn absent_functions_and_disabled_cycles_read_as_ones() {
    let mut m = TestMachine::new();
    assert_eq!(m.config_read(7, 0), 0xFFFF_FFFF);
    for address in [1 << 31 | 1 << 16, 1 << 31 | 1 << 11 | 1 << 8, 1 << 11] {
        m.out32(0xCF8, address);
        m.out32(0xCFC, 0);
        assert_eq!(m.in32(0xCFC), 0xFFFF_FFFF, "{address:#x}");
    }
    assert_eq!(m.devices.counters().bus.config_aborts, 7);
}

#[test]
fn address_port_reads_back_without_its_reserved_bits() {
    let mut m = TestMachine::new();
    m.out32(0xCF8, 0xFFFF_FFFF);
    assert_eq!(m.in32(0xCF8), 0x80FF_FFFC);
    // Linux's check for mechanism #1.
    m.out8(0xCFB, 1);
    m.out32(0xCF8, 0x8000_0000);
    assert_eq!(m.in32(0xCF8), 0x8000_0000);
}

#[test]
fn narrow_accesses_reach_their_bytes() {
    let mut m = TestMachine::new();
    m.config_read(NET_DEVICE, 0);
    let mut half = [0; 2];
    m.read_port(0xCFE, &mut half);
    assert_eq!(u16::from_le_bytes(half), 0x1041);
    assert_eq!(m.in8(0xCFD), 0x1A);
    m.config_read(NET_DEVICE, 0x3C);
    m.out8(0xCFC, 9);
    m.out8(0xCFD, 0xFF);
    assert_eq!(m.config_read(NET_DEVICE, 0x3C), 0x0109, "line is kept, pin is fixed");
    // An access across the end of the data port reaches no register.
    let mut wide = [0; 4];
    m.read_port(0xCFD, &mut wide);
    assert_eq!(wide, [0xFF; 4]);
}

#[test]
fn configuration_ports_are_claimed_by_access_width() {
    assert_eq!(ConfigPort::decode(0xCF8, 4), Some(()));
    assert_eq!(ConfigPort::decode(0xCF8, 1), None);
    assert_eq!(ConfigPort::data_lane(0xCFE), Some(2));
    assert_eq!(ConfigPort::data_lane(0xD00), None);
}
