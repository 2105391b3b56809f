//! A VM whose memory is full: a backup needs longer to lay it out than a primary waits for a sign of life.

use std::time::Duration;

use tests::pair::Rig;
use tests::pair::memory::fill;
use tests::wait_for;
use vmm::demo::pair::member::Part;
use vmm::demo::pair::network::Host;
use vmm::pair::event::PairEvent;

const RAM_MIB: &str = "1536";
const RAM_BYTES: u64 = 1536 << 20;

/// The guest uses less, at the beginning of its memory.
const MARGIN: u64 = 128 << 20;

#[test]
fn backup_gives_signs_of_life_while_it_lays_out_its_memory() {
    let rig = Rig::default();
    let memory = ["--memory", RAM_MIB];
    let mut primary = rig.start(Part::Primary, Host::A, &memory);
    wait_for!(primary, PairEvent::TermWon);
    fill(primary.pid(), RAM_BYTES, MARGIN);
    let mut backup = rig.start(Part::Backup, Host::B, &memory);
    wait_for!(backup, PairEvent::Following);
    backup.wait_for_role("following");
    // It says so before it begins, and needs longer than the primary waits for a sign of life.
    std::thread::sleep(Duration::from_millis(10 * rig.silence_ms()));
    backup.wait_for_role("following");
    primary.wait_for_role("protected");
    let losses = primary.count(|event| matches!(event, PairEvent::BackupSilent { .. }));
    assert_eq!(losses, 0, "{}", primary.transcript());
}
