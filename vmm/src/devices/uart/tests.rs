use super::*;
use crate::devices::test_machine::TestMachine;
use replication::boundary::Input;

const IER: u8 = 1;
const IIR: u8 = 2;
const LSR: u8 = 5;

#[test]
fn written_bytes_reach_the_boundary_in_order() {
    let mut m = TestMachine::new();
    for byte in b"ok\n" {
        m.out8(0x3F8, *byte);
    }
    assert_eq!(m.boundary.console, b"ok\n");
    assert_eq!(m.in8(0x3FD) & 0x60, 0x60, "ready for the next byte");
    assert!(!m.devices.interrupt_pending());
}

#[test]
fn divisor_latch_is_not_output() {
    let mut m = TestMachine::new();
    m.out8(0x3FB, 0x83);
    m.out8(0x3F8, 1);
    assert!(m.boundary.console.is_empty());
    assert_eq!(m.in8(0x3F8), 1);
}

#[test]
fn received_bytes_interrupt_on_irq_4_and_are_read_in_order() {
    let mut m = TestMachine::new();
    m.init_pics();
    m.out8(0x3F9, 1);
    m.devices.apply(Input::Console(b"hi"), &m.ram);
    assert_eq!(m.devices.acknowledge_interrupt(), Some(0x34));
    assert_eq!(m.in8(0x3FA) & 0x0F, 4);
    assert_eq!((m.in8(0x3F8), m.in8(0x3F8)), (b'h', b'i'));
    assert_eq!(m.in8(0x3FD) & 1, 0);
}

#[test]
fn receiver_accepts_what_fits_and_counts_the_rest() {
    let mut uart = Uart::new();
    let room = uart.room();
    assert!(room > 0);
    uart.receive(&vec![b'x'; room + 3]);
    assert_eq!(uart.room(), 0);
    uart.receive(b"y");
    assert_eq!(uart.counters(), UartCounters { sent: 0, received: room as u64, overrun: 4 });
    uart.read(0);
    assert_eq!(uart.room(), 1);
}

#[test]
fn receiver_has_no_capacity_in_loopback() {
    let mut uart = Uart::new();
    uart.write(MODEM_CONTROL, LOOPBACK);
    assert_eq!(uart.room(), 0);
    uart.receive(b"lost");
    assert_eq!(uart.counters().overrun, 4);
    assert_eq!(uart.write(0, b'z').output, None);
    assert_eq!(uart.read(0), b'z');
    uart.write(MODEM_CONTROL, 0);
    assert!(uart.room() > 0);
}

#[test]
fn transmitter_interrupts_when_enabled() {
    let mut uart = Uart::new();
    assert!(uart.write(IER, 2).interrupt, "the transmitter is empty");
    assert_eq!(uart.read(IIR) & 0x0F, 2);
    assert_eq!(uart.write(0, b'a'), UartEffect { interrupt: true, output: Some(b'a') });
}

#[test]
fn restored_uart_continues_without_a_second_edge() {
    let mut uart = Uart::new();
    uart.write(IER, 3);
    uart.write(7, 0x5A);
    uart.write(MODEM_CONTROL, LOOPBACK);
    uart.write(0, b'q');
    let saved = uart.save();
    let mut restored = Uart::restore(saved.clone()).unwrap();
    assert_eq!(restored.save(), saved);
    assert!(!restored.take_interrupt());
    assert_eq!(restored.room(), 0);
    assert_eq!(restored.read(LSR) & 1, 1);
    assert_eq!((restored.read(7), restored.read(0)), (0x5A, b'q'));
}

#[test]
fn impossible_state_is_refused() {
    let mut state = Uart::new().save();
    state.received = vec![0; 65];
    assert!(Uart::restore(state).is_err());
}
