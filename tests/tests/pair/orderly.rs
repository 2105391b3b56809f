//! An orderly stop of either host is not treated as a failure.

use nix::sys::signal::Signal;
use testbed::pair::{Host, PairEvent, Part, Why};
use tests::pair::{Clients, Rig};
use tests::wait_for;

#[test]
fn orderly_stop_causes_no_failover() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let ((), _clients) = Clients::during(&rig, |clients| {
        backup.signal(Signal::SIGTERM);
        wait_for!(primary, PairEvent::BackupLeft);
        assert_eq!(backup.end().code, Some(0), "{}", backup.transcript());
        clients.wait_until_served();
        primary.wait_for_role("alone");
        assert_eq!(primary.state().term, 1, "no new term was needed");
        backup = rig.start(Part::Backup, Host::B, &[]);
        wait_for!(primary, PairEvent::Protected);
        clients.wait_until_served();
    });
    primary.order("stop");
    for (process, why) in [(&mut primary, Why::Stopped), (&mut backup, Why::PrimaryStopped)] {
        let ended = process.end();
        // A host that waited for the other one to start has printed a line about it.
        let complaints = ended.words.iter().filter(|line| !line.contains("no frame came from"));
        assert_eq!((ended.code, complaints.count()), (Some(0), 0), "{}", process.transcript());
        let halted = wait_for!(process, PairEvent::Halted { .. });
        let PairEvent::Halted { why: reported, .. } = halted.event else { unreachable!("awaited") };
        assert_eq!((reported, halted.term), (why, 1));
        wait_for!(process, PairEvent::Ended { .. });
        assert_eq!(process.count(|event| matches!(event, PairEvent::WentLive)), 0);
    }
}
