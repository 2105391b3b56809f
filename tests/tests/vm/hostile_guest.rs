//! A guest that attacks the machine: nothing panics, hangs or grows, and the recording replays.

use tests::hostile::{Account, record_and_replay};
use tests::patience::factor;

#[test]
fn replay_of_the_hostile_guest_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    let mut account = Account::default();
    let mut seed = fastrand::u64(..1 << 32);
    // A guest that ends itself, which some do, shows less: another one has to take its place.
    while account.stopped == 0 {
        println!(
            "again: cargo run --release -p tests --bin soak -- --guest hostile --runs 1 --seconds 2 --seed {seed}"
        );
        record_and_replay(&mut account, folder.path(), 2.0 * factor() as f64, seed).unwrap();
        seed += 1;
    }
    println!("{account:?}");
    assert!(account.exits > 20 && account.interrupts > 0, "{account:?}");
}
