use super::*;
use crate::devices::Effect;
use crate::devices::test_machine::{CONFIG, TestMachine};

#[test]
fn i8042_pulse_command_resets_once_and_others_do_not() {
    let mut ports = ResetPorts::power_on(&CONFIG);
    assert_eq!(ports.read_i8042(4), 0);
    assert!(!ports.write_i8042(4, 0xAA));
    assert!(!ports.write_i8042(0, 0xFE));
    assert!(ports.write_i8042(4, 0xFE));
    assert!(!ports.write_i8042(4, 0x60));
}

#[test]
fn reset_control_resets_on_the_cpu_bit_only() {
    let mut ports = ResetPorts::power_on(&CONFIG);
    assert!(!ports.write_control(SYSTEM_RESET));
    assert_eq!(ports.read_control(), SYSTEM_RESET);
    assert!(ports.write_control(SYSTEM_RESET | RESET_CPU));
}

#[test]
fn reset_is_reported_from_any_byte_of_an_access() {
    let mut m = TestMachine::new();
    assert_eq!(m.out8(0x64, 0xFE), Effect::Reset);
    assert_eq!(m.write_port(0x63, &[0, 0xFE, 0]), Effect::Reset);
    assert_eq!(m.out8(0xCF9, 6), Effect::Reset);
    assert_eq!(m.out8(0xCF9, 2), Effect::None);
}

#[test]
fn reset_control_is_claimed_at_one_byte_only() {
    assert_eq!(ResetPorts::decode(0xCF9, 1), Some(ResetRegister::Control));
    assert_eq!(ResetPorts::decode(0xCF9, 2), None);
}
