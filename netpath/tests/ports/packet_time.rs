//! Arrival marks, the spin time of waits, and the bytes that wait to be sent.
//!
//! Each test has its own namespaces; all need root.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::lan::*;
use netpath::{FramePort, MacAddr, Mark, PacketPort, ReceivePath, WaitPolicy, Wake, plain_socket};

fn received(port: &mut PacketPort, mark: Mark) -> Vec<u8> {
    let mut numbers = Vec::new();
    while let Some(number) = port.receive_until(mark, |frame| frame[14]).unwrap() {
        numbers.push(number);
    }
    numbers
}

#[test]
fn mark_covers_frames_that_had_arrived_and_no_later_one() {
    for (path, first) in [(ReceivePath::Ring, vec![1, 2, 3]), (ReceivePath::Calls, vec![1])] {
        on_a_lan(move |lan| {
            let (mut a, mut b) = lan.ports(path);
            assert_eq!(b.arrived(64).unwrap(), None);
            let foreign = frame_to(&a, MacAddr::broadcast(), b"x");
            let send = |a: &mut PacketPort, number: u8| {
                let frame = frame_to(a, B_MAC, &[number]);
                // The mark also counts foreign frames.
                send_now(a, &foreign);
                send_now(a, &frame);
            };
            (1..4).for_each(|number| send(&mut a, number));
            let mark = b.arrived(64).unwrap().expect("frames are there");
            (4..7).for_each(|number| send(&mut a, number));
            assert_eq!(received(&mut b, mark), first);
            assert_eq!(received(&mut b, mark), []);
            let mut rest = Vec::new();
            while let Some(mark) = b.arrived(64).unwrap() {
                rest.extend(received(&mut b, mark));
            }
            assert_eq!([first.clone(), rest].concat(), [1, 2, 3, 4, 5, 6]);
        });
    }
}

#[test]
fn mark_covers_no_more_than_asked_for() {
    on_a_lan(|lan| {
        let (mut a, mut b) = lan.ports(ReceivePath::Ring);
        for number in 0..200 {
            let frame = frame_to(&a, B_MAC, &[number]);
            send_now(&mut a, &frame);
        }
        let mark = b.arrived(3).unwrap().expect("frames are there");
        assert_eq!(received(&mut b, mark), [0, 1, 2]);
        let mark = b.arrived(1000).unwrap().expect("frames are there");
        assert_eq!(received(&mut b, mark).len(), 197);
    });
}

/// Waits until thread `id` of this process sleeps.
fn wait_until_asleep(id: u32) {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next()
    };
    while state() != Some('S') {
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn wait_that_spun_reports_its_spin_time_and_one_that_blocked_does_not() {
    on_a_lan(|lan| {
        let looking = WaitPolicy { spin: Duration::from_secs(60), ..WaitPolicy::default() };
        for policy in [looking, WaitPolicy::BLOCK] {
            let mut a = lan.open_a(ReceivePath::Ring, WaitPolicy::BLOCK);
            let mut b = lan.open_b(ReceivePath::Ring, policy);
            let frame = frame_to(&a, B_MAC, b"hello");
            let waiter = AtomicU32::new(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let id = loop {
                        match waiter.load(Ordering::Acquire) {
                            0 => std::thread::yield_now(),
                            id => break id,
                        }
                    };
                    if policy == WaitPolicy::BLOCK {
                        wait_until_asleep(id);
                    }
                    send_now(&mut a, &frame);
                });
                // SAFETY: takes no pointers.
                waiter.store(unsafe { libc::gettid() } as u32, Ordering::Release);
                let start = Instant::now();
                assert_eq!(b.wait(None).unwrap(), Wake::Frame);
                match b.looked() {
                    Some(looked) => {
                        assert!(policy == looking && looked <= start.elapsed(), "{looked:?}");
                    }
                    None => assert_eq!(policy, WaitPolicy::BLOCK),
                }
            });
            // A frame that has arrived is seen without reading the clock.
            assert_eq!(b.wait(None).unwrap(), Wake::Frame);
            assert_eq!(b.looked(), Some(Duration::ZERO));
            assert_eq!(expect_frame(&mut b)[14..], *b"hello");
            let brief = Some(Duration::from_millis(1));
            assert_eq!(b.wait(brief).unwrap(), Wake::Timeout);
            assert_eq!(b.looked(), None);
        }
    });
}

#[test]
fn frames_in_the_queue_below_are_unsent() {
    on_a_lan(|lan| {
        let (mut a, _b) = lan.ports(ReceivePath::Ring);
        let frame = frame_to(&a, B_MAC, &[0; 1400]);
        (0..10).for_each(|_| send_now(&mut a, &frame));
        assert_eq!(a.unsent_bytes().unwrap(), 0, "veth has delivered the frames");
        // At this rate each frame takes more than two seconds.
        let tbf = "qdisc add dev va root tbf rate 5kbit burst 1600 limit 100000";
        assert!(Command::new("tc").args(tbf.split(' ')).status().unwrap().success());
        (0..10).for_each(|_| send_now(&mut a, &frame));
        let unsent = a.unsent_bytes().unwrap();
        assert!((8 * 1414..10 * 4096).contains(&unsent), "{unsent}");
    });
}

#[test]
fn plain_socket_receives_its_ethertype_only() {
    on_a_lan(|lan| {
        let (mut a, _b) = lan.ports(ReceivePath::Ring);
        let socket = lan.in_b(|| plain_socket("vb", 0x88b6).unwrap());
        let mut frame = frame_to(&a, B_MAC, b"x");
        send_now(&mut a, &frame);
        frame[12..14].copy_from_slice(&0x88b6_u16.to_be_bytes());
        send_now(&mut a, &frame);
        let mut file = std::fs::File::from(socket);
        let mut buffer = [0; 64];
        use std::io::Read;
        assert_eq!(file.read(&mut buffer).unwrap(), frame.len());
        assert_eq!(buffer[..frame.len()], frame);
        assert_eq!(file.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert!(plain_socket("nope", 0x88b6).unwrap_err().to_string().contains("does not exist"));
    });
}
