//! An attacker on the log link without the key replays recorded handshakes, or sends as many frames as it can. The pair
//! forms, and its roles do not change.

#![expect(clippy::print_stdout, reason = "the test harness takes it")]

use netpath::MacAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testbed::Namespace;
use testbed::pair::{Host, LOG_LINK, LogSwitch, PairEvent, Part};
use tests::flood::{Flood, Frames, recorded_handshakes};
use tests::pair::{Process, Rig};
use tests::patience::wait_until;
use tests::wait_for;

/// Ends the floods on drop, on every path.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while frames reach both hosts at a rate of `rate_max` each, as if the other one had sent them: `frames`
/// are those sent by each host. Returns the result, and the rates reached.
fn attacked<T>(
    rig: &Rig,
    frames: &[Frames; 2],
    rate_max: u64,
    work: impl FnOnce(&[AtomicU64; 2]) -> T,
) -> (T, [u64; 2]) {
    let (stop, sent) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        let floods = Host::ALL.map(|from| {
            let to: MacAddr = from.other().log_mac().parse().expect("a MAC address");
            let frames = frames[from.index()].clone();
            let flood = Flood { interface: LOG_LINK.into(), source: None, to, frames, rate_max };
            let (sent, stop) = (&sent[from.index()], &stop);
            let network = &rig.scene.network;
            scope.spawn(move || {
                let run = || Ok::<_, testbed::TestbedError>(flood.run(sent, stop));
                network.host(from).enter(run).expect("the namespace can be entered")
            })
        });
        let result = {
            let _stop = StopOnDrop(&stop);
            work(&sent)
        };
        (result, floods.map(|flood| flood.join().expect("a flood ends")))
    })
}

/// Returns whether a role changed or a session ended.
fn is_change(event: &PairEvent) -> bool {
    matches!(
        event,
        PairEvent::BackupSilent { .. }
            | PairEvent::BackupGone { .. }
            | PairEvent::PrimarySilent { .. }
            | PairEvent::PrimaryGone { .. }
            | PairEvent::WentLive
            | PairEvent::Halted { .. }
    )
}

/// Starts a primary and a backup. Returns both, and the time from the start of the backup until the VM was protected.
fn protect(rig: &Rig) -> ([Process; 2], Duration) {
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let began = Instant::now();
    let backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    ([primary, backup], began.elapsed())
}

fn stop_pair([mut primary, mut backup]: [Process; 2]) {
    primary.order("stop");
    for process in [&mut primary, &mut backup] {
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{}", process.transcript());
    }
}

/// An attacker who replays recordings of earlier handshakes, a thousand a second to each host, cannot keep the hosts
/// apart. Without a defence, 20 a second are enough.
#[test]
fn replayed_handshakes_do_not_delay_protection() {
    const RATE: u64 = 1000;
    const REPEATED: u32 = 3;
    let rig = Rig::alone();
    let recorded = recorded_handshakes(&rig.scene.key(), 300);
    let frames = recorded.map(Frames::Recorded);
    let (processes, undisturbed) = protect(&rig);
    stop_pair(processes);
    for _ in 0..REPEATED {
        let ((processes, took), rates) = attacked(&rig, &frames, RATE, |sent| {
            wait_until("a flood", || {
                sent.iter().all(|sent| sent.load(Ordering::Relaxed) > RATE / 2)
            });
            let (mut processes, took) = protect(&rig);
            for process in &mut processes {
                let refused = process.count(|event| matches!(event, PairEvent::PeerRefused { .. }));
                assert_eq!(refused, 0, "{}", process.transcript());
            }
            (processes, took)
        });
        println!(
            "protected after {took:?} with {rates:?} recordings a second, {undisturbed:?} without"
        );
        let silence = Duration::from_millis(rig.silence_ms());
        assert!(took < undisturbed * 2 + silence, "{took:?}, undisturbed {undisturbed:?}");
        stop_pair(processes);
    }
}

/// An attacker behind a switch sends recordings with the addresses of both hosts as their source. So the switch sends
/// frames for a host to the attacker, until that host sends one again.
#[test]
fn stolen_addresses_on_a_switch_do_not_keep_the_hosts_apart() {
    const RATE: u64 = 1000;
    const SILENCES: u32 = 6;
    let rig = Rig::alone();
    let switch = LogSwitch::insert(&rig.scene.network).expect("a switch");
    let attacker = Namespace::new("intruder").expect("a namespace");
    switch.namespace().plug_in("log-x", &attacker, LOG_LINK).expect("a third port");
    attacker.set_up(LOG_LINK, "").expect("an interface");
    attacker.wait_for_carrier(LOG_LINK).expect("a carrier");
    let recorded = recorded_handshakes(&rig.scene.key(), 100);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let ((processes, took), rate) = std::thread::scope(|scope| {
        let floods = Host::ALL.map(|from| {
            let to: MacAddr = from.other().log_mac().parse().expect("a MAC address");
            let source = from.log_mac().parse().expect("a MAC address");
            let frames = Frames::Recorded(recorded[from.index()].clone());
            let (interface, source) = (LOG_LINK.into(), Some(source));
            let flood = Flood { interface, source, to, frames, rate_max: RATE };
            let (sent, stop, attacker) = (&sent, &stop, &attacker);
            scope.spawn(move || {
                let run = || Ok::<_, testbed::TestbedError>(flood.run(sent, stop));
                attacker.enter(run).expect("the namespace can be entered")
            })
        });
        let result = {
            let _stop = StopOnDrop(&stop);
            wait_until("a flood", || sent.load(Ordering::Relaxed) > RATE / 2);
            let (mut processes, took) = protect(&rig);
            std::thread::sleep(Duration::from_millis(rig.silence_ms()) * SILENCES);
            for process in &mut processes {
                assert_eq!(process.count(is_change), 0, "{}", process.transcript());
            }
            (processes, took)
        };
        (result, floods.map(|flood| flood.join().expect("a flood ends")))
    });
    println!(
        "protected after {took:?}, and for {SILENCES} silence timeouts, with {rate:?} frames a second"
    );
    stop_pair(processes);
}

/// Floods both hosts of a protected VM with `frames` for several silence timeouts. Returns how many roles changed or
/// sessions ended, and the rates reached.
fn changes_under(rig: &Rig, frames: Frames, rate_max: u64) -> (usize, [u64; 2]) {
    const SILENCES: u32 = 8;
    let ([mut primary, mut backup], _) = protect(rig);
    let silence = Duration::from_millis(rig.silence_ms());
    let ((), rates) = attacked(rig, &[frames.clone(), frames], rate_max, |_| {
        let until = Instant::now() + silence * SILENCES;
        while Instant::now() < until && !primary.has_ended() && !backup.has_ended() {
            std::thread::sleep(silence / 10);
        }
    });
    let changes = primary.count(is_change) + backup.count(is_change);
    if changes == 0 {
        stop_pair([primary, backup]);
    } else {
        println!("{}\n{}", primary.transcript(), backup.transcript());
    }
    (changes, rates)
}

/// Made-up handshake frames cost no more than any other frames. The rate is one that the hosts bear on a busy machine:
/// the control says whether they do.
#[test]
fn flood_of_handshake_frames_changes_no_role() {
    const RATE_MAX: u64 = 50_000;
    let recorded = |rig: &Rig| {
        let [primary, backup] = recorded_handshakes(&rig.scene.key(), 100);
        Frames::Recorded([primary, backup].concat())
    };
    for (name, is_recorded, frames) in [
        ("junk, the control", false, Frames::Junk),
        ("made-up handshake frames", false, Frames::Handshakes),
        ("recorded handshake frames", true, Frames::Junk),
    ] {
        let rig = Rig::alone();
        let frames = if is_recorded { recorded(&rig) } else { frames };
        let (changes, rates) = changes_under(&rig, frames, RATE_MAX);
        println!("{name}: {changes} changes at {rates:?} frames a second");
        assert_eq!(changes, 0, "{name} at {rates:?} frames a second");
    }
}
