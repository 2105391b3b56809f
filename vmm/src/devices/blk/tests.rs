use super::*;
use crate::devices::test_machine::{DISK, RAM_BYTES, TestMachine, TestRequest};
use crate::devices::virtio::test_driver::{
    DISK_DEVICE, Driver, EVENT_IDX, FLUSH, NEEDS_RESET, NEXT, READ_ONLY_DISK_DEVICE, RUNNING,
    VERSION_1, WRITE, avail,
};
use crate::devices::{Devices, DevicesState};

const QUEUE: u16 = 0;
/// Where a test puts a request's header, data and status.
const HEADER: u64 = 0x8_0000;
const DATA: u64 = 0x9_0000;
const STATUS: u64 = 0xA_0000;
/// What the status byte is before the device writes it.
const UNWRITTEN: u8 = 0xEE;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH_TYPE: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn started_on(device: u32, features: u64, size: u16) -> (TestMachine, Driver) {
    let mut m = TestMachine::new();
    m.init_pics();
    let driver = Driver::start(&mut m, device, VERSION_1 | FLUSH | features, 1, size);
    (m, driver)
}

fn started() -> (TestMachine, Driver) {
    started_on(DISK_DEVICE, 0, 8)
}

fn put_header(m: &TestMachine, kind: u32, sector: u64) {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    m.write_ram(HEADER, &header);
    m.write_ram(STATUS, &[UNWRITTEN]);
}

/// Makes a request with the data parts `parts` and kicks.
fn ask(
    m: &mut TestMachine,
    d: &mut Driver,
    kind: u32,
    sector: u64,
    parts: &[(u64, u32, u16)],
) -> u16 {
    put_header(m, kind, sector);
    let chain = [&[(HEADER, 16, 0)], parts, &[(STATUS, 1, WRITE)]].concat();
    let head = d.add(m, QUEUE, &chain);
    d.kick(m, QUEUE);
    head
}

fn status(m: &TestMachine) -> u8 {
    m.read_ram::<1>(STATUS)[0]
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn write_is_given_to_the_boundary_and_answered_when_it_is_done() {
    let (mut m, mut d) = started();
    m.write_ram(DATA, &[7; 1024]);
    let head = ask(&mut m, &mut d, OUT, 5, &[(DATA, 1000, 0), (DATA + 1000, 24, 0)]);
    let expected = TestRequest {
        disk: 0,
        number: 1,
        operation: DiskOperation::Write,
        sector: 5,
        bytes: 1024,
        data: vec![7; 1024],
    };
    assert_eq!(m.boundary.disk_requests, [expected]);
    assert_eq!(m.devices.capacity(&m.ram).disk_requests, 1);
    assert!(d.take_used(&m, QUEUE).is_empty());
    assert!(!m.devices.interrupt_pending());
    m.disk_done(0, 1, DiskStatus::Done, &[]);
    assert_eq!(d.take_used(&m, QUEUE), [(u32::from(head), 1)]);
    assert_eq!(status(&m), OK);
    assert_eq!(m.devices.acknowledge_interrupt(), Some(0x3A));
    assert_eq!(d.isr(&mut m), 1);
    assert_eq!(m.devices.capacity(&m.ram).disk_requests, 0);
}

#[test]
fn read_reaches_memory_only_with_its_completion() {
    let (mut m, mut d) = started();
    m.write_ram(DATA, &[UNWRITTEN; 1024]);
    let head = ask(&mut m, &mut d, IN, 2046, &[(DATA, 100, WRITE), (DATA + 100, 924, WRITE)]);
    let asked = &m.boundary.disk_requests[0];
    assert_eq!((asked.operation, asked.sector, asked.bytes), (DiskOperation::Read, 2046, 1024));
    assert_eq!(m.read_ram::<1024>(DATA), [UNWRITTEN; 1024]);
    let data: Vec<u8> = (0..1024u32).map(|i| i as u8).collect();
    m.disk_done(0, 1, DiskStatus::Done, &data);
    assert_eq!(m.read_ram::<1024>(DATA), data[..]);
    assert_eq!((status(&m), d.take_used(&m, QUEUE)), (OK, vec![(u32::from(head), 1025)]));
}

#[test]
fn data_and_status_may_share_buffers() {
    let (mut m, mut d) = started();
    put_header(&m, IN, 0);
    m.write_ram(DATA, &[UNWRITTEN; 520]);
    d.add(
        &m,
        QUEUE,
        &[(HEADER, 7, 0), (HEADER + 7, 9, 0), (DATA, 3, WRITE), (DATA + 3, 510, WRITE)],
    );
    d.kick(&mut m, QUEUE);
    m.disk_done(0, 1, DiskStatus::Done, &[9; 512]);
    assert_eq!(m.read_ram::<512>(DATA), [9; 512]);
    assert_eq!(m.read_ram::<2>(DATA + 512), [OK, UNWRITTEN]);
}

#[test]
fn failed_request_has_an_error_status_and_no_data() {
    for (kind, flags) in [(IN, WRITE), (OUT, 0)] {
        let (mut m, mut d) = started();
        m.write_ram(DATA, &[UNWRITTEN; 512]);
        ask(&mut m, &mut d, kind, 0, &[(DATA, 512, flags)]);
        m.disk_done(0, 1, DiskStatus::Failed, &[]);
        assert_eq!((status(&m), d.take_used(&m, QUEUE).len()), (IOERR, 1));
        assert_eq!(m.read_ram::<512>(DATA), [UNWRITTEN; 512]);
        assert_eq!(m.devices.counters().disk0.failed, 1);
    }
}

#[test]
fn completion_with_other_data_than_asked_for_is_a_failure() {
    let (mut m, mut d) = started();
    ask(&mut m, &mut d, IN, 0, &[(DATA, 512, WRITE)]);
    m.disk_done(0, 1, DiskStatus::Done, &[1; 511]);
    assert_eq!(status(&m), IOERR);
}

#[test]
fn flush_discard_and_zeroes_are_given_to_the_boundary() {
    let (mut m, mut d) = started_on(DISK_DEVICE, 0, 16);
    ask(&mut m, &mut d, FLUSH_TYPE, 77, &[]);
    m.write_ram(DATA, &segment(8, 16, 0));
    ask(&mut m, &mut d, DISCARD, 0, &[(DATA, 16, 0)]);
    m.write_ram(DATA, &segment(2047, 1, 1));
    ask(&mut m, &mut d, WRITE_ZEROES, 0, &[(DATA, 16, 0)]);
    let seen = m.boundary.disk_requests.iter();
    let seen: Vec<_> = seen.map(|r| (r.number, r.operation, r.sector, r.bytes)).collect();
    let expected = [
        (1, DiskOperation::Flush, 0, 0),
        (2, DiskOperation::Discard, 8, 16 * 512),
        (3, DiskOperation::WriteZeroes, 2047, 512),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn serial_number_is_answered_at_once() {
    let (mut m, mut d) = started();
    ask(&mut m, &mut d, GET_ID, 0, &[(DATA, 20, WRITE)]);
    assert_eq!((status(&m), m.read_ram::<20>(DATA)), (OK, DISK.serial));
    m.write_ram(DATA, &[UNWRITTEN; 20]);
    ask(&mut m, &mut d, GET_ID, 0, &[(DATA, 4, WRITE)]);
    assert_eq!((status(&m), m.read_ram::<5>(DATA)), (OK, *b"SERI\xEE"));
    assert_eq!(d.take_used(&m, QUEUE).len(), 2);
    assert!(m.boundary.disk_requests.is_empty());
}

/// Address, length and flags of a descriptor.
type Part = (u64, u32, u16);

#[test]
fn invalid_requests_are_refused_with_a_status() {
    const LONG: u32 = DISK_BYTES_MAX as u32;
    let discard = |sector, sectors, flags| (DISCARD, segment(sector, sectors, flags));
    let zeroes = |sector, sectors, flags| (WRITE_ZEROES, segment(sector, sectors, flags));
    let (write, read) = ((DATA, 512, 0), (DATA, 512, WRITE));
    let cases: [(u32, u64, &[Part], u8); 15] = [
        // Beyond the end; a sector that overflows; no data; not whole sectors; too long.
        (IN, 2048, &[read], IOERR),
        (OUT, 2047, &[(DATA, 1024, 0)], IOERR),
        (OUT, u64::MAX, &[write], IOERR),
        (IN, u64::MAX / 512, &[read], IOERR),
        (IN, 0, &[], IOERR),
        (OUT, 0, &[], IOERR),
        (IN, 0, &[(DATA, 513, WRITE)], IOERR),
        (OUT, 0, &[(DATA, 100, 0)], IOERR),
        (IN, 0, &[(DATA, LONG, WRITE), (DATA, 512, WRITE)], IOERR),
        (OUT, 0, &[(0, LONG, 0), (0, 512, 0)], IOERR),
        // The data in the wrong direction.
        (OUT, 0, &[read], IOERR),
        (IN, 0, &[write], IOERR),
        (DISCARD, 0, &[], IOERR),
        // Unknown.
        (2, 0, &[], UNSUPP),
        (u32::MAX, 0, &[read], UNSUPP),
    ];
    for (case, (kind, sector, parts, expected)) in cases.into_iter().enumerate() {
        let (mut m, mut d) = started();
        ask(&mut m, &mut d, kind, sector, parts);
        assert_eq!((status(&m), d.take_used(&m, QUEUE).len()), (expected, 1), "case {case}");
        assert_eq!(d.status(&mut m), RUNNING, "case {case}");
        assert!(m.boundary.disk_requests.is_empty(), "case {case}");
        assert!(m.devices.interrupt_pending(), "case {case}");
    }
    let ranges = [
        (discard(2048, 1, 0), IOERR),
        (discard(u64::MAX, u32::MAX, 0), IOERR),
        (discard(0, 0, 0), IOERR),
        (discard(0, 8, 1), UNSUPP),
        (discard(0, 8, 2), UNSUPP),
        (zeroes(2047, 2, 1), IOERR),
        (zeroes(0, 8, 3), UNSUPP),
        ((DISCARD, [segment(0, 8, 0), segment(8, 8, 0)].concat()), IOERR),
        ((WRITE_ZEROES, segment(0, 8, 0)[..15].to_vec()), IOERR),
    ];
    for (case, ((kind, segments), expected)) in ranges.into_iter().enumerate() {
        let (mut m, mut d) = started();
        m.write_ram(DATA, &segments);
        ask(&mut m, &mut d, kind, 0, &[(DATA, segments.len() as u32, 0)]);
        assert_eq!(status(&m), expected, "range {case}");
        assert!(m.boundary.disk_requests.is_empty(), "range {case}");
    }
}

#[test]
fn header_that_is_too_short_is_refused_and_a_chain_without_status_is_broken() {
    let (mut m, mut d) = started();
    put_header(&m, IN, 0);
    d.add(&m, QUEUE, &[(HEADER, 15, 0), (STATUS, 1, WRITE)]);
    d.kick(&mut m, QUEUE);
    assert_eq!(status(&m), IOERR);
    d.add(&m, QUEUE, &[(HEADER, 16, 0)]);
    d.kick(&mut m, QUEUE);
    assert_eq!(d.status(&mut m), RUNNING | NEEDS_RESET);
    assert_eq!(m.devices.counters().disk0.transport.broken_chains, 1);
}

#[test]
fn broken_chains_need_a_reset() {
    const INDIRECT: u16 = 4;
    let cases = [
        [(HEADER, 16, NEXT, 1), (STATUS, 1, NEXT | WRITE, 0)],
        [(HEADER, 16, NEXT, 8), (0, 0, 0, 0)],
        [(RAM_BYTES as u64 - 8, 16, NEXT, 1), (STATUS, 1, WRITE, 0)],
        [(u64::MAX - 3, 16, NEXT, 1), (STATUS, 1, WRITE, 0)],
        [(HEADER, 16, INDIRECT, 1), (STATUS, 1, WRITE, 0)],
        [(HEADER, 16, NEXT, 1), (RAM_BYTES as u64, 1, WRITE, 0)],
    ];
    for (case, [first, second]) in cases.into_iter().enumerate() {
        let (mut m, mut d) = started();
        put_header(&m, GET_ID, 0);
        d.write_descriptor(&m, QUEUE, 0, first);
        d.write_descriptor(&m, QUEUE, 1, second);
        d.make_available(&m, QUEUE, 0);
        d.kick(&mut m, QUEUE);
        assert_eq!(d.status(&mut m), RUNNING | NEEDS_RESET, "case {case}");
        assert!(m.boundary.disk_requests.is_empty(), "case {case}");
        m.disk_done(0, 1, DiskStatus::Done, &[]);
    }
}

#[test]
fn chain_that_changes_in_flight_harms_only_its_guest() {
    let (mut m, mut d) = started();
    ask(&mut m, &mut d, IN, 0, &[(DATA, 512, WRITE)]);
    // A loop.
    d.write_descriptor(&m, QUEUE, 1, (DATA, 512, NEXT | WRITE, 1));
    m.disk_done(0, 1, DiskStatus::Done, &[1; 512]);
    assert_eq!(d.status(&mut m), RUNNING | NEEDS_RESET);
    assert_eq!(m.devices.capacity(&m.ram).disk_requests, 0);
}

#[test]
fn read_only_disk_reads_and_refuses_to_change() {
    let (mut m, mut d) = started_on(READ_ONLY_DISK_DEVICE, 0, 16);
    let mut features = [0; 4];
    m.write_memory(d.window, &0u32.to_le_bytes());
    m.read_memory(d.window + 4, &mut features);
    let features = u32::from_le_bytes(features);
    assert_eq!((features >> 5 & 1, features >> 13 & 3), (1, 0), "RO, no DISCARD, no WRITE_ZEROES");
    m.write_ram(DATA, &segment(0, 8, 0));
    for (kind, bytes) in [(OUT, 512), (DISCARD, 16), (WRITE_ZEROES, 16)] {
        ask(&mut m, &mut d, kind, 0, &[(DATA, bytes, 0)]);
        assert_eq!(status(&m), IOERR);
    }
    assert!(m.boundary.disk_requests.is_empty());
    ask(&mut m, &mut d, IN, 0, &[(DATA, 512, WRITE)]);
    assert_eq!((m.boundary.disk_requests[0].disk, m.boundary.disk_requests[0].number), (1, 1));
}

#[test]
fn driver_without_flush_is_refused() {
    let mut m = TestMachine::new();
    let driver = Driver::negotiate(&mut m, DISK_DEVICE, VERSION_1);
    assert_eq!(driver.status(&mut m) & 8, 0, "FEATURES_OK");
}

#[test]
fn configuration_has_size_and_limits() {
    let (mut m, d) = started();
    let mut config = [0; CONFIG_BYTES];
    for (i, chunk) in config.chunks_mut(4).enumerate() {
        m.read_memory(d.window + 0x2000 + 4 * i as u64, chunk);
    }
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4)), (2048, 0));
    assert_eq!(word(8) * word(12), DISK_BYTES_MAX as u32);
    assert_eq!((word(20), config[24], config[32]), (512, 3, 1));
    assert_eq!((word(40), word(44), word(52), config[56]), (1, 1, 1, 0));
    assert_eq!((word(36), word(48)), (RANGE_SECTORS_MAX, RANGE_SECTORS_MAX));
}

#[test]
fn absent_disk_cannot_be_found() {
    let mut m = TestMachine::new();
    for device in [5, 6] {
        assert_eq!(m.config_read(device, 0), 0xFFFF_FFFF);
        m.config_write(device, 4, 7);
        m.config_write(device, 0x10, 0xFEB0_0000);
        assert_eq!(m.config_read(device, 0x10), 0xFFFF_FFFF);
    }
    assert_eq!(m.config_read(DISK_DEVICE, 0), 0x1042_1AF4);
}

#[test]
fn queue_is_left_at_the_bound_and_resumed_by_a_completion() {
    const SIZE: u16 = 256;
    let (mut m, mut d) = started_on(DISK_DEVICE, EVENT_IDX, SIZE);
    put_header(&m, FLUSH_TYPE, 0);
    let more = 3;
    for _ in 0..DISK_REQUESTS_MAX + more {
        d.add(&m, QUEUE, &[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
    }
    d.kick(&mut m, QUEUE);
    assert_eq!(m.boundary.disk_requests.len(), DISK_REQUESTS_MAX);
    assert_eq!(m.devices.counters().disk0.stalls, 1);
    d.kick(&mut m, QUEUE);
    assert_eq!(m.boundary.disk_requests.len(), DISK_REQUESTS_MAX);
    // Not in the order of numbers.
    for (taken, number) in [40, 1, 64].into_iter().enumerate() {
        m.disk_done(0, number, DiskStatus::Done, &[]);
        assert_eq!(m.boundary.disk_requests.len(), DISK_REQUESTS_MAX + taken + 1);
    }
    assert_eq!(m.boundary.disk_requests.last().unwrap().number, 67);
    m.disk_done(0, 2, DiskStatus::Done, &[]);
    assert_eq!(m.boundary.disk_requests.len(), DISK_REQUESTS_MAX + more);
    assert!(d.would_kick(&m, QUEUE));
}

#[test]
fn requests_that_are_held_wait_in_the_queue_and_go_on_in_their_order_on_a_restored_machine_too() {
    let (mut m, mut d) = started();
    put_header(&m, FLUSH_TYPE, 0);
    let flush = [(HEADER, 16, 0), (STATUS, 1, WRITE)];
    d.add(&m, QUEUE, &flush);
    d.kick(&mut m, QUEUE);
    m.boundary.holds_disk_requests = true;
    d.add(&m, QUEUE, &flush);
    d.add(&m, QUEUE, &flush);
    d.kick(&mut m, QUEUE);
    m.disk_done(0, 1, DiskStatus::Done, &[]);
    assert_eq!(m.boundary.disk_requests.len(), 1);
    let capacity = m.devices.capacity(&m.ram);
    assert!(capacity.disk_requests == 0 && capacity.disk_requests_held);
    // The closing checkpoint of a sync has the queue as it is.
    m.devices = restored(&m);
    m.boundary.holds_disk_requests = false;
    let mut access = Access { ram: &m.ram, boundary: &mut m.boundary };
    m.devices.resume(&mut access).unwrap();
    let numbers: Vec<_> = m.boundary.disk_requests.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(!m.devices.capacity(&m.ram).disk_requests_held);
}

#[test]
fn requests_of_a_driver_that_resets_reach_no_memory() {
    let (mut m, mut d) = started();
    m.write_ram(DATA, &[UNWRITTEN; 512]);
    ask(&mut m, &mut d, IN, 0, &[(DATA, 512, WRITE)]);
    d.set_status(&mut m, 0);
    m.write_ram(avail(QUEUE), &[0; 4]);
    let mut d = Driver::start(&mut m, DISK_DEVICE, VERSION_1 | FLUSH, 1, 8);
    let before = d.take_used(&m, QUEUE).len();
    m.disk_done(0, 1, DiskStatus::Done, &[1; 512]);
    assert_eq!((m.read_ram::<512>(DATA), status(&m)), ([UNWRITTEN; 512], UNWRITTEN));
    assert_eq!(d.take_used(&m, QUEUE).len(), before);
    assert!(!m.devices.interrupt_pending());
    ask(&mut m, &mut d, FLUSH_TYPE, 0, &[]);
    assert_eq!(m.boundary.disk_requests.last().unwrap().number, 2, "numbers go on");
}

#[test]
fn unknown_completion_is_counted_and_has_no_effect() {
    let (mut m, mut d) = started();
    ask(&mut m, &mut d, FLUSH_TYPE, 0, &[]);
    let before = m.devices.save();
    for (disk, number) in [(0, 0), (0, 2), (0, u64::MAX), (1, 1), (2, 1), (3, 1), (255, 1)] {
        m.disk_done(disk, number, DiskStatus::Done, &[]);
    }
    assert_eq!(m.devices.save(), before);
    assert_eq!(m.devices.counters().disk0.unknown, 3);
}

fn restored(m: &TestMachine) -> Devices {
    let bytes = postcard::to_allocvec(&m.devices.save()).unwrap();
    let state: DevicesState = postcard::from_bytes(&bytes).unwrap();
    let devices = Devices::restore(state).unwrap();
    assert_eq!(devices.save(), m.devices.save());
    devices
}

#[test]
fn restored_disk_completes_the_requests_in_flight() {
    let (mut m, mut d) = started();
    ask(&mut m, &mut d, IN, 0, &[(DATA, 512, WRITE)]);
    m.devices = restored(&m);
    m.disk_done(0, 1, DiskStatus::Done, &[3; 512]);
    assert_eq!((status(&m), m.read_ram::<512>(DATA)), (OK, [3; 512]));
    assert_eq!(d.take_used(&m, QUEUE).len(), 1);
}

#[test]
fn restored_requests_are_repeated_for_a_boundary_that_does_not_know_them() {
    let (mut m, mut d) = started();
    m.write_ram(DATA, &[5; 512]);
    ask(&mut m, &mut d, OUT, 9, &[(DATA, 512, 0)]);
    let first = std::mem::take(&mut m.boundary.disk_requests);
    m.devices = restored(&m);
    let mut access = crate::devices::Access { ram: &m.ram, boundary: &mut m.boundary };
    m.devices.reissue(&mut access).unwrap();
    assert_eq!(m.boundary.disk_requests, first);
    // A guest that has changed the data of a write is told apart.
    m.write_ram(DATA, &[6]);
    let mut access = crate::devices::Access { ram: &m.ram, boundary: &mut m.boundary };
    let error = m.devices.reissue(&mut access).unwrap_err();
    assert!(matches!(error, ReissueError::Changed { disk: 0, number: 1 }), "{error}");
}

#[test]
fn impossible_state_is_refused() {
    let (mut m, mut d) = started();
    ask(&mut m, &mut d, FLUSH_TYPE, 0, &[]);
    let good = m.devices.save();
    let damage: [fn(&mut BlkState); 8] = [
        |state| state.in_flight[0].number = 0,
        |state| state.in_flight[0].number = 2,
        |state| state.in_flight[0].bytes = 512,
        |state| state.last_number = u64::MAX,
        |state| state.in_flight.push(state.in_flight[0].clone()),
        |state| state.disk = Some(DiskConfig { sectors: 0, ..DISK }),
        |state| {
            state.in_flight[0].operation = Operation::Write;
            state.in_flight[0].sector = 2048;
            state.in_flight[0].bytes = 512;
        },
        |state| {
            state.last_number = 100;
            state.in_flight =
                (1..=65).map(|number| InFlight { number, ..state.in_flight[0].clone() }).collect();
        },
    ];
    for (case, damage) in damage.into_iter().enumerate() {
        let mut state = good.clone();
        damage(&mut state.disk0);
        assert!(Devices::restore(state).is_err(), "case {case}");
    }
    assert!(Devices::restore(good).is_ok());
}
