//! Fuzzing of the devices: random accesses, random rings and random state, each from a seed.
//!
//! Every step runs on two machines; the second one is saved, serialized and restored from time to time.
//! Both must stay equal in state, memory, answers and outputs, and nothing may panic or run long. To
//! repeat a failure, call the test's body with the seed that it prints.
//! The targets of the accesses follow from the list of devices.

use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};

use super::test_machine::{Dice, RAM_BYTES, TestMachine, TestRequest, claimants};
use super::virtio::test_driver::{Driver, EVENT_IDX, FLUSH, NEXT, VERSION_1, WRITE, avail};
use super::{DeviceCounters, Devices, DevicesState, FUNCTIONS};
use replication::boundary::{DiskOperation, DiskStatus, Input};

const COMMON_OFFSETS: [u64; 16] = [
    0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x16, 0x18, 0x1A, 0x1C, 0x1E, 0x20, 0x28, 0x2C, 0x30, 0x3A,
];
/// PCI vendor of virtio devices.
const VIRTIO: u16 = 0x1AF4;
/// PCI device of disks.
const DISK: u16 = 0x1042;
/// Longest time allowed for a step, seconds. It is far above any bound that the devices document, even in
/// an unoptimized build.
const STEP_S_MAX: u64 = 5;

/// What the random accesses are aimed at.
struct Targets {
    /// The ports of all devices, their neighbours, and two without any device.
    ports: Vec<u16>,
    /// The initial windows of all functions.
    windows: Vec<u64>,
}

impl Targets {
    fn new() -> Self {
        let is_claimed = |port| (1..=4).any(|bytes| !claimants(port, bytes).is_empty());
        let is_near =
            |port: &u16| [port.wrapping_sub(1), *port, port + 1].map(is_claimed).contains(&true);
        let ports = (1..0xFFFF).filter(is_near).chain([0x1F0, 0xFFFF]).collect();
        let windows = FUNCTIONS.iter().filter_map(|identity| identity.window).map(u64::from);
        Self { ports, windows: windows.collect() }
    }
}

/// One action of the guest or the world.
#[derive(Clone, Debug)]
enum Step {
    PortRead(u16, usize),
    PortWrite(u16, Vec<u8>),
    MemoryRead(u64, usize),
    MemoryWrite(u64, Vec<u8>),
    Ram(u64, Vec<u8>),
    Clock(u64),
    Frame(Vec<u8>),
    Console(Vec<u8>),
    /// Makes the chain available and kicks the first disk.
    DiskRequest {
        header: (u64, Vec<u8>),
        chain: Vec<u8>,
        head: u16,
    },
    /// Completes one of the requests in flight, or one that is not.
    Disk(u64, DiskStatus),
    Acknowledge,
}

fn bytes(dice: &mut Dice, count: u64) -> Vec<u8> {
    (0..count).map(|_| dice.roll() as u8).collect()
}

/// Returns a value that drivers use, or sometimes an arbitrary one.
fn value(dice: &mut Dice, width: usize) -> Vec<u8> {
    let common = [0, 1, 2, 3, 4, 8, 11, 15, 16, 256, 0x1_0000, 0x1_4000, 0x1_8000, 0x8000_0804];
    let value = if dice.below(4) == 0 { dice.roll() } else { dice.pick(&common) };
    value.to_le_bytes()[..width].to_vec()
}

fn memory_address(dice: &mut Dice, targets: &Targets) -> u64 {
    let window = dice.pick(&targets.windows);
    match dice.below(8) {
        0 => dice.roll(),
        1 => window + 0x1000,
        2 => window + 0x2000 + dice.below(12),
        3 | 4 => window + 0x3000 + dice.pick(&[0, 4, 4, 2, 8]),
        _ => window + dice.pick(&COMMON_OFFSETS),
    }
}

/// Returns a write to a part of a ring or descriptor table, with values plausible enough for the device
/// to follow.
fn ring_write(dice: &mut Dice) -> Step {
    let queue = 0x1_0000 + 0x1_0000 * dice.below(2);
    match dice.below(3) {
        0 => {
            let mut raw = Vec::new();
            let address = match dice.below(8) {
                0 => dice.roll(),
                1 => RAM_BYTES as u64 - dice.below(100),
                _ => dice.below(RAM_BYTES as u64),
            };
            let length = match dice.below(8) {
                0 => dice.roll() as u32,
                // Parts of a request to a disk.
                1..=3 => dice.pick(&[16, 512, 513, 1]),
                _ => dice.below(1600) as u32,
            };
            raw.extend(address.to_le_bytes());
            raw.extend(length.to_le_bytes());
            raw.extend((dice.below(8) as u16 & dice.pick(&[3, 3, 3, 7])).to_le_bytes());
            raw.extend((dice.below(9) as u16).to_le_bytes());
            Step::Ram(queue + 16 * dice.below(8), raw)
        }
        1 => Step::Ram(queue + 0x4000 + 4 + 2 * dice.below(9), vec![dice.below(9) as u8, 0]),
        _ => {
            let index = dice.below(10) as u16;
            Step::Ram(queue + 0x4000 + dice.pick(&[0, 2, 2, 2]), index.to_le_bytes().to_vec())
        }
    }
}

/// Returns a request to the first disk that is well formed, except for what the disk must refuse.
fn disk_request(dice: &mut Dice) -> Step {
    const HEADER: u64 = 0x8000;
    let mut header = Vec::new();
    header.extend(dice.pick(&[0u32, 1, 4, 8, 11, 13]).to_le_bytes());
    header.extend(0u32.to_le_bytes());
    header.extend(dice.below(2100).to_le_bytes());
    let head = dice.below(6) as u16;
    let data = (0x9000, dice.pick(&[512, 1024, 16, 20]), dice.pick(&[0, WRITE]));
    let mut chain = Vec::new();
    for (index, (address, length, flags)) in (0..).zip([(HEADER, 16, 0), data, (0xA000, 1, WRITE)])
    {
        chain.extend(u64::to_le_bytes(address));
        chain.extend(u32::to_le_bytes(length));
        chain.extend((flags | if index < 2 { NEXT } else { 0 }).to_le_bytes());
        chain.extend((head + index + 1).to_le_bytes());
    }
    Step::DiskRequest { header: (HEADER, header), chain, head }
}

fn step(dice: &mut Dice, targets: &Targets, now_ns: u64) -> Step {
    let width = dice.pick(&[1, 2, 4]);
    match dice.below(22) {
        0..=2 => Step::PortRead(dice.pick(&targets.ports), width),
        3..=5 => Step::PortWrite(dice.pick(&targets.ports), value(dice, width)),
        6 => Step::MemoryRead(memory_address(dice, targets), dice.pick(&[1, 2, 4, 8])),
        7..=9 => {
            let width = dice.pick(&[1, 2, 4, 8]);
            Step::MemoryWrite(memory_address(dice, targets), value(dice, width))
        }
        10..=14 => ring_write(dice),
        15 => Step::Clock(now_ns + dice.below(50_000_000)),
        16 | 17 => {
            let count = dice.pick(&[0, 14, 60, 1514, 1518, 1519, 9000]);
            Step::Frame(bytes(dice, count))
        }
        18 => {
            let count = dice.below(100);
            Step::Console(bytes(dice, count))
        }
        19 => Step::Disk(dice.roll(), dice.pick(&[DiskStatus::Done, DiskStatus::Failed])),
        20 => disk_request(dice),
        _ => Step::Acknowledge,
    }
}

/// Performs the step and returns what the guest saw.
fn perform(m: &mut TestMachine, step: &Step) -> Vec<u8> {
    match step {
        Step::PortRead(port, width) => {
            let mut data = vec![0; *width];
            m.read_port(*port, &mut data);
            data
        }
        Step::PortWrite(port, data) => {
            m.write_port(*port, data);
            Vec::new()
        }
        Step::MemoryRead(address, width) => {
            let mut data = vec![0; *width];
            m.read_memory(*address, &mut data);
            data
        }
        Step::MemoryWrite(address, data) => {
            m.write_memory(*address, data);
            Vec::new()
        }
        Step::Ram(address, data) => {
            m.write_ram(*address, data);
            Vec::new()
        }
        Step::Clock(now_ns) => {
            m.clock(*now_ns);
            Vec::new()
        }
        Step::Frame(frame) => {
            m.frame(frame);
            Vec::new()
        }
        Step::Console(typed) => {
            m.devices.apply(Input::Console(typed), &m.ram);
            Vec::new()
        }
        Step::DiskRequest { header: (address, header), chain, head } => {
            m.write_ram(*address, header);
            m.write_ram(0x1_0000 + 16 * u64::from(*head), chain);
            let index = u16::from_le_bytes(m.read_ram(avail(0) + 2));
            m.write_ram(avail(0) + 4 + 2 * u64::from(index % 8), &head.to_le_bytes());
            m.write_ram(avail(0) + 2, &index.wrapping_add(1).to_le_bytes());
            let disk = FUNCTIONS.iter().find(|identity| identity.device == DISK).unwrap();
            m.write_memory(u64::from(disk.window.unwrap()) + 0x3000, &[0; 2]);
            Vec::new()
        }
        Step::Disk(roll, status) => {
            let made = &mut m.boundary.disk_requests;
            if made.is_empty() {
                return Vec::new();
            }
            let index = *roll as usize % made.len();
            let TestRequest { disk, number, operation, bytes, .. } = made.swap_remove(index);
            let data = match operation {
                DiskOperation::Read => vec![*roll as u8; bytes as usize],
                DiskOperation::Write
                | DiskOperation::Flush
                | DiskOperation::Discard
                | DiskOperation::WriteZeroes => Vec::new(),
            };
            // Sometimes the completion of another request.
            let number = number + u64::from(roll >> 60 == 0);
            m.disk_done(disk, number, *status, &data);
            Vec::new()
        }
        Step::Acknowledge => m.devices.acknowledge_interrupt().into_iter().collect(),
    }
}

/// Saves, serializes, deserializes and restores the devices.
fn pass_through_bytes(m: &mut TestMachine) -> DevicesState {
    let saved = m.devices.save();
    let written = postcard::to_allocvec(&saved).unwrap();
    m.devices = Devices::restore(postcard::from_bytes(&written).unwrap()).unwrap();
    assert_eq!(m.devices.save(), saved);
    saved
}

/// Initializes the virtio devices as a correct driver does, whatever was done to them before, so that the
/// following steps act on running devices.
fn set_up(m: &mut TestMachine, features: u64) {
    m.init_pics();
    for queue in 0..2 {
        m.write_ram(avail(queue), &[0; 4]);
    }
    for identity in FUNCTIONS {
        let Some(window) = identity.window else { continue };
        m.config_write(u32::from(identity.slot), 0x10, window);
    }
    for identity in FUNCTIONS.iter().filter(|identity| identity.vendor == VIRTIO) {
        let device = u32::from(identity.slot);
        let disk = identity.device == DISK;
        if disk && m.config_read(device, 0) == u32::MAX {
            continue;
        }
        let features = features | if disk { FLUSH } else { 0 };
        let driver = Driver::negotiate(m, device, VERSION_1 | features);
        let mut queues = [0; 2];
        m.read_memory(driver.window + 0x12, &mut queues);
        Driver::start(m, device, VERSION_1 | features, u16::from_le_bytes(queues), 8);
    }
}

/// Runs `steps` random steps from `seed`. Returns the event counts.
fn random_guest(targets: &Targets, seed: u64, steps: u32) -> DeviceCounters {
    let mut dice = Dice::new(seed);
    let (mut a, mut b) = (TestMachine::new(), TestMachine::new());
    let features = dice.pick(&[0, EVENT_IDX]);
    for m in [&mut a, &mut b] {
        m.boundary.step_ns = 1000;
        set_up(m, features);
    }
    for number in 0..steps {
        if dice.below(100) == 0 {
            set_up(&mut a, features);
            set_up(&mut b, features);
        }
        let step = step(&mut dice, targets, a.devices.now_ns());
        let begin = Instant::now();
        let seen = perform(&mut a, &step);
        let took = begin.elapsed();
        assert!(took.as_secs() < STEP_S_MAX, "seed {seed} step {number} {step:?} took {took:?}");
        assert_eq!(seen, perform(&mut b, &step), "seed {seed} step {number} {step:?}");
        assert_eq!(
            (a.devices.interrupt_pending(), a.devices.capacity(&a.ram)),
            (b.devices.interrupt_pending(), b.devices.capacity(&b.ram)),
            "seed {seed} step {number} {step:?}"
        );
        if dice.below(8) == 0 {
            let saved = pass_through_bytes(&mut b);
            assert_eq!(a.devices.save(), saved, "seed {seed} step {number} {step:?}");
        }
    }
    assert_eq!(a.boundary.frames, b.boundary.frames, "seed {seed}");
    assert_eq!(a.boundary.console, b.boundary.console, "seed {seed}");
    assert_eq!(a.boundary.disk_requests, b.boundary.disk_requests, "seed {seed}");
    assert_eq!(a.boundary.entropy, b.boundary.entropy, "seed {seed}");
    assert!(memory(&a) == memory(&b), "seed {seed}: memory differs");
    a.devices.counters()
}

fn memory(m: &TestMachine) -> Vec<u8> {
    let mut bytes = vec![0; RAM_BYTES];
    m.ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// Changes one byte of a saved state: the result is refused, or is a state on which a machine can run.
fn damaged_state(targets: &Targets, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut m = TestMachine::new();
    set_up(&mut m, EVENT_IDX);
    let mut written = postcard::to_allocvec(&m.devices.save()).unwrap();
    let at = dice.below(written.len() as u64) as usize;
    written[at] ^= 1 << dice.below(8);
    let Ok(state) = postcard::from_bytes::<DevicesState>(&written) else { return };
    let Ok(devices) = Devices::restore(state) else { return };
    m.devices = devices;
    for _ in 0..200 {
        let step = step(&mut dice, targets, m.devices.now_ns() & !(3 << 62));
        perform(&mut m, &step);
    }
}

#[test]
fn random_guests_never_panic_and_restored_devices_behave_the_same() {
    let targets = Targets::new();
    let mut reached = [0; 14];
    for seed in 0..60 {
        println!("seed {seed}");
        let c = random_guest(&targets, seed, 3000);
        let seen = [
            c.net.sent,
            c.net.received,
            c.net.bad_size,
            c.net.short_buffer,
            c.net.transport.broken_rings,
            c.net.transport.broken_chains,
            c.net.transport.bad_addresses,
            c.net.transport.interrupts,
            c.rng.bytes,
            c.pit.edges,
            c.uart.received,
            c.disk0.requests,
            c.disk0.refused,
            c.disk0.done,
        ];
        reached.iter_mut().zip(seen).for_each(|(sum, one)| *sum += one);
    }
    println!("reached {reached:?}");
    assert!(reached.iter().all(|count| *count > 20), "the steps miss some events: {reached:?}");
}

#[test]
fn damaged_state_never_panics() {
    let targets = Targets::new();
    for seed in 0..3000 {
        println!("seed {seed}");
        damaged_state(&targets, seed);
    }
}

#[test]
#[ignore = "slow: a hundred times the seeds of the fast test"]
fn many_random_guests() {
    let targets = Targets::new();
    for seed in 1000..7000 {
        println!("seed {seed}");
        random_guest(&targets, seed, 3000);
        damaged_state(&targets, seed);
    }
}
