//! A pair protects a guest that attacks the machine, and moves it to the other host when one is killed.

use tests::hostile::{Account, protect};
use tests::pair::{Rig, RigOptions};

#[test]
fn hostile_guest_survives_a_takeover_without_a_divergence() {
    let mut account = Account::default();
    let mut seed = fastrand::u64(..1 << 32);
    // A guest that ends itself, which some do, shows less: another one has to take its place.
    while account.stopped == 0 {
        println!(
            "again: cargo run --release -p tests --bin soak -- --guest hostile --runs 1 --seconds 2 --seed {seed}"
        );
        let rig = Rig::new(RigOptions { turn: tests::alone, ..RigOptions::patient() });
        protect(&mut account, &rig, 1.0, seed).unwrap();
        seed += 1;
    }
    println!("{account:?}");
}
