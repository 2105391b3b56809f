//! The log link of a real pair is cut while both hosts are alive.

use super::screen::Screen;
use crate::pair::{Clients, Couple, Rig};
use crate::patience::Waiting;
use testbed::TestbedError;
use testbed::pair::{Host, LOG_LINK};

pub(super) fn play(screen: &mut Screen) -> Result<(), TestbedError> {
    let rig = Rig::default();
    let mut couple = Couple::start(&rig);
    screen.say(
        "Two hosts protect a VM, and clients use it. The log link between the hosts is cut; both hosts live, and both \
         reach the\nLAN and the witness. Each of them must take the other one for dead, and each claims term 2.",
    );
    let (outcome, clients) = Clients::during(&rig, |clients| {
        rig.ip(Host::A, &format!("link set {LOG_LINK} down"));
        let waiting = Waiting::default();
        let wins = |couple: &mut Couple<'_>, host| {
            let state = couple.on(host).expect("nobody has stopped it").state();
            state.holds_term && state.term == 2
        };
        let winners = loop {
            let winners = Host::ALL.map(|host| wins(&mut couple, host));
            if winners != [false; 2] {
                break winners;
            }
            waiting.pause(|| String::from("a host that wins term 2"));
        };
        let winner = if winners[0] { Host::A } else { Host::B };
        let loser = couple.on(winner.other()).expect("nobody has stopped it");
        let what = match winner {
            Host::A => {
                loser.wait_for_role("seeking");
                "host B: has lost the claim; it drops its VM and looks for a primary"
            }
            Host::B => {
                loser.end();
                "host A: has lost the claim; it stops its VM and ends"
            }
        };
        screen.show(format_args!("host {winner}: has won term 2, and continues the VM"));
        screen.show(what);
        clients.wait_until_served();
        screen.show(format_args!("clients: are served by host {winner}"));
        // Once more, later: the loser must not have won since.
        let is_one =
            Host::ALL.map(|host| couple.on(host).is_some_and(|process| process.state().holds_term));
        (winner, winners, is_one)
    });
    let (winner, winners, holding) = outcome;
    let claims = claims(&rig)?;
    screen.say("The witness is a folder that both hosts reach. A claim is a hard link: it exists, or it does not.");
    for claim in &claims {
        screen.show(format_args!("witness: {claim}"));
    }
    let is_one = |holding: [bool; 2]| holding.iter().filter(|&&holds| holds).count() == 1;
    screen.check(is_one(winners) && is_one(holding), "exactly one host holds the newest term")?;
    let hosts = clients.host_sequence();
    let expected: &[Host] = match winner {
        Host::A => &[Host::A],
        Host::B => &[Host::A, Host::B],
    };
    screen
        .check(hosts == expected, "the switch has seen the VM's frames from one host at a time")?;
    let tally = clients.counting.tally();
    screen.check(
        tally.lost + tally.repeated + tally.resets == 0,
        format_args!("the client's {} numbers: none lost, none repeated, no reset", tally.requests),
    )?;
    screen.figure("winner", winner.to_string());
    screen.figure("claims", claims);
    Ok(())
}

/// Returns the names of the claims in the witness's folder.
fn claims(rig: &Rig) -> Result<Vec<String>, TestbedError> {
    let failed = TestbedError::client("reading the witness's folder");
    let files = std::fs::read_dir(rig.scene.witness()).map_err(failed)?;
    let names = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("vm-")).collect();
    names.sort();
    Ok(names)
}
