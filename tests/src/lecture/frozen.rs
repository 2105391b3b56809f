//! A primary that is frozen for longer than the silence timeout, and thawed.

use super::screen::Screen;
use crate::pair::{Clients, Rig};
use crate::wait_for;
use nix::sys::signal::Signal;
use std::time::Duration;
use testbed::TestbedError;
use testbed::pair::{Host, PairEvent, Part, Why};

/// Exit code of a host that was replaced.
const REPLACED: i32 = 14;

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    let rig = Rig::default();
    let silence = Duration::from_millis(rig.silence_ms());
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    screen.say(format_args!(
        "Two hosts protect a VM, and clients use it. The process of the primary is stopped (SIGSTOP), as if its host \
         stood\nstill. It is not dead. The silence timeout is {} ms.",
        silence.as_millis()
    ));
    let (outcome, clients) = Clients::during(&rig, |clients| {
        primary.signal(Signal::SIGSTOP);
        wait_for!(backup, PairEvent::PrimarySilent { .. });
        screen.show("host B: has heard nothing for the silence timeout");
        let live = wait_for!(backup, PairEvent::WentLive);
        screen.show(format_args!("host B: wins term {} at the witness, and goes live", live.term));
        clients.wait_until_served();
        screen.show("clients: are served by host B");
        std::thread::sleep(silence);
        screen.say("The old primary continues (SIGCONT). It believes that it is the primary, requests are in its tap, and its VM runs.");
        primary.signal(Signal::SIGCONT);
        let halted = wait_for!(primary, PairEvent::Halted { .. });
        let ended = primary.end();
        screen.show(format_args!("host A: {}", ended.words.last().map_or("", String::as_str)));
        clients.wait_until_served();
        (halted.event, ended)
    });
    let (event, ended) = outcome;
    let is_replaced = matches!(event, PairEvent::Halted { why: Why::Replaced, .. });
    screen.check(
        is_replaced && ended.code == Some(REPLACED),
        format_args!("it has found that its lease is over, asked the witness, and ended (exit code {REPLACED})"),
    )?;
    let hosts = clients.host_sequence();
    screen.check(
        hosts == [Host::A, Host::B],
        "the switch has seen no frame of the VM from host A after the first one from host B",
    )?;
    let tally = clients.counting.tally();
    screen.check(
        tally.lost + tally.repeated == 0,
        format_args!("the client's {} numbers: none lost, none repeated", tally.requests),
    )?;
    screen.figure("exit_code", REPLACED);
    screen.figure("numbers", tally.requests);
    Ok(())
}
