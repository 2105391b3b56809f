use super::*;
use crate::devices::FUNCTIONS;
use crate::devices::test_machine::TestMachine;
use crate::devices::virtio::test_driver::{Driver, NET_DEVICE, RNG_DEVICE, VERSION_1, WRITE};
use crate::mem::layout;

#[test]
fn identities_and_classes() {
    let mut m = TestMachine::new();
    assert_eq!(m.config_read(NET_DEVICE, 0), 0x1041_1AF4);
    assert_eq!(m.config_read(NET_DEVICE, 8), 0x0200_0001);
    assert_eq!(m.config_read(NET_DEVICE, 0x3C), 0x0105);
    assert_eq!(m.config_read(RNG_DEVICE, 0), 0x1044_1AF4);
    assert_eq!(m.config_read(RNG_DEVICE, 0x3C), 0x010B);
    // Single function, type 0.
    assert_eq!(m.config_read(NET_DEVICE, 0x0C), 0);
}

#[test]
fn window_reports_its_size_and_can_be_moved() {
    let mut m = TestMachine::new();
    let old = u64::from(m.config_read(NET_DEVICE, 0x10));
    assert_eq!(old, layout::PCI_WINDOW);
    m.config_write(NET_DEVICE, 0x10, 0xFFFF_FFFF);
    assert_eq!(m.config_read(NET_DEVICE, 0x10), 0xFFFF_C000);
    m.config_write(NET_DEVICE, 0x10, 0xFEB1_2345);
    assert_eq!(m.config_read(NET_DEVICE, 0x10), 0xFEB1_0000);
    m.config_write(NET_DEVICE, 4, 2);
    let mut data = [0; 2];
    m.read_memory(0xFEB1_0012, &mut data);
    assert_eq!(data, [2, 0], "number of queues");
    m.read_memory(old + 0x12, &mut data);
    assert_eq!(data, [0xFF; 2]);
    // The other BARs do not exist.
    m.config_write(NET_DEVICE, 0x14, 0xFFFF_FFFF);
    assert_eq!(m.config_read(NET_DEVICE, 0x14), 0);
}

#[test]
fn windows_lie_in_the_layout_and_do_not_overlap() {
    let mut m = TestMachine::new();
    let bytes = u64::from(WINDOW_BYTES);
    let mut windows = Vec::new();
    for identity in FUNCTIONS.iter().filter(|identity| identity.window.is_some()) {
        let slot = u32::from(identity.slot);
        // A machine may lack this disk.
        if m.config_read(slot, 0) != u32::MAX {
            windows.push(u64::from(m.config_read(slot, 0x10)));
        }
    }
    windows.sort_unstable();
    assert!(windows.windows(2).all(|pair| pair[1] - pair[0] >= bytes));
    for window in windows {
        assert!(window >= layout::PCI_WINDOW);
        assert!(window + bytes <= layout::PCI_WINDOW + layout::PCI_WINDOW_BYTES);
    }
}

#[test]
fn window_answers_only_while_memory_is_enabled() {
    let mut m = TestMachine::new();
    let window = u64::from(m.config_read(NET_DEVICE, 0x10));
    let mut data = [0; 2];
    m.read_memory(window + 0x12, &mut data);
    assert_eq!(data, [0xFF; 2]);
    m.config_write(NET_DEVICE, 4, 2);
    m.read_memory(window + 0x12, &mut data);
    assert_eq!(data, [2, 0]);
    m.config_write(NET_DEVICE, 4, 0xFFFF_FFFF);
    assert_eq!(m.config_read(NET_DEVICE, 4), 0x0010_0406);
}

#[test]
fn capability_list_names_each_structure_once() {
    let mut m = TestMachine::new();
    // The entropy device has no configuration of its own.
    for (device, expected) in [(NET_DEVICE, [1, 2, 3, 4].as_slice()), (RNG_DEVICE, &[1, 2, 3])] {
        let mut kinds = Vec::new();
        let mut at = m.config_read(device, 0x34) & 0xFF;
        while at != 0 {
            let head = m.config_read(device, at);
            assert_eq!(head & 0xFF, 9);
            let (offset, bytes) = (m.config_read(device, at + 8), m.config_read(device, at + 12));
            assert_eq!(m.config_read(device, at + 4), 0, "BAR 0");
            assert!(bytes > 0 && offset + bytes <= WINDOW_BYTES);
            kinds.push(head >> 24);
            if head >> 24 == 2 {
                assert_eq!(head >> 16 & 0xFF, 20);
                assert_eq!(m.config_read(device, at + 16), 4, "multiplier");
            }
            at = head >> 8 & 0xFF;
        }
        kinds.sort_unstable();
        assert_eq!(kinds, expected);
    }
}

#[test]
fn interrupt_disable_keeps_the_line_low_but_status_shows_the_interrupt() {
    let mut m = TestMachine::new();
    m.init_pics();
    let mut driver = Driver::start(&mut m, NET_DEVICE, VERSION_1, 2, 8);
    m.config_write(NET_DEVICE, 4, 0x0406);
    driver.add(&m, 0, &[(0x8_0000, 2048, WRITE)]);
    m.frame(&[1; 60]);
    assert!(!m.devices.interrupt_pending());
    assert_eq!(m.config_read(NET_DEVICE, 4) >> 16 & 8, 8);
    m.config_write(NET_DEVICE, 4, 6);
    assert!(m.devices.interrupt_pending());
    assert_eq!(driver.isr(&mut m), 1);
    assert!(!m.devices.interrupt_pending());
    assert_eq!(m.config_read(NET_DEVICE, 4) >> 16 & 8, 0);
}
