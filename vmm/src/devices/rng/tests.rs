use super::*;
use crate::devices::test_machine::TestMachine;
use crate::devices::virtio::test_driver::{
    Driver, EVENT_IDX, NEEDS_RESET, NEXT, RNG_DEVICE, RUNNING, VERSION_1, WRITE,
};

const BUFFER: u64 = 0x8_0000;

fn started() -> (TestMachine, Driver) {
    let mut m = TestMachine::new();
    m.init_pics();
    let driver = Driver::start(&mut m, RNG_DEVICE, VERSION_1 | EVENT_IDX, 1, QUEUE_SIZE);
    (m, driver)
}

#[test]
fn request_is_filled_and_interrupts_through_the_slave() {
    let (mut m, mut driver) = started();
    let head = driver.add(&m, 0, &[(BUFFER, 5, WRITE), (BUFFER + 0x100, 3, WRITE)]);
    driver.kick(&mut m, 0);
    assert_eq!(driver.take_used(&m, 0), [(u32::from(head), 8)]);
    assert_eq!(m.read_ram::<5>(BUFFER), [1, 2, 3, 4, 5]);
    assert_eq!(m.read_ram::<4>(BUFFER + 0x100), [6, 7, 8, 0]);
    assert_eq!(m.boundary.entropy, [8]);
    assert_eq!(m.devices.acknowledge_interrupt(), Some(0x38 + 3));
    assert_eq!(driver.isr(&mut m), 1);
    m.out8(0xA0, 0x20);
    m.out8(0x20, 0x20);
    assert!(!m.devices.interrupt_pending(), "reading ISR dropped the line");
}

#[test]
fn kick_reads_no_more_entropy_than_its_bound() {
    let (mut m, mut driver) = started();
    for _ in 0..QUEUE_SIZE {
        driver.add(&m, 0, &[(BUFFER, 0x1_0000, WRITE)]);
    }
    driver.kick(&mut m, 0);
    let used = driver.take_used(&m, 0);
    assert_eq!(used.len(), usize::from(QUEUE_SIZE));
    assert!(used.iter().all(|(_, bytes)| *bytes == REQUEST_BYTES_MAX as u32));
    assert!(m.boundary.entropy.iter().sum::<usize>() <= KICK_BYTES_MAX);
}

/// The boundary gives less than there is room for: the driver is told how much.
#[test]
fn request_over_the_limit_is_filled_in_part() {
    let (mut m, mut driver) = started();
    m.boundary.entropy_limit = Some(1);
    let head = driver.add(&m, 0, &[(BUFFER, 5, WRITE)]);
    driver.kick(&mut m, 0);
    assert_eq!(driver.take_used(&m, 0), [(u32::from(head), 1)]);
    assert_eq!(m.read_ram::<2>(BUFFER), [1, 0]);
    assert_eq!(m.boundary.entropy, [1]);
}

#[test]
fn request_without_writable_bytes_reads_no_entropy() {
    let (mut m, mut driver) = started();
    driver.add(&m, 0, &[(BUFFER, 64, 0)]);
    driver.kick(&mut m, 0);
    assert!(m.boundary.entropy.is_empty());
    assert_eq!(driver.take_used(&m, 0), [(0, 0)]);
}

#[test]
fn broken_chain_reads_no_entropy_and_needs_a_reset() {
    let (mut m, mut driver) = started();
    driver.write_descriptor(&m, 0, 0, (BUFFER, 64, WRITE | NEXT, 0));
    driver.make_available(&m, 0, 0);
    driver.kick(&mut m, 0);
    assert!(m.boundary.entropy.is_empty());
    assert_eq!(driver.status(&mut m), RUNNING | NEEDS_RESET);
}

#[test]
fn boundary_error_fails_the_exit() {
    let (mut m, mut driver) = started();
    driver.add(&m, 0, &[(BUFFER, 64, WRITE)]);
    m.boundary.entropy_fails = true;
    assert!(m.try_write_memory(driver.window + 0x3000, &[0, 0]).is_err());
}
