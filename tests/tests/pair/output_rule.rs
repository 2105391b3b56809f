//! The output rule, checked from outside: no frame of the VM is on the LAN before the backup has
//! acknowledged the log that it depends on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::capture::Capture;
use testbed::pair::{Host, LOG_LINK, PairEvent, Part};
use testbed::{GUEST_ADDRESS, TAP, clients};
use tests::load;
use tests::pair::output_rule::Evidence;
use tests::pair::{Rig, RigOptions};
use tests::patience::patience;
use tests::wait_for;
use vmm::devices::DEFAULT_MAC;

/// Fewest outputs to check.
const OUTPUTS_MIN: usize = 10_000;

#[test]
fn no_output_is_on_the_lan_before_its_log_is_acknowledged() {
    let rig =
        Rig::new(RigOptions { is_insecure: true, turn: tests::alone, ..RigOptions::patient() });
    let (stop, stop_load) = (AtomicBool::new(false), AtomicBool::new(false));
    let (ready_sender, ready) = std::sync::mpsc::channel();
    let (frames_sender, frames) = std::sync::mpsc::channel();
    let mut evidence = Evidence::default();
    std::thread::scope(|scope| {
        let capturing = scope.spawn(|| {
            rig.scene.network.host(Host::A).join().unwrap();
            let capture = Capture::open([LOG_LINK, TAP]).unwrap();
            ready_sender.send(()).unwrap();
            capture.run(&stop, |frame| frames_sender.send(frame).unwrap()).unwrap();
            drop(frames_sender);
        });
        ready.recv_timeout(patience()).unwrap();
        let mut primary = rig.start(Part::Primary, Host::A, &[]);
        wait_for!(primary, PairEvent::TermWon);
        let _backup = rig.start(Part::Backup, Host::B, &[]);
        wait_for!(primary, PairEvent::Protected);
        let client = rig.scene.network.client();
        let counter =
            scope.spawn(|| client.join().and_then(|()| load::counter(GUEST_ADDRESS, &stop_load)));
        let echo = scope.spawn(|| {
            client.join()?;
            while !stop_load.load(Ordering::Relaxed) {
                clients::echo(GUEST_ADDRESS, &[7; 64 << 10])?;
            }
            Ok::<(), testbed::TestbedError>(())
        });
        while evidence.frames() < OUTPUTS_MIN + OUTPUTS_MIN / 10 {
            evidence.take(DEFAULT_MAC, &frames.recv_timeout(patience()).unwrap());
        }
        stop_load.store(true, Ordering::Relaxed);
        counter.join().unwrap().unwrap();
        echo.join().unwrap().unwrap();
        // All outputs have been released and the last acknowledgements have arrived.
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        capturing.join().unwrap();
        assert_eq!(primary.count(|event| matches!(event, PairEvent::BackupSilent { .. })), 0);
    });
    for frame in frames.try_iter() {
        evidence.take(DEFAULT_MAC, &frame);
    }
    let checked = evidence.check();
    println!("{checked:?}");
    assert!(checked.outputs >= OUTPUTS_MIN, "{checked:?}");
    assert_eq!((checked.early, checked.unfounded), (0, 0), "{checked:?}");

    // The check detects a primary that breaks the rule.
    for n in [1, 2, OUTPUTS_MIN / 2] {
        evidence.backdate_frame(n);
    }
    let broken = evidence.check();
    assert_eq!(broken.early, 3, "{broken:?}");
}
