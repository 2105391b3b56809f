//! Memory of the backup breaks: that is noticed, healed, and no client's business.

use tests::pair::memory::flip_bits;
use tests::pair::{Clients, Rig};
use tests::wait_for;
use vmm::demo::pair::member::Part;
use vmm::demo::pair::network::Host;
use vmm::pair::event::PairEvent;

/// Part of every page's header, as the guest has it among its constants.
const CONSTANT: &[u8] = b"Cache-Control";

/// Guest memory of a pair unless told otherwise.
const RAM_BYTES: u64 = 64 << 20;

#[test]
fn broken_memory_of_a_backup_is_noticed_and_healed() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected { .. });
    let ((), clients) = Clients::during(&rig, |clients| {
        wait_for!(backup, PairEvent::Following);
        // The next page that the guest there makes has one letter that is wrong.
        assert!(flip_bits(backup.pid(), RAM_BYTES, CONSTANT) > 0, "the guest has changed");
        wait_for!(backup, PairEvent::Diverged);
        wait_for!(primary, PairEvent::BackupLeft);
        wait_for!(primary, PairEvent::Protected { .. });
        wait_for!(backup, PairEvent::Following);
        let pages = clients.traffic.seen().pages;
        while clients.traffic.seen().pages < pages + 8 {
            clients.wait_until_served();
        }
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
    assert_eq!(backup.figure("divergences"), 1.0);
    backup.wait_for_role("following");
    assert_eq!(primary.state().term, 1, "nobody had to be asked");
    let words = backup.words().join("\n");
    assert!(words.contains("this VM diverged from the primary's"), "{words}");
}
