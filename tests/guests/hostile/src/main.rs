//! The hostile guest: attacks the machine that runs it, at random from a seed and without end.
//!
//! It is not after an answer but after a panic, a hang, unbounded memory or a divergence. Everything that it
//! reads is mixed into its random sequence, so that after a wrong answer all that follows differs.
//!
//! | file | what it does |
//! |---|---|
//! | `stub.s` | CPL0: boot, exceptions, interrupts, privileged operations |
//! | `main.rs` | the main loop and its attacks |
//! | `gate.rs` | privileged operations; lists of port and memory accesses |
//! | `virtio.rs` | rings, descriptors and registers of the virtio devices |
//! | `code.rs` | code that changes itself |
//!
//! A fault anywhere starts CPL3 anew, with the same random sequence. The command line has `seed=NUMBER`. A
//! quarter of the seeds are *wild*: they also do what can end the guest itself (devices write over its code,
//! it resets or halts for ever). The other seeds avoid what is known to end it.
//!
//! It executes no instruction that docs/determinism.md excludes, because nothing can prevent those. It does try
//! the MSRs that show the host's clocks, which the machine forbids.
#![no_std]
#![no_main]

mod code;
mod gate;
mod memory;
mod random;
mod virtio;

use gate::{Accesses, Gate, IN, READ, WRITE, gate};
use random::Random;

core::arch::global_asm!(include_str!("stub.s"), options(att_syntax, raw));

unsafe extern "C" {
    static start_info: u64;
    static mut window_tables: [u64; 1024];
}

/// What survives a fault.
struct Guest {
    random: Random,
    is_started: bool,
    is_wild: bool,
    rounds: u64,
}

static mut GUEST: Guest =
    Guest { random: Random::new(), is_started: false, is_wild: false, rounds: 0 };

/// Registers of the machine's devices, and ports where nothing is. The PIC is among them: a guest that
/// masks its own interrupts starts it anew later.
const PORTS: [u16; 36] = [
    0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x70, 0x71, 0x80, 0xA0, 0xA1, 0xE4, 0xE5, 0xE8,
    0xEC, 0x1F0, 0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF, 0x4D0, 0x4D1, 0x608,
    0x609, 0xCF8, 0xCFA, 0xCFC, 0xCFE, 0xCFF, 0xFFFF,
];
/// MSRs, by number (SDM volume 4; KVM's, Hyper-V's): clocks, MTRRs, machine checks, addresses.
const MSRS: [u64; 37] = [
    0x10,
    0x11,
    0x12,
    0x1B,
    0x3A,
    0x3B,
    0x48,
    0x49,
    0x79,
    0x8B,
    0xC1,
    0xFE,
    0x174,
    0x175,
    0x176,
    0x17A,
    0x186,
    0x1A0,
    0x1D9,
    0x200,
    0x201,
    0x250,
    0x277,
    0x2FF,
    0x400,
    0x401,
    0x6E0,
    0x802,
    0x4000_0000,
    0x4000_0020,
    0x4B56_4D00,
    0x4B56_4D01,
    0x4B56_4D03,
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0103,
];

/// CPL3 begins here, first and after every fault.
#[unsafe(no_mangle)]
extern "C" fn hostile_main() -> ! {
    let guest = &raw mut GUEST;
    // SAFETY: there is one processor and no other user: a fault abandons the borrower for good.
    let guest = unsafe { &mut *guest };
    if !guest.is_started {
        let seed = seed();
        guest.random.seed(seed);
        guest.is_wild = seed.is_multiple_of(4);
        guest.is_started = true;
    }
    loop {
        guest.rounds += 1;
        if guest.rounds % 64 == 1 {
            start_machine(&mut guest.random);
        }
        attack(guest);
    }
}

/// Reads the seed from the command line, whose address is at offset 24 of the PVH start information.
fn seed() -> u64 {
    // SAFETY: `stub.s` has set it, and nothing changes it.
    let info = unsafe { start_info };
    let mut at = memory::read::<u64>(info + 24);
    let mut seed = 0u64;
    loop {
        match memory::read::<u8>(at) {
            0 => return seed,
            digit @ b'0'..=b'9' => {
                seed = seed.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            }
            _ => {}
        }
        at += 1;
    }
}

/// Sets the PICs, the PIT and the devices as a kernel does, so that the next attacks meet a working machine.
fn start_machine(random: &mut Random) {
    let mut list = Accesses::new();
    for (port, values) in [(0x20, [0x11, 0x20, 4, 1]), (0xA0, [0x11, 0x28, 2, 1])] {
        list.out(1, port, values[0]);
        for value in &values[1..] {
            list.out(1, port + 1, *value);
        }
    }
    list.out(1, 0x21, 0);
    list.out(1, 0xA1, 0);
    timer(&mut list, 11931);
    list.perform(0);
    virtio::Device::start(virtio::any(random), random);
}

/// Starts channel 0 of the PIT as a rate generator.
fn timer(list: &mut Accesses, reload: u64) {
    list.out(1, 0x43, 0x34);
    list.out(1, 0x40, reload & 0xFF);
    list.out(1, 0x40, reload >> 8);
}

fn attack(guest: &mut Guest) {
    let Guest { random, is_wild, rounds, .. } = guest;
    match random.below(32) {
        0..=3 => ports(random),
        4 => clocks(random),
        5..=7 => registers(random),
        8..=14 => virtio::any(random).abuse_ring(random, *is_wild),
        15 => virtio::any(random).start(random),
        16 | 17 => configuration(random),
        18 | 19 => code::run(random),
        20 | 21 => pages(random),
        22 | 23 => privileged(random),
        24 => string_ports(random),
        25 => storm(random),
        26 => virtio::any(random).flood(random),
        27 => dirty(random),
        28 => compute(random, 100_000),
        29 => halt(random),
        30 => console(random, *rounds),
        _ if *is_wild && random.once_in(50) => end(random),
        _ => direct(random),
    }
}

/// Accesses ports at random.
fn ports(random: &mut Random) {
    let mut list = Accesses::new();
    for _ in 0..1 + random.below(24) {
        let port = match random.below(8) {
            0 => random.next() as u16,
            _ => random.pick(&PORTS),
        };
        if random.once_in(2) {
            list.add(random.pick(&IN), u32::from(port), 0);
            continue;
        }
        let bytes = random.pick(&[1, 2, 4]);
        // Writes to these can reset the machine: keyboard controller, port 92, reset control.
        let reached = u32::from(port)..u32::from(port) + bytes as u32;
        if ![0x64, 0x92, 0xCF9].iter().any(|port| reached.contains(port)) {
            list.out(bytes, port, random.value());
        }
    }
    let interrupts = random.below(2);
    random.fold(list.perform(interrupts));
}

/// Accesses the devices' windows and other memory that is not RAM.
fn registers(random: &mut Random) {
    let mut list = Accesses::new();
    for _ in 0..1 + random.below(16) {
        let device = virtio::any(random);
        if random.once_in(8) {
            let at = 0xC000_0000 + random.below(0x3FFF_FFF8) as u32;
            list.add(random.pick(&READ), at, 0);
            let value = random.next();
            list.add(random.pick(&WRITE), at, value);
        }
        device.abuse_registers(random, &mut list);
    }
    let interrupts = random.below(2);
    random.fold(list.perform(interrupts));
}

/// Writes PCI configuration registers: also BARs, over RAM, over each other, over KVM's own pages.
fn configuration(random: &mut Random) {
    let mut list = Accesses::new();
    for _ in 0..1 + random.below(8) {
        let slot = random.below(4) as u32;
        let register = match random.below(4) {
            0 => 0x10,
            1 => 4,
            _ => random.below(64) as u32 * 4,
        };
        let value = match random.below(4) {
            0 => 0xFEB0_0000 + random.below(8) * 0x4000,
            1 => random.pick(&[0, 0x10_0000, 0xFFFB_C000, 0xFFFF_C000, 0xFEE0_0000]),
            _ => random.value(),
        };
        virtio::configuration(&mut list, slot, register, value);
        list.add(random.pick(&IN), 0xCFC + random.below(4) as u32, 0);
    }
    random.fold(list.perform(0));
}

/// Fills entries of the window's page tables with frames of RAM and of devices, then reads and writes
/// through them, with and without INVLPG.
fn pages(random: &mut Random) {
    for _ in 0..1 + random.below(16) {
        let frame = match random.below(6) {
            0 => 0xFEB0_0000 + random.below(16) * 0x1000,
            // No RAM, no device.
            1 => 0xC000_0000 + random.below(0x1000) * 0x1000,
            _ => 0x100_0000 + random.below(0x2000) * 0x1000,
        };
        // Present most of the time, perhaps not writable or not for CPL3; perhaps NX, PWT or PCD.
        let rights = 0x60 | random.pick(&[7, 7, 7, 7, 5, 3, 1, 6, 0]) | random.below(4) << 3;
        let entry = frame | rights | random.pick(&[0, 0, 1 << 63]);
        // SAFETY: the tables are no Rust object; the index is below their length.
        unsafe {
            (&raw mut window_tables)
                .cast::<u64>()
                .add(random.below(64) as usize)
                .write_volatile(entry)
        };
    }
    if random.once_in(2) {
        gate(Gate::Cr3, 0, random.next(), 0);
    }
    for _ in 0..1 + random.below(16) {
        let at = 0x4000_0000 + random.below(64) * 0x1000 + random.below(0x1000);
        match random.below(4) {
            0 => {
                gate(Gate::Invlpg, 0, at, 0);
            }
            1 => memory::write(at, random.next()),
            2 => memory::write(at, random.next() as u8),
            _ => {
                let read = memory::read::<u32>(at);
                random.fold(u64::from(read));
            }
        }
    }
}

/// Reads and writes MSRs, control and debug registers.
fn privileged(random: &mut Random) {
    let value = random.value();
    let msr = match random.below(4) {
        0 => random.value() & 0xFFFF_FFFF,
        _ => random.pick(&MSRS),
    };
    let result = match random.below(12) {
        0..=2 => gate(Gate::ReadMsr, msr, 0, 0),
        // KVM's and Hyper-V's MSRs take an address of guest memory, and bits that switch a function on.
        3 | 4 => gate(Gate::WriteMsr, msr, 0x200_0000 + random.below(0x1000) * 64 + 1, 0),
        5 => gate(Gate::WriteMsr, msr, value, 0),
        6 => gate(Gate::Cr0, 0, 0x8001_0033 ^ (value & 0x6004_000A), 0),
        7 => gate(Gate::Cr4, 0, 0x624 ^ (value & 0x7_FFFF), 0),
        8 => gate(Gate::Cr8, 0, value, 0),
        9 => gate(Gate::Debug, 0, value, 0),
        10 => match random.below(4) {
            0 => gate(Gate::Tables, 0, value, 0),
            1 => gate(Gate::Lmsw, 0, value & 0xE, 0),
            2 => gate(Gate::Wbinvd, 0, 0, 0),
            // Not 9: it writes the host's clock to memory where KVM has a master clock.
            _ => gate(Gate::Hypercall, random.pick(&[0, 1, 5, 10, 11, 12, 999]), 0, 0),
        },
        _ => gate(Gate::Cr3, 0, value, 0),
    };
    random.fold(result);
}

/// Asks KVM for the host's time, in every way that an MSR offers: the machine must have forbidden it.
fn clocks(random: &mut Random) {
    const PAGE: u64 = 0x38F_F000;
    // What KVM wrote since an earlier call.
    for word in 0..8 {
        random.fold(memory::read::<u64>(PAGE + 8 * word));
    }
    let clock =
        random.pick(&[0x10, 0x11, 0x12, 0x3B, 0x4B56_4D00, 0x4B56_4D01, 0x4B56_4D03, 0x4000_0020]);
    if random.once_in(2) {
        gate(Gate::WriteMsr, clock, PAGE + 1, 0);
    }
    random.fold(gate(Gate::ReadMsr, clock, 0, 0));
}

/// String instructions on ports: to the console, and of any width to any device.
fn string_ports(random: &mut Random) {
    let port = random.pick(&[0x3F8u16, 0x3F8, 0x80, 0x40, 0xCFC, 0xE8, 0x71, 0x20]);
    let (at, count) = (0x300_0000 + random.below(0x1000), random.below(600));
    // SAFETY: the instructions read and write a buffer that is no Rust object, and stay in the mapped RAM.
    unsafe {
        match random.below(4) {
            0 => {
                core::arch::asm!("rep outsb", in("dx") port, inout("rsi") at => _, inout("rcx") count => _)
            }
            1 => {
                core::arch::asm!("rep outsd", in("dx") port, inout("rsi") at => _, inout("rcx") count => _)
            }
            2 => {
                core::arch::asm!("rep insb", in("dx") port, inout("rdi") at => _, inout("rcx") count => _)
            }
            _ => {
                core::arch::asm!("rep insw", in("dx") port, inout("rdi") at => _, inout("rcx") count => _)
            }
        }
    }
    random.fold(memory::read::<u64>(at));
}

/// The PIT fires faster than the guest can serve it.
fn storm(random: &mut Random) {
    let mut list = Accesses::new();
    timer(&mut list, 2 + random.below(100));
    list.out(1, 0x21, 0);
    list.perform(0);
    compute(random, 200_000);
    timer(&mut list, 11931);
    list.perform(0);
}

/// Computes without an exit. The time that passes is in the log as checkpoints.
fn compute(random: &mut Random, turns_max: u64) {
    let turns = random.below(turns_max);
    let mut value = random.next();
    for turn in 0..turns {
        value = core::hint::black_box(value.wrapping_mul(3).rotate_left(5) ^ turn);
    }
    random.fold(value);
}

/// Writes to pages all over RAM.
fn dirty(random: &mut Random) {
    for _ in 0..random.below(300) {
        memory::write(0x100_0000 + random.below(0x300_0000 - 8), random.next());
    }
}

/// Halts, with the PIC and the PIT set up so that an interrupt comes.
fn halt(random: &mut Random) {
    start_machine(random);
    for _ in 0..1 + random.below(3) {
        gate(Gate::Halt, 0, 0, 0);
    }
}

/// Control sequences, text that pretends to be the VMM's, and bytes of any kind.
fn console(random: &mut Random, rounds: u64) {
    let mut list = Accesses::new();
    list.out(1, 0x3FB, 3);
    let text: &[u8] = match random.below(3) {
        0 => b"\x1b]0;owned\x07\x1b[2J\x1b[31munderstudy: the guest ended\x1b[0m\n",
        1 => b"{\"event\":\"protected\",\"term\":999}\n",
        _ => &[],
    };
    for byte in text {
        list.out(1, 0x3F8, u64::from(*byte));
    }
    for _ in 0..random.below(100) {
        let byte = random.next() & 0xFF;
        list.out(1, 0x3F8, byte);
    }
    for byte in b"rounds " {
        list.out(1, 0x3F8, u64::from(*byte));
    }
    for digit in (0..6).rev() {
        list.out(1, 0x3F8, 48 + rounds / 10u64.pow(digit) % 10);
    }
    list.out(1, 0x3F8, 10);
    list.perform(0);
}

/// Accesses devices from CPL3 with instructions of other shapes.
fn direct(random: &mut Random) {
    let at = u64::from(virtio::any(random).window()) + random.below(0x40);
    let value = random.value();
    let mut read = 0u64;
    // SAFETY: nothing that the instructions access is a Rust object.
    unsafe {
        match random.below(7) {
            0 => core::arch::asm!("xchg [{}], {}", in(reg) at, inout(reg) value => read),
            1 => core::arch::asm!("lock or [{}], {:e}", in(reg) at, in(reg) value),
            2 => core::arch::asm!("mov {:r}, [{}]", out(reg) read, in(reg) at),
            3 => {
                core::arch::asm!("rep movsd", inout("rsi") at => _, inout("rdi") 0x200_0000u64 => _,
                inout("rcx") random.below(20) => _)
            }
            4 => {
                core::arch::asm!("rep stosd", inout("rdi") at => _, inout("rcx") random.below(20) => _,
                in("rax") value)
            }
            5 => core::arch::asm!("in eax, dx", in("dx") random.pick(&PORTS), out("rax") read),
            _ => core::arch::asm!("add byte ptr [{}], 1", in(reg) at),
        }
    }
    random.fold(read);
}

/// What ends the guest.
fn end(random: &mut Random) {
    let mut list = Accesses::new();
    match random.below(5) {
        0 => list.out(1, 0x64, 0xFE),
        1 => list.out(1, 0xCF9, 6),
        2 => {
            gate(Gate::HaltForEver, 0, 0, 0);
        }
        3 => {
            gate(Gate::Breakpoint, 0, hostile_main as *const () as u64, 0);
        }
        _ => {
            gate(Gate::TripleFault, 0, 0, 0);
        }
    }
    list.perform(0);
}

/// A panic is a fault like others.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        memory::write(u64::MAX, 0u8);
    }
}

/// Unwinding is off, but `core` refers to its personality routine by name.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
