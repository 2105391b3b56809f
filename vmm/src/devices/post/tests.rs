use crate::devices::test_machine::TestMachine;

#[test]
fn port_reads_as_ones_and_its_accesses_are_claimed() {
    let mut m = TestMachine::new();
    m.out8(0x80, 0x12);
    assert_eq!(m.in8(0x80), 0xFF);
    let bus = m.devices.counters().bus;
    assert_eq!((bus.port_reads, bus.port_writes), (0, 0));
}
