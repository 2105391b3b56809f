//! Opening a tap: the error message of each failure, and the lifetime of a tap.
//!
//! Each test has its own network namespace; all need root.

use std::time::{Duration, Instant};

use crate::common::*;
use netpath::{FramePort, PortError, ReadPath, TapConfig, TapPort, Wake};

fn refusal(name: &str) -> String {
    TapPort::open(&TapConfig::new(name)).unwrap_err().to_string()
}

#[test]
fn each_refusal_says_what_to_do() {
    in_namespace(|| {
        assert_eq!(
            refusal("tap0"),
            "tap tap0 does not exist: create it with 'ip tuntap add dev tap0 mode tap'"
        );
        assert_eq!(
            refusal("a-name-that-is-too-long"),
            "'a-name-that-is-too-long' is not an interface name: it is longer than 15 bytes"
        );
        let create = "choose another name, or create one with 'ip tuntap add dev NAME mode tap'";
        ip("link add v0 type veth peer name v1");
        assert_eq!(refusal("v0"), format!("v0 is not a tap but a veth interface: {create}"));
        ip("tuntap add dev tun0 mode tun");
        assert_eq!(refusal("tun0"), format!("tun0 is not a tap but a tun interface: {create}"));
        let lo = refusal("lo");
        assert!(lo.starts_with("lo is not a tap but a kernel-internal interface"), "{lo}");
        ip("tuntap add dev mq0 mode tap multi_queue");
        assert_eq!(
            refusal("mq0"),
            "tap mq0 was created with multi_queue: delete it and create it with 'ip tuntap add \
             dev mq0 mode tap'"
        );
    });
}

#[test]
fn missing_privilege_is_named() {
    in_namespace(|| {
        make_tap();
        netpath::sys::tap::probe_tun().unwrap();
        // SAFETY: takes no pointers. The raw system call changes this thread's user only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
        // The error depends on the mode of the device node, 0600 or 0666.
        match TapPort::open(&TapConfig::new("tap0")).unwrap_err() {
            PortError::TunPermission => {
                assert!(matches!(netpath::sys::tap::probe_tun(), Err(PortError::TunPermission)));
            }
            PortError::TapPermission { name } => assert_eq!(name, "tap0"),
            other => panic!("{other}"),
        }
    });
}

#[test]
fn busy_tap_is_refused_after_a_bounded_time() {
    in_namespace(|| {
        make_tap();
        let _owner = open_tap();
        let start = Instant::now();
        assert_eq!(refusal("tap0"), "tap tap0 is in use by another process");
        assert!(start.elapsed() >= Duration::from_millis(500));
    });
}

#[test]
fn dropped_port_frees_its_tap() {
    in_namespace(|| {
        make_tap();
        let host = host_socket();
        for n in 0..10u32 {
            let start = Instant::now();
            let mut port = open_tap();
            let opened = start.elapsed();
            // State when the port is dropped: a received frame, one not fetched, one queued.
            send_until_received(&host, &mut port);
            let passed = start.elapsed();
            host.send(&payload(n)).unwrap();
            port.send(&guest_frame(b"never flushed")).unwrap();
            // A tap dropped by its owner thread is free within milliseconds.
            println!("opened in {opened:?}, first frame after {passed:?}");
        }
        // Dropped by another thread, the kernel takes longer to free it; `open` waits.
        let mut port = open_tap();
        port.start().unwrap();
        std::thread::spawn(move || drop(port)).join().unwrap();
        let start = Instant::now();
        drop(open_tap());
        println!("after a drop elsewhere: opened in {:?}", start.elapsed());
        // Dropped without use.
        let start = Instant::now();
        let _port = open_tap();
        println!("after a drop unused: opened in {:?}", start.elapsed());
    });
}

/// Sends until a frame is received. A tap has no carrier while no process is attached, and the kernel
/// takes up to a second to notice that it is back.
fn send_until_received(host: &std::net::UdpSocket, port: &mut TapPort) {
    let start = Instant::now();
    for n in 0.. {
        host.send(&payload(n)).unwrap();
        if port.wait(Some(Duration::from_millis(1))).unwrap() == Wake::Frame {
            assert_eq!(host_payload(&receive_one(port)), payload(n));
            return;
        }
        assert!(start.elapsed() < HANG_MAX, "timed out waiting for a frame to pass");
    }
}

#[test]
fn state_of_the_interface_is_read() {
    in_namespace(|| {
        make_tap();
        let port = open_tap();
        assert_eq!(port.name(), "tap0");
        assert_eq!(port.mac(), HOST_MAC);
        assert_eq!(port.mtu_bytes(), 1500);
        assert!(port.is_up().unwrap());
    });
}

#[test]
fn tap_that_is_down_drops_frames_and_works_once_it_is_up() {
    in_namespace(|| {
        ip("tuntap add dev tap0 mode tap");
        ip(&format!("link set tap0 address {HOST_MAC}"));
        let mut port = open_tap();
        assert!(!port.is_up().unwrap());
        assert_eq!(port.down_hint(), "tap tap0 is down: 'ip link set tap0 up'");
        for _ in 0..1000 {
            port.send(&guest_frame(b"lost")).unwrap();
        }
        port.flush().unwrap();
        assert_eq!(port.stats().tx_dropped, 1000);
        assert_eq!(port.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Timeout);

        for _ in 0..3 {
            ip("link set tap0 up");
            configure_tap();
            let host = host_socket();
            send_until_received(&host, &mut port);
            port.send(&guest_frame(b"found")).unwrap();
            port.flush().unwrap();
            assert_eq!(host.recv(&mut [0; 64]).unwrap(), 5);
            ip("link set tap0 down");
            ip("addr flush dev tap0");
        }
    });
}

#[test]
fn created_tap_lives_as_long_as_the_port() {
    in_namespace(|| {
        let config = TapConfig { create: true, ..TapConfig::new("tap0") };
        let port = TapPort::open(&config).unwrap();
        assert!(!port.is_up().unwrap(), "opening must not bring the interface up");
        ip("link show tap0");
        drop(port);
        wait_until("the end of tap0", || refusal_is_missing("tap0"));
    });
}

fn refusal_is_missing(name: &str) -> bool {
    matches!(TapPort::open(&TapConfig::new(name)), Err(PortError::TapMissing { .. }))
}

#[test]
fn tap_deleted_in_use_is_an_error_and_not_a_hang() {
    for read in [ReadPath::Auto, ReadPath::Single] {
        in_namespace(move || deleted_in_use(read));
    }
}

fn deleted_in_use(read: ReadPath) {
    make_tap();
    let mut port = open_tap_by(read);
    assert_eq!(port.wait(Some(Duration::ZERO)).unwrap(), Wake::Timeout);
    ip("link delete tap0");
    let error = port.wait(Some(HANG_MAX)).unwrap_err();
    assert_eq!(error.to_string(), "tap tap0 was deleted while in use: create it again and restart");
    assert!(port.has_frame(), "a polling caller must get to see the error");
    assert!(matches!(port.is_up(), Err(PortError::TapGone { .. })));
}
