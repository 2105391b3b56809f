//! A VM with full memory: its backup takes longer to allocate the memory than the primary's silence
//! timeout.

use std::time::Duration;

use testbed::guest_memory::fill;
use testbed::pair::{Host, PairEvent, Part};
use tests::pair::Rig;
use tests::wait_for;

const RAM_MIB: &str = "1536";
const RAM_BYTES: u64 = 1536 << 20;

/// More than the guest uses at the beginning of its memory.
const MARGIN: u64 = 128 << 20;

#[test]
fn backup_sends_keepalives_while_it_allocates_its_memory() {
    let rig = Rig::alone();
    let memory = ["--memory", RAM_MIB];
    let mut primary = rig.start(Part::Primary, Host::A, &memory);
    wait_for!(primary, PairEvent::TermWon);
    fill(primary.pid(), RAM_BYTES, MARGIN).unwrap();
    let mut backup = rig.start(Part::Backup, Host::B, &memory);
    wait_for!(backup, PairEvent::Following);
    backup.wait_for_role("following");
    // The backup announces the allocation, which takes longer than the primary's silence timeout.
    std::thread::sleep(Duration::from_millis(5 * rig.silence_ms()));
    backup.wait_for_role("following");
    primary.wait_for_role("protected");
    let losses = primary.count(|event| matches!(event, PairEvent::BackupSilent { .. }));
    assert_eq!(losses, 0, "{}", primary.transcript());
}
