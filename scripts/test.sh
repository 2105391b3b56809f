#!/usr/bin/env bash
# Runs formatting checks, lints and all tests. Needs root, /dev/kvm and /dev/net/tun: without them the
# end-to-end tests fail; they do not skip.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh --tests

# LTO is off because there are many test programs and LTO would take minutes for each. Release builds
# (scripts/demo.sh) use it.
export CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

guests=(vmm/guest tests/guests/hard)
step() { printf '\n== %s\n' "$*"; }

step "formatting"
cargo fmt --all --check
for guest in "${guests[@]}"; do cargo fmt --manifest-path "$guest/Cargo.toml" --check; done

step "lints"
cargo clippy --release --locked --workspace --all-targets -- -D warnings
for guest in "${guests[@]}"; do
    cargo clippy --release --locked --manifest-path "$guest/Cargo.toml" \
        --target-dir target/guests -- -D warnings
done

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items --quiet

step "build"
cargo build --release --locked --workspace

step "Linux guest"
# The tests start from this snapshot. Booting and saving Debian's kernel takes minutes where KVM
# emulates kernel code, and is skipped if there is a snapshot that this version can restore.
UNDERSTUDY=${CARGO_TARGET_DIR:-target}/release/understudy
UNDERSTUDY=$(realpath "$UNDERSTUDY") scripts/linux-guest.sh save

step "tests"
cargo test --release --locked --workspace
