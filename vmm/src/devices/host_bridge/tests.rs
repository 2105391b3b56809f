use super::*;
use crate::devices::pci::FunctionState;
use crate::devices::test_machine::{CONFIG, TestMachine};

#[test]
fn identity_and_class() {
    let mut m = TestMachine::new();
    assert_eq!(m.config_read(0, 0), 0x1237_8086);
    assert_eq!(m.config_read(0, 8) >> 16, 0x0600);
}

#[test]
fn impossible_state_is_refused() {
    let good = HostBridge::power_on(&CONFIG).save();
    let with_window = FunctionState { window: 0x4000, ..good.clone() };
    assert!(HostBridge::restore(with_window).is_err());
    let with_command = FunctionState { command: 1, ..good };
    assert!(HostBridge::restore(with_command).is_err());
}
