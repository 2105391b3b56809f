//! The output rule: the primary is killed between making and releasing an output.

use super::screen::Screen;
use crate::pair::output_rule::{Evidence, LoggedOutput};
use crate::pair::{Process, Rig, RigOptions};
use crate::patience::{Waiting, patience};
use crate::wait_for;
use crossbeam::channel::{self, Receiver, Sender};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use testbed::capture::{Capture, Captured};
use testbed::clients::{Counter, REFERENCE_COUNTER, StopOnDrop};
use testbed::pair::{Host, LOG_LINK, PairEvent, Part};
use testbed::{GUEST_ADDRESS, TAP, TestbedError};
use vmm::devices::DEFAULT_MAC;
use xxhash_rust::xxh3::xxh3_64;

/// Requests that are answered before anything happens.
const BEFORE: u64 = 3;

/// For this long nothing is asked after the backup was frozen: its last acknowledgements arrive.
const SETTLE: Duration = Duration::from_millis(100);

/// What the captures of both hosts have seen.
struct Captures {
    /// Log link and tap of host A.
    evidence: Evidence,
    /// Digests of the VM's frames at the tap of host B.
    sent_by_b: BTreeSet<u64>,
    frames: [Receiver<Captured>; 2],
}

impl Captures {
    fn poll(&mut self) {
        for frame in self.frames[0].try_iter() {
            self.evidence.take(DEFAULT_MAC, &frame);
        }
        let is_of_vm = |frame: &Captured| {
            frame.interface == 1 && !frame.is_outgoing && frame.bytes[6..12] == DEFAULT_MAC.octets()
        };
        let frames = self.frames[1].try_iter().filter(is_of_vm);
        self.sent_by_b.extend(frames.map(|frame| xxh3_64(&frame.bytes)));
    }
}

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    screen.say(
        "Two hosts protect a VM. The log is not encrypted here, so that a capture can read it. A client counts on one \
         TCP\nconnection: the answer to each request is the next number.",
    );
    let rig = Rig::new(RigOptions { is_insecure: true, ..RigOptions::patient() });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let (ready, is_ready) = channel::bounded(2);
        let frames = Host::ALL.map(|host| {
            let ((sender, frames), ready) = (channel::unbounded(), ready.clone());
            let (rig, stop) = (&rig, &stop);
            scope.spawn(move || capture(rig, host, (&ready, &sender), stop));
            frames
        });
        for _host in Host::ALL {
            let opened = is_ready.recv_timeout(patience());
            opened.map_err(|_| TestbedError::Wrong("no capture could be opened".into()))?;
        }
        let evidence = Evidence::default();
        let mut captures = Captures { evidence, sent_by_b: BTreeSet::new(), frames };
        let mut primary = rig.start(Part::Primary, Host::A, &[]);
        wait_for!(primary, PairEvent::TermWon);
        let backup = rig.start(Part::Backup, Host::B, &[]);
        wait_for!(primary, PairEvent::Protected);
        let mut counter = rig
            .scene
            .network
            .client()
            .enter(|| Counter::connect_to(&REFERENCE_COUNTER, GUEST_ADDRESS, patience()))?;
        for _request in 0..BEFORE {
            let number = counter.ask()?;
            screen.show(format_args!("client: asks, and is answered {number}"));
        }
        kill_while_an_output_waits(screen, [primary, backup], (counter, &mut captures))
    })
}

/// Captures the log link and the tap of `host` until `stop`.
fn capture(
    rig: &Rig,
    host: Host,
    (ready, sender): (&Sender<()>, &Sender<Captured>),
    stop: &AtomicBool,
) -> Result<(), TestbedError> {
    rig.scene.network.host(host).join()?;
    let capture = Capture::open([LOG_LINK, TAP])?;
    let _ = ready.send(());
    capture.run(stop, |frame| drop(sender.send(frame)))
}

fn kill_while_an_output_waits(
    screen: &mut Screen,
    [mut primary, mut backup]: [Process; 2],
    (mut counter, captures): (Counter, &mut Captures),
) -> Result<(), TestbedError> {
    screen.say("The process of the backup is stopped (SIGSTOP): it acknowledges nothing. The client asks again.");
    backup.signal(Signal::SIGSTOP);
    std::thread::sleep(SETTLE);
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || counter.ask());
        let waiting = Waiting::default();
        loop {
            captures.poll();
            if captures.evidence.outputs().iter().any(LoggedOutput::waits) {
                break;
            }
            waiting.pause(|| String::from("an output that waits"));
        }
        primary.signal(Signal::SIGKILL);
        primary.end();
        std::thread::sleep(SETTLE);
        captures.poll();
        let outputs = captures.evidence.outputs();
        let waited: Vec<_> = outputs.iter().filter(|output| output.waits()).collect();
        let on_lan = outputs.iter().filter(|output| output.is_on_lan).count();
        screen.say(
            "The primary has taken the request, computed the answer, and sent the log. It waits for the acknowledgement. \
             Then it is\nkilled (SIGKILL). What a capture on its host has seen:",
        );
        for output in outputs.iter().rev().take(4).rev() {
            screen.show(format_args!("log: {output}"));
        }
        screen.check(
            !waited.is_empty() && waited.iter().all(|output| !output.is_on_lan),
            format_args!(
                "outputs that were made and logged, and are not on the LAN: {}",
                waited.len()
            ),
        )?;
        let early = captures.evidence.check().early;
        screen.check(
            early == 0,
            format_args!("the {on_lan} outputs that are on the LAN left after the acknowledgement of their log"),
        )?;
        screen.check(!asking.is_finished(), "the client has no answer")?;
        screen.say("The backup continues (SIGCONT). The log is in its socket: it executes it, wins the term, and goes live.");
        backup.signal(Signal::SIGCONT);
        let live = wait_for!(backup, PairEvent::WentLive);
        let number = asking.join().expect("the client does not panic")?;
        screen.show(format_args!("host B: live in term {}", live.term));
        screen.show(format_args!("client: is answered {number}, on the same connection"));
        screen.check(number == BEFORE + 1, "no number is lost, none is repeated")?;
        let waiting = Waiting::default();
        let is_sent = |captures: &Captures, output: &LoggedOutput| {
            captures.sent_by_b.contains(&output.digest)
        };
        while !waited.iter().all(|output| is_sent(captures, output)) {
            captures.poll();
            waiting.pause(|| String::from("the outputs of the dead primary, from host B"));
        }
        screen.check(true, "host B has sent the outputs of the dead primary, byte for byte")?;
        screen.figure("outputs_released", on_lan);
        screen.figure("outputs_waiting", waited.len());
        screen.figure("early", early);
        screen.figure("number", number);
        Ok(())
    })
}
