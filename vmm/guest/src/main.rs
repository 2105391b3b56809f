//! The reference guest: a program that needs almost nothing from a machine, and uses every part of ours.
//!
//! A stub of a few dozen instructions runs at CPL0 (`entry.s`); everything else, drivers and network stack
//! included, is one CPL3 program without an allocator and without threads. It answers ping, UDP and TCP
//! echo (port 7), a counter (7000), a service for tests of a disk (7001) and HTTP (80).
//!
//! The main loop polls the stack and the services until nothing moves, then enters the gate once: kicks
//! go out together, and the CPU sleeps until an interrupt or a timer.
#![no_std]
#![no_main]

mod bootparam;
mod burn;
mod clock;
mod console;
mod disk;
mod dma;
mod entropy;
mod gate;
mod kick;
mod mem;
mod net;
mod pci;
mod port;
mod services;

use core::fmt::Write as _;
use core::panic::PanicInfo;

use smoltcp::iface::{Config, Interface};
use smoltcp::wire::IpCidr;

use crate::bootparam::BootParams;
use crate::clock::TICK_MS;
use crate::console::{Line, say};
use crate::disk::Disk;
use crate::entropy::Entropy;
use crate::net::Net;
use crate::services::Services;

/// Masks of the 8259 pair.
const PIC_MASTER_MASK: u16 = 0x21;
const PIC_SLAVE_MASK: u16 = 0xa1;
/// The tick, and the line that the slave hangs on.
const IRQ_TICK: u8 = 0;
const IRQ_CASCADE: u8 = 2;
const IRQS: u8 = 16;

/// While a connection exists, services look at their own timeouts this often.
const HOUSEKEEPING_TICKS: u64 = 100;

/// CPL3 starts here.
extern "C" fn user_main() -> ! {
    console::init();
    let params = BootParams::read();
    let (mut net, mut entropy, disk) = devices();
    let seed = entropy.next().unwrap_or(0);

    let mut config = Config::new(net.mac().into());
    config.random_seed = seed;
    let mut stack = Interface::new(config, &mut net, clock::now());
    stack.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::Ipv4(params.ip)).expect("the stack has room for one address");
    });
    if let Some(gateway) = params.gateway {
        stack
            .routes_mut()
            .add_default_ipv4_route(gateway)
            .expect("the stack has room for one route");
    }
    let services = Services::new(entropy, disk);

    net.announce(params.ip.address());
    say!("ready, ip {} mac {}", params.ip, net.mac());
    serve(&mut net, &mut stack, services)
}

/// Finds the devices, connects the network device to the stub, and lets interrupts in.
fn devices() -> (Net, Entropy, Option<Disk>) {
    let found = pci::probe();
    let mut bars = pci::BarAllocator::new();
    let Some(net) = found.net else { panic!("no virtio network device on PCI bus 0") };
    let function = pci::Function::enable(net, &mut bars, false);
    let line = function.interrupt_line;
    assert!(
        line < IRQS && line != IRQ_TICK && line != IRQ_CASCADE,
        "network interrupt line {line}"
    );
    let net = Net::new(function.transport);
    let notify = kick::notify_addresses(&function.registers);
    gate::attach_net(function.registers.isr, notify);

    // Polled, and its line may be the network device's: an interrupt that nobody serves would not end.
    let rng = found.rng.map(|rng| pci::Function::enable(rng, &mut bars, true).transport);
    let entropy = Entropy::new(rng);

    let disk = found.disk.map(|disk| {
        let function = pci::Function::enable(disk, &mut bars, false);
        // It may be that of the network device: the stub lowers both.
        let line = function.interrupt_line;
        assert!(
            line < IRQS && line != IRQ_TICK && line != IRQ_CASCADE,
            "disk interrupt line {line}"
        );
        gate::attach_disk(function.registers.isr);
        (Disk::new(function.transport), line)
    });

    clock::start_tick();
    let mut lines = 1u16 << IRQ_TICK | 1 << line;
    if let Some((_, line)) = disk {
        lines |= 1 << line;
    }
    if lines >> 8 != 0 {
        lines |= 1 << IRQ_CASCADE;
    }
    let [master, slave] = (!lines).to_le_bytes();
    port::outb(PIC_MASTER_MASK, master);
    port::outb(PIC_SLAVE_MASK, slave);
    (net, entropy, disk.map(|(disk, _)| disk))
}

fn serve(net: &mut Net, stack: &mut Interface, mut services: Services) -> ! {
    loop {
        // Read first: what arrives while we work must end the wait.
        let seen = gate::events();
        let mut connected;
        loop {
            stack.poll(clock::now(), net, &mut services.sockets);
            let activity = services.poll(clock::now());
            connected = activity.connected;
            if !activity.progressed {
                break;
            }
        }
        if services.has_burn() {
            // Whatever else is ready leaves before the CPU is busy.
            gate::wait(seen, gate::ticks(), net.take_kicks());
            services.burn();
            continue;
        }

        let now = gate::ticks();
        let stack_wait =
            stack.poll_delay(clock::now(), &services.sockets).map(|d| d.total_millis());
        let blocked = net.is_blocked();
        let mut deadline = if connected { now + HOUSEKEEPING_TICKS } else { u64::MAX };
        if let Some(ms) = stack_wait {
            deadline = deadline.min(now + ms.div_ceil(TICK_MS));
        }
        if blocked {
            // Room makes an interrupt. The tick is for room that came before we could ask for one.
            deadline = now + 1;
        }
        let kicks = net.take_kicks();
        // Taking the kicks published how far we have read; a frame that came before that raises no
        // interrupt.
        if net.has_received() && !blocked {
            deadline = now;
        }
        gate::wait(seen, deadline, kicks);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line::new();
    let _ = write!(line, "refguest: panic");
    if let Some(at) = info.location() {
        let _ = write!(line, " at {}:{}", at.file(), at.line());
    }
    let _ = write!(line, ": {}", info.message());
    line.send();
    gate::reset()
}

/// Unwinding is off, but the unoptimized `core` still refers to its personality routine by name.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
