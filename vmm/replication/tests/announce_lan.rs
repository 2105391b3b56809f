//! Tests announcements with the kernel: a bridge that must learn the port of the VM's new host, and a
//! client behind it whose neighbour tables must accept the announcements.
//!
//! ```text
//!   the VM's old host          the VM's new host
//!        tap_old ----- br0 ----- tap_new          namespace a
//!                       |
//!                      va ---- vb (client)        namespace b
//! ```

#[path = "../../../netpath/tests/common/mod.rs"]
mod common;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use common::lan::{Lan, on_a_lan};
use common::{GUEST_MAC, ip, receive_all, receive_one, wait_until};
use netpath::{FramePort, TapConfig, TapPort, WaitPolicy};
use replication::announce::Station;
use replication::limits::ANNOUNCEMENT_BYTES_MAX;
use replication::{Announcement, Announcer, GuestAddresses, MacAddr};

const STATION: Station = Station { mac: GUEST_MAC, vlan: 0 };
const IPV4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
/// The VM's MAC address in the client's neighbour table before the announcement.
const STALE: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 0xee);

const RARP: Announcement = Announcement::Rarp { station: STATION };
const ARP_REQUEST: Announcement = Announcement::ArpRequest { station: STATION, address: IPV4 };
const ARP_REPLY: Announcement = Announcement::ArpReply { station: STATION, address: IPV4 };
const ADVERT: Announcement =
    Announcement::NeighbourAdvert { station: STATION, address: IPV6, router: false };

fn output(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Opens a tap, adds it to the bridge and waits until it forwards.
fn open_bridged(name: &str) -> TapPort {
    ip(&format!("tuntap add dev {name} mode tap"));
    ip(&format!("link set {name} master br0 up"));
    let config = TapConfig { wait: WaitPolicy::BLOCK, ..TapConfig::new(name) };
    let mut port = TapPort::open(&config).unwrap();
    port.start().unwrap();
    wait_until("the tap forwards", || {
        output("bridge", &format!("link show dev {name}")).contains("state forwarding")
    });
    port
}

/// Runs `test` with the bridge, the taps of both hosts and the client's addresses.
fn on_a_bridge(test: impl FnOnce(&Lan, [TapPort; 2]) + Send + 'static) {
    on_a_lan(|lan| {
        lan.in_b(|| {
            fs::write("/proc/sys/net/ipv6/conf/vb/disable_ipv6", "0").expect("a kernel with IPv6");
            ip("addr add 10.9.9.1/24 dev vb");
            ip("addr add fd00:9::1/64 dev vb nodad");
        });
        ip("link add br0 type bridge");
        ip("link set va master br0");
        ip("link set br0 up");
        let ports = ["tap_old", "tap_new"].map(open_bridged);
        wait_until("the client's link forwards", || {
            output("bridge", "link show dev va").contains("state forwarding")
        });
        test(lan, ports);
    });
}

fn send(port: &mut TapPort, announcement: Announcement) {
    let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
    let length = announcement.build(&mut buffer);
    port.send(&buffer[..length]).unwrap();
    port.flush().unwrap();
    assert_eq!(port.stats().tx_dropped, 0);
}

/// Returns the bridge port on which the VM's MAC address was learned.
fn bridge_port() -> Option<String> {
    let table = output("bridge", "fdb show br br0");
    let line = table.lines().find(|line| line.starts_with(&GUEST_MAC.to_string()))?;
    line.split(' ').skip_while(|word| *word != "dev").nth(1).map(str::to_string)
}

/// Returns the MAC address in the client's neighbour entry for the VM's `address`.
fn neighbour(lan: &Lan, address: &str) -> Option<String> {
    let table = lan.in_b(|| output("ip", &format!("neigh show {address} dev vb")));
    table.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_string)
}

fn make_stale(lan: &Lan, address: &str) {
    lan.in_b(|| ip(&format!("neigh replace {address} lladdr {STALE} nud stale dev vb")));
    assert_eq!(neighbour(lan, address), Some(STALE.to_string()));
}

fn is_to_guest(frame: &[u8]) -> bool {
    frame[..6] == GUEST_MAC.octets()
}

/// Receives the next frame to the VM, ignoring broadcasts of the client's kernel.
fn receive_for_guest(port: &mut TapPort) -> Vec<u8> {
    loop {
        let frame = receive_one(port);
        if is_to_guest(&frame) {
            return frame;
        }
    }
}

#[test]
fn announcement_of_each_kind_moves_the_mac_to_the_new_bridge_port() {
    on_a_bridge(|_, [mut old, mut new]| {
        for announcement in [RARP, ARP_REQUEST, ARP_REPLY, ADVERT] {
            send(&mut old, announcement);
            wait_until("the VM is at its old host", || bridge_port().as_deref() == Some("tap_old"));
            send(&mut new, announcement);
            wait_until("the VM is at its new host", || bridge_port().as_deref() == Some("tap_new"));
        }
    });
}

#[test]
fn stale_neighbour_entry_takes_the_announced_mac() {
    on_a_bridge(|lan, [_old, mut new]| {
        for announcement in [ARP_REQUEST, ARP_REPLY] {
            make_stale(lan, "10.9.9.2");
            send(&mut new, RARP);
            send(&mut new, ADVERT);
            assert_eq!(neighbour(lan, "10.9.9.2"), Some(STALE.to_string()));
            send(&mut new, announcement);
            let announced = Some(GUEST_MAC.to_string());
            wait_until("IPv4 entry", || neighbour(lan, "10.9.9.2") == announced);
        }
        make_stale(lan, "fd00:9::2");
        send(&mut new, RARP);
        send(&mut new, ARP_REPLY);
        assert_eq!(neighbour(lan, "fd00:9::2"), Some(STALE.to_string()));
        send(&mut new, ADVERT);
        let announced = Some(GUEST_MAC.to_string());
        wait_until("IPv6 entry", || neighbour(lan, "fd00:9::2") == announced);
    });
}

/// The purpose of announcements: the client keeps sending to the address it knows, and the new host
/// receives the frames.
#[test]
fn client_frames_go_to_the_announcing_host() {
    on_a_bridge(|lan, [mut old, mut new]| {
        let client = lan.in_b(|| {
            ip(&format!("neigh replace 10.9.9.2 lladdr {GUEST_MAC} nud permanent dev vb"));
            let socket = UdpSocket::bind("10.9.9.1:7").unwrap();
            socket.connect("10.9.9.2:7").unwrap();
            socket
        });
        let mut addresses = GuestAddresses::new(GUEST_MAC);
        let mut buffer = [0; ANNOUNCEMENT_BYTES_MAX];
        let length = ARP_REPLY.build(&mut buffer);
        addresses.learn(&buffer[..length]);
        send(&mut old, ARP_REPLY);
        wait_until("the VM is at its old host", || bridge_port().as_deref() == Some("tap_old"));
        client.send(b"before").unwrap();
        assert!(receive_for_guest(&mut old).ends_with(b"before"));

        let mut announcer = Announcer::new();
        announcer.start(0);
        let mut frames = 0;
        while let Some(now_ns) = announcer.poll_timeout() {
            if now_ns > 800_000_000 {
                // The remaining rounds come every 10 seconds.
                break;
            }
            assert!(frames < 15, "{announcer:?}");
            while let Some(length) = announcer.poll_transmit(now_ns, &addresses, &mut buffer) {
                new.send(&buffer[..length]).unwrap();
                frames += 1;
            }
            new.flush().unwrap();
        }
        assert_eq!((frames, new.stats().tx_frames), (15, 15));
        wait_until("the VM is at its new host", || bridge_port().as_deref() == Some("tap_new"));
        client.send(b"after").unwrap();
        assert!(receive_for_guest(&mut new).ends_with(b"after"));
        let left = receive_all(&mut old);
        assert!(
            !left.iter().any(|frame| is_to_guest(frame)),
            "the old host still receives client frames"
        );
    });
}
