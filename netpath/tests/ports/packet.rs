//! [`PacketPort`](netpath::PacketPort) over a veth pair between two namespaces: traffic, and the
//! selection of the channel's frames. Every traffic test runs with the ring and with system calls.
//!
//! Each test has its own namespaces; all need root.

use std::time::{Duration, Instant};

use crate::common::lan::*;
use crate::common::*;
use netpath::{
    FRAME_MAX, FramePort, LinkState, MacAddr, PacketConfig, PacketPort, PacketStats, PayloadByte,
    PayloadFilter, PortError, ReceivePath, WaitPolicy, Wake,
};

const PATHS: [ReceivePath; 2] = [ReceivePath::Ring, ReceivePath::Calls];

#[test]
fn hundred_thousand_frames_each_way_in_order() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            let mut bytes = 0;
            let mut pass = |from: &mut PacketPort, to: &mut PacketPort, n: u32| {
                for n in n..n + 100 {
                    let frame = frame_to(from, to.mac(), &payload(n));
                    bytes += frame.len() as u64;
                    from.send(&frame).unwrap();
                }
                from.flush().unwrap();
                for n in n..n + 100 {
                    let mut buffer = [0; FRAME_MAX];
                    let length = to.receive(&mut buffer).unwrap().expect("veth delivers at once");
                    assert_eq!(buffer[14..length], payload(n));
                }
            };
            for burst in 0..1000 {
                pass(&mut a, &mut b, burst * 100);
                pass(&mut b, &mut a, burst * 100);
            }
            for port in [&mut a, &mut b] {
                let stats = port.stats();
                println!("{path:?}: {stats:?}");
                assert_eq!((stats.rx_frames, stats.tx_frames), (100_000, 100_000));
                assert_eq!((stats.rx_bytes, stats.tx_bytes), (bytes / 2, bytes / 2));
                assert_eq!((stats.tx_dropped, stats.rx_kernel_drops), (0, 0));
            }
        });
    }
}

/// Two ports on one interface, each for a label. The frames of one cost the other neither a wake nor a slot of its ring,
/// and no counter of it shows them.
#[test]
fn ports_on_one_interface_get_only_frames_with_their_label() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, plain) = lan.ports(path);
            drop(plain);
            let open = |label: &[u8; 8]| {
                let or_byte = PayloadByte { at: 9, mask: 0x7f, value: 6 };
                let payload = Some(PayloadFilter { label: *label, or_byte });
                let config = PacketConfig {
                    receive: path,
                    wait: WaitPolicy::BLOCK,
                    payload,
                    ..PacketConfig::new("vb")
                };
                lan.in_b(|| PacketPort::open(&config).unwrap())
            };
            let mut ports = [open(b"label  1"), open(b"label  2")];
            // More than a ring has slots.
            let frames = 2 * u64::from(netpath::RECEIVE_FRAMES as u32);
            for _ in 0..frames {
                let frame = frame_to(&a, B_MAC, b"label  2 of the second port");
                send_now(&mut a, &frame);
                assert_eq!(expect_frame(&mut ports[1])[14..], *b"label  2 of the second port");
            }
            let zero = Some(Duration::ZERO);
            assert_eq!(ports[0].wait(zero).unwrap(), Wake::Timeout);
            let stats = ports[0].stats();
            assert_eq!(PacketStats { enters: 0, link_downs: 0, ..stats }, PacketStats::default());
            assert_eq!(ports[1].stats().rx_frames, frames);
            // A frame with the byte is for both.
            let frame = frame_to(&a, B_MAC, b"label  3 \x06");
            send_now(&mut a, &frame);
            for port in &mut ports {
                assert_eq!(expect_frame(port)[14..24], *b"label  3 \x06");
            }
        });
    }
}

#[test]
fn foreign_frames_are_counted_and_not_delivered() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            let ours = frame_to(&a, B_MAC, b"ours");
            let to = |mac: MacAddr| frame_to(&a, mac, b"not ours");
            let mut other_type = ours.clone();
            other_type[12..14].copy_from_slice(&0x88b6_u16.to_be_bytes());
            let tagged = |tci: u16| {
                let tag = [&0x8100_u16.to_be_bytes()[..], &tci.to_be_bytes()].concat();
                [&ours[..12], &tag[..], &ours[12..]].concat()
            };
            for foreign in [
                to(MacAddr(2, 0, 0, 0, 0, 0xc)),
                to(MacAddr::broadcast()),
                to(MacAddr(3, 0, 0, 0, 0, 1)),
                other_type,
                tagged(5),
            ] {
                send_now(&mut a, &foreign);
                assert_eq!(b.wait(Some(Duration::ZERO)).unwrap(), Wake::Timeout);
                assert_eq!(b.receive(&mut [0; FRAME_MAX]).unwrap(), None);
            }
            let stats = b.stats();
            // The kernel filters other EtherTypes; the port's own check comes after that.
            assert_eq!((stats.rx_foreign_mac, stats.rx_foreign_ethertype), (3, 0));
            assert_eq!((stats.rx_foreign_vlan, stats.rx_frames), (1, 0));
            // A tag with VLAN ID 0 carries only a priority: the port must accept the frame.
            send_now(&mut a, &tagged(0xe000));
            assert_eq!(expect_frame(&mut b), ours);
            // A port does not receive its own frames.
            assert_eq!(a.receive(&mut [0; FRAME_MAX]).unwrap(), None);
        });
    }
}

#[test]
fn flood_of_foreign_frames_loses_no_channel_frame() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        for n in 0..1000_u32 {
            let (mac, text) = if n % 5 == 0 { (B_MAC, n) } else { (MacAddr::broadcast(), 0) };
            let frame = frame_to(&a, mac, &text.to_be_bytes());
            send_now(&mut a, &frame);
            if n % 200 == 199 {
                for expected in (n - 199..n).step_by(5) {
                    assert_eq!(expect_frame(&mut b)[14..], expected.to_be_bytes());
                }
                assert_eq!(b.wait(Some(Duration::ZERO)).unwrap(), Wake::Timeout);
            }
        }
        assert_eq!(b.stats().rx_foreign_mac, 800);
    });
}

#[test]
fn frames_of_every_length_pass_up_to_the_mtu() {
    for path in PATHS {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            for length in (0..200).chain(1400..=1500) {
                // Includes short frames that a NIC pads to 60 bytes.
                let mut frame = frame_to(&a, B_MAC, &vec![length as u8; length]);
                send_now(&mut a, &frame);
                assert_eq!(expect_frame(&mut b), frame);
                frame.resize(frame.len().max(60), 0);
                send_now(&mut a, &frame);
                assert_eq!(expect_frame(&mut b), frame);
            }
            for length in [0, 13, 1515, FRAME_MAX + 1] {
                send_now(&mut a, &vec![0; length]);
            }
            let stats = a.stats();
            assert_eq!((stats.tx_bad_length, stats.tx_dropped), (4, 0));
        });
    }
}

#[test]
fn frames_longer_than_a_port_carries_are_counted() {
    for path in PATHS {
        on_a_lan(move |lan| {
            ip("link set va mtu 9000");
            lan.in_b(|| ip("link set vb mtu 9000"));
            let (a, mut b) = lan.ports(path);
            assert_eq!((a.mtu_bytes(), b.mtu_bytes()), (9000, 9000));
            let sender = std::process::Command::new("python3")
                .args([
                    "-c",
                    &format!(
                        "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)\n\
                     s.bind(('va', 0))\n\
                     for n in (1504, 1505, 3000, 9000): s.send(bytes.fromhex('{}') + bytes(n))",
                        frame_to(&a, B_MAC, b"")
                            .iter()
                            .map(|b| format!("{b:02x}"))
                            .collect::<String>()
                    ),
                ])
                .output()
                .expect("cannot run python3");
            assert!(sender.status.success(), "{}", String::from_utf8_lossy(&sender.stderr));
            assert_eq!(expect_frame(&mut b).len(), 1518);
            assert_eq!(b.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Timeout);
            assert_eq!(b.stats().rx_bad_length, 3);
        });
    }
}

#[test]
fn frames_beyond_the_ring_are_dropped_and_counted() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        for round in 1..=3_u64 {
            for n in 0..600_u32 {
                a.send(&frame_to(&a, B_MAC, &n.to_be_bytes())).unwrap();
            }
            a.flush().unwrap();
            for n in 0..256_u32 {
                assert_eq!(expect_frame(&mut b)[14..], n.to_be_bytes());
            }
            assert_eq!(b.wait(Some(Duration::ZERO)).unwrap(), Wake::Timeout);
            assert_eq!(b.stats().rx_kernel_drops, round * 344);
            assert_eq!(b.stats().rx_kernel_drops, round * 344, "reading must not reset it");
        }
        // Five flushes per round, of 128 frames each.
        assert!(a.stats().enters <= 3 * 5 + 1, "{:?}", a.stats());
    });
}

#[test]
fn has_frame_turns_true_without_a_system_call() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        let frame = frame_to(&a, B_MAC, b"look");
        for _ in 0..1000 {
            assert!(!b.has_frame());
            send_now(&mut a, &frame);
            assert!(b.has_frame(), "veth delivers within the send");
            assert_eq!(expect_frame(&mut b), frame);
        }
        assert_eq!(b.stats().enters, 0, "receiving needs no io_uring");
        assert_eq!(a.stats().enters, 1000, "sending needs one call for each flush");
    });
}

#[test]
fn wait_times_out_and_wakes() {
    for path in PATHS {
        for wait in [WaitPolicy::BLOCK, WaitPolicy::default()] {
            on_a_lan(move |lan| {
                let mut a = lan.open_a(path, wait);
                let mut b = lan.open_b(path, wait);
                for milliseconds in [0, 1, 30] {
                    let timeout = Duration::from_millis(milliseconds);
                    let start = Instant::now();
                    assert_eq!(b.wait(Some(timeout)).unwrap(), Wake::Timeout);
                    assert!(start.elapsed() >= timeout);
                }
                let frame = frame_to(&a, B_MAC, b"wake up!");
                let sender = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    send_now(&mut a, &frame);
                });
                assert_eq!(b.wait(None).unwrap(), Wake::Frame);
                assert_eq!(b.wait(None).unwrap(), Wake::Frame, "the frame is still there");
                assert_eq!(expect_frame(&mut b)[14..], *b"wake up!");
                sender.join().unwrap();
                assert_eq!(b.wait(Some(Duration::from_millis(5))).unwrap(), Wake::Timeout);
            });
        }
    }
}

#[test]
fn port_sends_on_the_thread_of_its_first_use_only() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Auto);
        let frame = frame_to(&a, B_MAC, b"x");
        let copy = frame.clone();
        let mut a = std::thread::spawn(move || {
            send_now(&mut a, &copy);
            a
        })
        .join()
        .unwrap();
        assert_eq!(expect_frame(&mut b), frame);
        a.send(&frame).unwrap();
        assert!(matches!(a.flush(), Err(PortError::WrongThread { .. })));
    });
}

#[test]
fn description_names_the_chosen_receive_path() {
    on_a_lan(|lan| {
        let (a, b) = (lan.ports(ReceivePath::Auto).0, lan.ports(ReceivePath::Calls).1);
        let (a, b) = (a.describe(), b.describe());
        println!("{a}\n{b}");
        assert!(a.starts_with(&format!("va ({A_MAC}, MTU 1500, Up): receive by TPACKET_V2 ring")));
        assert!(b.contains("receive by recvfrom (as configured)") && !b.contains('\n'));
    });
}

/// Prints, without asserting it, the round-trip time when both ends spin before they block.
#[test]
fn round_trip_times() {
    const ROUNDS: usize = 20_000;
    for (path, bytes) in [
        (ReceivePath::Ring, 64),
        (ReceivePath::Ring, 1400),
        (ReceivePath::Calls, 64),
        (ReceivePath::Calls, 1400),
    ] {
        on_a_lan(move |lan| {
            let wait = WaitPolicy { spin: Duration::from_millis(2), ..WaitPolicy::default() };
            let (mut a, mut b) = (lan.open_a(path, wait), lan.open_b(path, wait));
            wait_for_state(&mut a, LinkState::Up);
            let echo = std::thread::spawn(move || {
                pin(1);
                let answer = frame_to(&b, A_MAC, &vec![0; bytes]);
                let mut buffer = [0; FRAME_MAX];
                for _ in 0..ROUNDS {
                    while b.receive(&mut buffer).unwrap().is_none() {
                        b.wait(Some(HANG_MAX)).unwrap();
                    }
                    send_now(&mut b, &answer);
                }
            });
            pin(0);
            let question = frame_to(&a, B_MAC, &vec![0; bytes]);
            let mut times = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                let start = Instant::now();
                send_now(&mut a, &question);
                while a.receive_with(|_| ()).unwrap().is_none() {
                    assert_eq!(a.wait(Some(HANG_MAX)).unwrap(), Wake::Frame);
                }
                times.push(start.elapsed().as_nanos());
            }
            echo.join().unwrap();
            times.sort_unstable();
            let at = |part: usize| times[ROUNDS * part / 100] as f64 / 1000.0;
            println!("{path:?}, {bytes} B: p50 {:.2} us, p99 {:.2} us", at(50), at(99));
        });
    }
}

/// Prints, without asserting it, the time to receive a frame that has arrived, copied and in place.
#[test]
fn receive_costs() {
    const BURST: usize = 100;
    const BURSTS: usize = 200;
    for path in PATHS {
        on_a_lan(move |lan| {
            pin(1);
            let (mut a, mut b) = lan.ports(path);
            for bytes in [64, 1400] {
                let frame = frame_to(&a, B_MAC, &vec![7; bytes]);
                let mut buffer = [0; FRAME_MAX];
                let mut cost = |lend: bool| {
                    let mut times = Vec::with_capacity(BURSTS);
                    for _ in 0..BURSTS {
                        (0..BURST).for_each(|_| a.send(&frame).unwrap());
                        a.flush().unwrap();
                        let start = Instant::now();
                        for _ in 0..BURST {
                            let length = if lend {
                                b.receive_with(|frame| std::hint::black_box(frame).len())
                            } else {
                                b.receive(std::hint::black_box(&mut buffer))
                            };
                            assert_eq!(length.unwrap(), Some(frame.len()));
                        }
                        times.push(start.elapsed().as_nanos() / BURST as u128);
                    }
                    times.sort_unstable();
                    times[BURSTS / 2]
                };
                let (copied, lent) = (cost(false), cost(true));
                println!("{path:?}, {bytes} B: copied {copied} ns, in place {lent} ns");
            }
        });
    }
}
