//! Two network namespaces joined by a veth pair, with a packet port in each.
#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use netpath::{
    FramePort, LinkState, MacAddr, PacketConfig, PacketPort, ReceivePath, WaitPolicy, Wake,
};

use super::{HANG_MAX, in_namespace, ip, wait_until};

pub const A_MAC: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0xa);
pub const B_MAC: MacAddr = MacAddr(0x02, 0, 0, 0, 0, 0xb);

/// Interface `va` in one namespace, `vb` in the other. Both disappear with the test's thread and the
/// open files.
pub struct Lan {
    a: File,
    b: File,
}

/// Opens the calling thread's namespace.
fn namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// Moves the calling thread to a namespace.
fn enter(namespace: &File) {
    // SAFETY: takes no pointers; it affects this thread only.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "setns: {}", io::Error::last_os_error());
}

/// Runs `test` with a new LAN, in namespace a.
pub fn on_a_lan(test: impl FnOnce(&Lan) + Send + 'static) {
    in_namespace(move || {
        let a = namespace();
        // SAFETY: takes no pointers; it affects this thread only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let lan = Lan { a, b: namespace() };
        lan.join();
        enter(&lan.a);
        test(&lan);
    });
}

impl Lan {
    /// Creates the veth pair and brings both ends up.
    pub fn join(&self) {
        let there = format!("/proc/{}/fd/{}", std::process::id(), self.a.as_raw_fd());
        self.in_b(|| {
            ip("link add vb type veth peer name va");
            ip(&format!("link set va netns {there}"));
            ip(&format!("link set vb address {B_MAC} up"));
        });
        self.in_a(|| ip(&format!("link set va address {A_MAC} up")));
    }

    /// Moves va to namespace b and back. It keeps its index, and is up again.
    pub fn move_a_away_and_back(&self) {
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        self.in_a(|| ip(&format!("link set va netns {}", path(&self.b))));
        self.in_b(|| ip(&format!("link set va netns {}", path(&self.a))));
        self.in_a(|| ip("link set va up"));
    }

    pub fn in_a<R>(&self, run: impl FnOnce() -> R) -> R {
        enter(&self.a);
        run()
    }

    /// Runs `run` in namespace b, then returns to a.
    pub fn in_b<R>(&self, run: impl FnOnce() -> R) -> R {
        enter(&self.b);
        let result = run();
        enter(&self.a);
        result
    }

    pub fn open_a(&self, receive: ReceivePath, wait: WaitPolicy) -> PacketPort {
        let config = PacketConfig { receive, wait, ..PacketConfig::new("va") };
        self.in_a(|| PacketPort::open(&config).unwrap())
    }

    pub fn open_b(&self, receive: ReceivePath, wait: WaitPolicy) -> PacketPort {
        let config = PacketConfig { receive, wait, ..PacketConfig::new("vb") };
        self.in_b(|| PacketPort::open(&config).unwrap())
    }

    /// Opens a port at each end that blocks at once, and waits for the link.
    pub fn ports(&self, receive: ReceivePath) -> (PacketPort, PacketPort) {
        let mut ports =
            (self.open_a(receive, WaitPolicy::BLOCK), self.open_b(receive, WaitPolicy::BLOCK));
        wait_for_state(&mut ports.0, LinkState::Up);
        wait_for_state(&mut ports.1, LinkState::Up);
        while ports.0.next_link_event().is_some() || ports.1.next_link_event().is_some() {}
        ports
    }
}

/// Polls until the link is in `state`: the kernel reports a carrier late.
pub fn wait_for_state(port: &mut PacketPort, state: LinkState) {
    wait_until(&format!("{state:?}"), || port.check_link() == state);
}

/// Returns a channel frame to `to`.
pub fn frame_to(port: &PacketPort, to: MacAddr, payload: &[u8]) -> Vec<u8> {
    [&port.header_to(to)[..], payload].concat()
}

/// Sends and flushes one frame.
pub fn send_now(port: &mut PacketPort, frame: &[u8]) {
    port.send(frame).unwrap();
    port.flush().unwrap();
}

/// Receives a frame that should have arrived already.
pub fn expect_frame(port: &mut PacketPort) -> Vec<u8> {
    let wake = port.wait(Some(HANG_MAX)).unwrap();
    assert_eq!(wake, Wake::Frame, "{port:?}");
    port.receive_with(|frame| frame.to_vec()).unwrap().expect("wait announced a frame")
}
