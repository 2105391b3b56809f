//! [`TapPort`] on a real tap: traffic, polling and waiting.
//!
//! Each test has its own network namespace; all need root.

use std::time::{Duration, Instant};

use crate::common::*;
use netpath::{FRAME_MAX, FramePort, PortError, ReadPath, TapConfig, TapPort, WaitPolicy, Wake};

/// Runs `test` in a namespace of its own for each way to read.
fn on_each_path(test: fn(ReadPath)) {
    for read in [ReadPath::Auto, ReadPath::Single] {
        in_namespace(move || test(read));
    }
}

#[test]
fn ten_thousand_frames_each_way_in_order() {
    on_each_path(|read| {
        make_tap();
        let mut port = open_linked_tap_by(read);
        port.start().unwrap();
        let host = host_socket();
        let mut buffer = [0; 2048];
        let (mut sent_bytes, mut received_bytes) = (0, 0);
        for burst in 0..10_000u32 / 50 {
            let numbers = burst * 50..(burst + 1) * 50;
            for n in numbers.clone() {
                host.send(&payload(n)).unwrap();
            }
            for n in numbers.clone() {
                let frame = receive_one(&mut port);
                received_bytes += frame.len() as u64;
                assert_eq!(host_payload(&frame), payload(n));
            }
            for n in numbers.clone() {
                let frame = guest_frame(&payload(n));
                sent_bytes += frame.len() as u64;
                port.send(&frame).unwrap();
            }
            port.flush().unwrap();
            for n in numbers {
                let length = host.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..length], payload(n));
            }
        }
        let stats = port.stats();
        println!("{stats:?}");
        assert_eq!((stats.rx_frames, stats.rx_bytes), (10_000, received_bytes));
        assert_eq!((stats.tx_frames, stats.tx_bytes), (10_000, sent_bytes));
        assert_eq!((stats.tx_dropped, stats.rx_oversize, stats.tx_bad_length), (0, 0, 0));
    });
}

#[test]
fn burst_beyond_the_buffers_is_received_whole() {
    on_each_path(|read| {
        make_tap();
        let mut port = open_linked_tap_by(read);
        port.start().unwrap();
        let host = host_socket();
        for round in 0..20 {
            // More than the port's 256 buffers, and as many as the tap's own queue (txqueuelen) holds.
            for n in 0..1000 {
                host.send(&payload(n)).unwrap();
            }
            let mut next = 0;
            while port.has_frame() {
                for frame in receive_all(&mut port) {
                    assert_eq!(host_payload(&frame), payload(next));
                    next += 1;
                }
            }
            assert_eq!(next, 1000, "round {round}");
        }
        println!("{:?}", port.stats());
        assert!(port.stats().rearms >= 60);
    });
}

#[test]
fn more_frames_than_slots_leave_without_a_flush_between() {
    on_each_path(|read| {
        make_tap();
        let mut port = open_linked_tap_by(read);
        let host = host_socket();
        for n in 0..300u32 {
            port.send(&guest_frame(&n.to_be_bytes())).unwrap();
        }
        port.flush().unwrap();
        let mut buffer = [0; 64];
        for n in 0..300u32 {
            let length = host.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], n.to_be_bytes());
        }
        // Three flushes of up to 128 frames. The first one also starts the port.
        assert_eq!(port.stats().tx_frames, 300);
        assert!(port.stats().enters <= 3, "{:?}", port.stats());
    });
}

#[test]
fn has_frame_is_false_when_idle_and_turns_true_without_a_system_call() {
    on_each_path(|read| {
        make_tap();
        let mut port = open_linked_tap_by(read);
        let host = host_socket();
        assert!(port.has_frame(), "before its first use a port always reports a possible frame");
        assert!(receive_all(&mut port).is_empty());

        for n in 0..1000 {
            for _ in 0..100 {
                assert!(!port.has_frame(), "a frame is reported on an idle port ({n})");
            }
            let enters = port.stats().enters;
            host.send(&payload(n)).unwrap();
            // On this kernel the frame is visible before `send` returns; other kernels may take longer.
            let start = Instant::now();
            while !port.has_frame() {
                assert!(start.elapsed() < HANG_MAX, "frame {n} is not reported");
            }
            assert_eq!(port.stats().enters, enters);
            let frames = receive_all(&mut port);
            assert_eq!(frames.len(), 1);
            assert_eq!(host_payload(&frames[0]), payload(n));
        }
        // Sending must not be reported as a received frame.
        port.send(&guest_frame(b"x")).unwrap();
        port.flush().unwrap();
        assert!(!port.has_frame());
    });
}

#[test]
fn wait_times_out_and_wakes() {
    on_each_path(|read| {
        make_tap();
        for wait in [WaitPolicy::BLOCK, WaitPolicy::default()] {
            let config = TapConfig { wait, read, ..TapConfig::new("tap0") };
            let mut port = TapPort::open(&config).unwrap();
            wait_for_link();
            for milliseconds in [0, 1, 30] {
                let timeout = Duration::from_millis(milliseconds);
                let start = Instant::now();
                assert_eq!(port.wait(Some(timeout)).unwrap(), Wake::Timeout);
                assert!(start.elapsed() >= timeout);
            }
            let host = host_socket();
            let sender = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                let at = Instant::now();
                host.send(b"wake up!").unwrap();
                at
            });
            assert_eq!(port.wait(None).unwrap(), Wake::Frame);
            let woken = Instant::now();
            println!("woken {:?} after the send", woken - sender.join().unwrap());
            assert_eq!(port.wait(None).unwrap(), Wake::Frame, "the frame is still there");
            assert_eq!(receive_all(&mut port).len(), 1);
            assert_eq!(port.wait(Some(Duration::from_millis(5))).unwrap(), Wake::Timeout);
        }
    });
}

#[test]
fn frame_never_flushed_leaves_with_the_next_wait() {
    on_each_path(|read| {
        make_tap();
        let mut port = open_linked_tap_by(read);
        let host = host_socket();
        // Queued, never flushed by us: `wait` must not sleep on it.
        port.send(&guest_frame(b"question")).unwrap();
        assert_eq!(port.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Timeout);
        let mut buffer = [0; 64];
        assert_eq!(host.recv(&mut buffer).unwrap(), 8);
    });
}

#[test]
fn port_moves_between_threads_before_its_first_use_only() {
    on_each_path(|read| {
        make_tap();
        let host = host_socket();
        let mut port: Box<dyn FramePort + Send> = Box::new(open_linked_tap_by(read));
        let owner = std::thread::spawn(move || {
            assert!(receive_all(&mut port).is_empty());
            host.send(&payload(1)).unwrap();
            assert_eq!(host_payload(&receive_one(&mut port)), payload(1));
            port
        });
        let mut port = owner.join().unwrap();
        port.send(&guest_frame(b"x")).unwrap();
        let error = port.flush().unwrap_err();
        assert!(matches!(error, PortError::WrongThread { .. }), "{error}");
        assert!(matches!(port.wait(None), Err(PortError::WrongThread { .. })));
    });
}

#[test]
fn frames_too_long_or_too_short_are_counted() {
    on_each_path(|read| {
        make_tap();
        ip("link set tap0 mtu 9000");
        let mut port = open_linked_tap_by(read);
        assert_eq!(port.mtu_bytes(), 9000);
        port.start().unwrap();
        let host = host_socket();
        for length in [8000, 1800, 1472] {
            host.send(&vec![1; length]).unwrap();
        }
        assert_eq!(receive_one(&mut port).len(), 1514);
        assert_eq!(port.stats().rx_oversize, 2);
        port.send(&[0; 13]).unwrap();
        port.send(&[0; FRAME_MAX + 1]).unwrap();
        port.flush().unwrap();
        assert_eq!(port.stats().tx_bad_length, 2);
        assert_eq!(port.stats().tx_frames, 0);
    });
}
