#!/usr/bin/env bash
# Formatting, lints and tests.
#
#   scripts/test.sh          all tests. Needs root, /dev/kvm and /dev/net/tun: without them the end-to-end
#                            tests fail, they do not skip
#   scripts/test.sh --fast   the inner loop: without the tests that need those, and without the documentation
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    --fast) fast=1 ;;
    '') fast= ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
if [[ $fast ]]; then source scripts/install.sh; else source scripts/install.sh --tests; fi

# There are many test programs, and each would be optimised as a whole: minutes for nothing. What ships
# (scripts/demo.sh) is built with it.
export CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

guests=(vmm/guest tests/guests/hard)
features=(--features vmm/host-tests,netpath/host-tests,tests/host-tests,bench/host-tests)
step() { printf '\n== %s\n' "$*"; }

step "formatting"
cargo fmt --all --check
for guest in "${guests[@]}"; do cargo fmt --manifest-path "$guest/Cargo.toml" --check; done

step "lints"
cargo clippy --release --locked --workspace --all-targets "${features[@]}" -- -D warnings
for guest in "${guests[@]}"; do
    cargo clippy --release --locked --manifest-path "$guest/Cargo.toml" \
        --target-dir target/guests -- -D warnings
done

if [[ $fast ]]; then
    step "tests without root and KVM"
    cargo test --release --locked --workspace
    exit
fi

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items --quiet

step "build"
cargo build --release --locked --workspace "${features[@]}"

step "Linux guest"
# Boots Debian's kernel and saves it (minutes where KVM emulates kernel code), unless there is a snapshot
# that this version can use: the tests start from it.
UNDERSTUDY=${CARGO_TARGET_DIR:-target}/release/understudy
UNDERSTUDY=$(realpath "$UNDERSTUDY") scripts/linux-guest.sh save

step "tests"
cargo test --release --locked --workspace "${features[@]}"
