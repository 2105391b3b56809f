//! [`wait_any`](netpath::wait_any) on a packet port and a tap at the same time.

use std::time::{Duration, Instant};

use crate::common::lan::*;
use crate::common::*;
use netpath::{FramePort, LinkState, NullPort, ReadPath, ReceivePath, WaitPolicy, Wake, wait_any};

const LONG: Option<Duration> = Some(HANG_MAX);
const SHORT: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn frame_at_either_port_ends_the_wait() {
    let ways = [
        (WaitPolicy::BLOCK, ReadPath::Auto),
        (WaitPolicy::default(), ReadPath::Auto),
        (WaitPolicy::BLOCK, ReadPath::Single),
        (WaitPolicy::default(), ReadPath::Single),
    ];
    for (policy, read) in ways {
        on_a_lan(move |lan| {
            let (mut near, mut far) = lan.ports(ReceivePath::Ring);
            make_tap();
            let mut tap = open_linked_tap_by(read);
            let host = host_socket();
            let mut null = NullPort::new();
            while tap.receive(&mut [0; netpath::FRAME_MAX]).unwrap().is_some() {}
            assert_eq!(
                wait_any(&mut [&mut tap, &mut near], &policy, SHORT).unwrap(),
                Wake::Timeout
            );
            for round in 0..100 {
                let sent = payload(round);
                if round % 2 == 0 {
                    let frame = frame_to(&far, near.mac(), &sent);
                    send_now(&mut far, &frame);
                } else {
                    host.send(&sent).unwrap();
                }
                let mut ports: [&mut dyn FramePort; 3] = [&mut tap, &mut null, &mut near];
                let mut received = None;
                while received.is_none() {
                    let wake = wait_any(&mut ports, &policy, LONG);
                    assert_eq!(wake.unwrap(), Wake::Frame, "round {round}");
                    for port in &mut ports {
                        let mut buffer = [0; netpath::FRAME_MAX];
                        if let Some(length) = port.receive(&mut buffer).unwrap() {
                            received = Some(buffer[..length].to_vec());
                        }
                    }
                }
                let received = received.unwrap();
                let got =
                    if round % 2 == 0 { received[14..].to_vec() } else { host_payload(&received) };
                assert_eq!(got, sent, "round {round}");
            }
        });
    }
}

/// The frame arrives while the thread is blocked, not before it waits.
#[test]
fn blocked_wait_is_ended_by_a_frame_at_either_port() {
    for read in [ReadPath::Auto, ReadPath::Single] {
        on_a_lan(move |lan| {
            let (mut near, mut far) = lan.ports(ReceivePath::Ring);
            make_tap();
            let mut tap = open_linked_tap_by(read);
            let host = host_socket();
            let frame = frame_to(&far, near.mac(), b"late");
            let mut buffer = [0; netpath::FRAME_MAX];
            while tap.receive(&mut buffer).unwrap().is_some() {}
            // The port is the other thread's from its first use on.
            let (go, wait_for_go) = std::sync::mpsc::channel::<bool>();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for to_the_tap in wait_for_go {
                        std::thread::sleep(Duration::from_millis(20));
                        if to_the_tap {
                            host.send(b"late").unwrap();
                        } else {
                            send_now(&mut far, &frame);
                        }
                    }
                });
                for round in 0..10 {
                    go.send(round % 2 == 0).unwrap();
                    let mut ports: [&mut dyn FramePort; 2] = [&mut tap, &mut near];
                    let mut received = false;
                    while !received {
                        let start = Instant::now();
                        let wake = wait_any(&mut ports, &WaitPolicy::BLOCK, LONG).unwrap();
                        // At the timeout, a frame that did not end the wait is found as well.
                        let in_time = start.elapsed() < LONG.unwrap() / 2;
                        assert!(
                            wake == Wake::Frame && in_time,
                            "round {round}: nothing ended the wait"
                        );
                        for port in &mut ports {
                            received |= port.receive(&mut buffer).unwrap().is_some();
                        }
                    }
                }
                drop(go);
            });
        });
    }
}

#[test]
fn link_that_goes_down_does_not_keep_the_wait_busy() {
    on_a_lan(|lan| {
        let (mut near, _far) = lan.ports(ReceivePath::Ring);
        let mut null = NullPort::new();
        ip("link set va down");
        let start = Instant::now();
        while near.link() == LinkState::Up {
            let _wake = wait_any(&mut [&mut near, &mut null], &WaitPolicy::BLOCK, SHORT).unwrap();
            assert!(start.elapsed() < HANG_MAX, "the link is still reported as up");
        }
        // The error was reported once: from here on waits last until their timeout.
        for _ in 0..3 {
            let wake = wait_any(&mut [&mut near, &mut null], &WaitPolicy::BLOCK, SHORT).unwrap();
            assert_eq!(wake, Wake::Timeout);
        }
    });
}
