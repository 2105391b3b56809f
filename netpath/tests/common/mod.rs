//! A network namespace with one tap, and a UDP socket as the host's side of the tap.
//!
//! Each test program uses only a part of this, hence the `allow`.
//!
//! Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), `ip` and `/dev/net/tun`; fails without them.
#![allow(dead_code, unreachable_pub)]

pub mod lan;
pub mod random;

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use netpath::{FRAME_MAX, FramePort, ReadPath, TapConfig, TapPort, WaitPolicy};
use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::udp::{MutableUdpPacket, UdpPacket};
use pnet::util::MacAddr;

pub const HOST_MAC: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 1);
pub const GUEST_MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 2);
pub const HOST: [u8; 4] = [10, 9, 9, 1];
pub const GUEST: [u8; 4] = [10, 9, 9, 2];
pub const PORT: u16 = 7;

/// Timeout for events that must happen, on any slow or busy host. It only ends a test that hangs; no
/// test asserts an absolute speed.
pub const HANG_MAX: Duration = Duration::from_secs(120);

/// Polls every millisecond until `done` returns true.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < HANG_MAX, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Pins the calling thread to the `n`th core that it may use, or to the last one if there are fewer.
pub fn pin(n: usize) {
    // SAFETY: an all-zero set is valid, and both live through the calls.
    unsafe {
        let (mut usable, mut one): (libc::cpu_set_t, libc::cpu_set_t) = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        assert_eq!(libc::sched_getaffinity(0, size, &raw mut usable), 0);
        let cores = (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &usable));
        let cores: Vec<usize> = cores.collect();
        libc::CPU_SET(cores[n.min(cores.len() - 1)], &mut one);
        assert_eq!(libc::sched_setaffinity(0, size, &raw const one), 0);
    }
}

/// Runs `test` on a new thread in a new network namespace, which disappears with the thread.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: takes no pointers; it affects this thread, which has done nothing yet.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(
            result,
            0,
            "cannot make a network namespace ({}): run this test as root",
            io::Error::last_os_error()
        );
        // Keeps the kernel's IPv6 traffic off the tap. If the file does not exist, the kernel has no
        // IPv6.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        test();
    };
    let thread = std::thread::Builder::new().name("namespace".into()).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with `arguments` in the calling thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("cannot run 'ip'");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Creates tap0, up, with addresses and a static neighbour entry for the guest.
pub fn make_tap() {
    // With an owner: if the device node is open to all users (0666), so is a tap without an owner.
    ip("tuntap add dev tap0 mode tap user 0");
    ip(&format!("link set tap0 address {HOST_MAC}"));
    ip("link set tap0 up");
    configure_tap();
}

/// Sets the addresses of an existing tap0 that is up.
pub fn configure_tap() {
    ip("addr add 10.9.9.1/24 dev tap0");
    ip(&format!("neigh replace 10.9.9.2 lladdr {GUEST_MAC} dev tap0"));
}

/// Opens tap0 with a wait policy that blocks at once.
pub fn open_tap() -> TapPort {
    open_tap_by(ReadPath::Auto)
}

/// The same with a way to read of its own.
pub fn open_tap_by(read: ReadPath) -> TapPort {
    let config = TapConfig { wait: WaitPolicy::BLOCK, read, ..TapConfig::new("tap0") };
    TapPort::open(&config).unwrap()
}

/// Opens tap0 as [`open_tap`] does and waits until the host can send. A tap has no carrier while no
/// process is attached, and the kernel takes up to a second to notice that it is back and drops frames
/// until then.
pub fn open_linked_tap() -> TapPort {
    open_linked_tap_by(ReadPath::Auto)
}

/// The same with a way to read of its own.
pub fn open_linked_tap_by(read: ReadPath) -> TapPort {
    let port = open_tap_by(read);
    wait_for_link();
    port
}

/// Waits until tap0 has a carrier and passes frames.
pub fn wait_for_link() {
    wait_until("the carrier of tap0", || {
        let output = Command::new("ip").args(["-o", "link", "show", "tap0"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(" state UP ")
    });
}

/// Opens the host's socket. What it sends to the guest arrives at the port.
pub fn host_socket() -> UdpSocket {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::from(HOST), PORT)).unwrap();
    socket.connect((std::net::Ipv4Addr::from(GUEST), PORT)).unwrap();
    socket.set_read_timeout(Some(HANG_MAX)).unwrap();
    socket
}

/// Returns a payload that encodes number `n` and has a length that depends on it (8..=1472).
pub fn payload(n: u32) -> Vec<u8> {
    let length = 8 + (n as usize * 37) % 1465;
    let mut bytes: Vec<u8> = (0..length).map(|i| (i as u32 ^ n) as u8).collect();
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// Returns the frame with which the guest sends `payload` to the host's socket.
pub fn guest_frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + 20 + 8 + payload.len()];
    let mut ethernet = MutableEthernetPacket::new(&mut bytes).unwrap();
    ethernet.set_source(GUEST_MAC);
    ethernet.set_destination(HOST_MAC);
    ethernet.set_ethertype(EtherTypes::Ipv4);
    let mut ip = MutableIpv4Packet::new(&mut bytes[14..]).unwrap();
    ip.set_version(4);
    ip.set_header_length(5);
    ip.set_total_length((28 + payload.len()) as u16);
    ip.set_ttl(64);
    ip.set_next_level_protocol(IpNextHeaderProtocols::Udp);
    ip.set_source(GUEST.into());
    ip.set_destination(HOST.into());
    ip.set_checksum(ipv4::checksum(&ip.to_immutable()));
    let mut udp = MutableUdpPacket::new(&mut bytes[34..]).unwrap();
    udp.set_source(PORT);
    udp.set_destination(PORT);
    udp.set_length((8 + payload.len()) as u16);
    udp.set_payload(payload);
    let checksum =
        pnet::packet::udp::ipv4_checksum(&udp.to_immutable(), &GUEST.into(), &HOST.into());
    udp.set_checksum(checksum);
    bytes
}

/// Returns the UDP payload of a frame to the guest; panics on any other frame.
pub fn host_payload(frame: &[u8]) -> Vec<u8> {
    let ethernet = EthernetPacket::new(frame).unwrap();
    assert_eq!(ethernet.get_ethertype(), EtherTypes::Ipv4);
    assert_eq!((ethernet.get_source(), ethernet.get_destination()), (HOST_MAC, GUEST_MAC));
    let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
    UdpPacket::new(ip.payload()).unwrap().payload().to_vec()
}

/// Waits for one frame and receives it.
pub fn receive_one(port: &mut impl FramePort) -> Vec<u8> {
    let (mut buffer, start) = ([0; FRAME_MAX], Instant::now());
    loop {
        if let Some(length) = port.receive(&mut buffer).unwrap() {
            return buffer[..length].to_vec();
        }
        assert!(start.elapsed() < HANG_MAX, "timed out waiting for a frame");
        port.wait(Some(Duration::from_millis(100))).unwrap();
    }
}

/// Receives all frames that have arrived.
pub fn receive_all(port: &mut impl FramePort) -> Vec<Vec<u8>> {
    let mut buffer = [0; FRAME_MAX];
    let mut frames = Vec::new();
    while let Some(length) = port.receive(&mut buffer).unwrap() {
        frames.push(buffer[..length].to_vec());
    }
    frames
}
