//! Corrupted memory of the backup is detected and repaired, and clients do not notice.

use testbed::guest_memory::{DEFAULT_BYTES, flip_bits};
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::{Clients, Rig};
use tests::wait_for;

/// A constant of the guest: part of every web page's header.
const CONSTANT: &[u8] = b"Cache-Control";

#[test]
fn corrupted_backup_memory_is_detected_and_repaired() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
    let (record, clients) = Clients::during(&rig, |clients| {
        wait_for!(backup, PairEvent::Following);
        // The next page that the backup's guest generates has one wrong letter.
        assert!(
            flip_bits(backup.pid(), DEFAULT_BYTES, CONSTANT).unwrap() > 0,
            "the guest does not contain the constant any more"
        );
        let diverged =
            backup.next("a divergence", |event| matches!(event, PairEvent::Diverged { .. }));
        wait_for!(primary, PairEvent::BackupLeft);
        wait_for!(primary, PairEvent::Protected);
        wait_for!(backup, PairEvent::Following);
        let pages = clients.traffic.seen().pages;
        while clients.traffic.seen().pages < pages + 8 {
            clients.wait_until_served();
        }
        diverged.event
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
    assert_eq!(backup.figure("divergences"), 1.0);
    backup.wait_for_role("following");
    assert_eq!(primary.state().term, 1, "no new term was needed");
    // The status, the event log and the message all say what was expected and what was found.
    let status = backup.status();
    let divergence = &status["last_divergence"];
    let expected = divergence["expected"].as_str().expect("what the log has");
    let found = divergence["found"].as_str().expect("what the machine did");
    assert!(expected.starts_with("output") || expected.starts_with("exit"), "{divergence}");
    assert!(divergence["log_position"].as_u64() > Some(0), "{divergence}");
    assert!(divergence["natural_exits"].as_u64() > Some(0), "{divergence}");
    let as_text = (expected.to_owned(), found.to_owned());
    assert_eq!(record, PairEvent::Diverged { expected: as_text.0, found: as_text.1 });
    backup.wait_for_words("this VM diverged from the primary's");
    let words = backup.words().join("\n");
    assert!(words.contains(expected) && words.contains(found), "{words}");
}
