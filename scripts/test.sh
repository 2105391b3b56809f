#!/usr/bin/env bash
# Formatting, dependencies, lints and tests.
#
#   scripts/test.sh          all tests. Needs root, /dev/kvm and /dev/net/tun: without them the end-to-end
#                            tests fail, they do not skip
#   scripts/test.sh --fast   the inner loop: without the tests that need those, and without the documentation
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    --fast) fast=1 ;;
    '') fast= ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
if [[ $fast ]]; then source scripts/install.sh; else source scripts/install.sh --tests; fi

# LTO is off because there are many test programs and LTO would take minutes for each. Release builds
# (scripts/demo.sh) use it.
export CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# Line tables serve profiles. A panic names its line without them.
export CARGO_PROFILE_RELEASE_DEBUG=none

guests=(vmm/guest tests/guests/hard tests/guests/hostile)
features=(--features vmm/host-tests,replication/host-tests,netpath/host-tests,tests/host-tests,bench/host-tests)
[[ ! $fast ]] || features=()
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# The process group that makes the Linux guest's snapshot, and what it prints.
snapshot='' snapshot_log=$(mktemp)
clean_up() {
    if [[ -n $snapshot ]]; then kill -- -"$snapshot" 2>/dev/null || true; fi
    rm -f "$snapshot_log"
}
trap clean_up EXIT

step "formatting"
scripts/format.sh --check

step "dependencies"
scripts/deny.sh

step "build"
# With the tests: what they need besides the program changes some features of its dependencies, so a build
# without them would compile everything twice.
cargo build --release --locked --workspace --all-targets "${features[@]}"
# Fails if logchan or replication link std; see its manifest.
cp Cargo.lock tests/no_std/
cargo build --release --offline --manifest-path tests/no_std/Cargo.toml \
    --target-dir "${CARGO_TARGET_DIR:-target}"

if [[ ! $fast ]]; then
    # Boots Debian's kernel and saves it (minutes where KVM emulates kernel code), unless there is a snapshot
    # that this version can use: the tests start from it. It runs beside the lints, because its one vCPU
    # leaves the other cores idle.
    understudy=$(realpath "${CARGO_TARGET_DIR:-target}/release/understudy")
    set -m
    UNDERSTUDY=$understudy scripts/linux-guest.sh save >"$snapshot_log" 2>&1 &
    snapshot=$!
    set +m
fi

step "lints"
cargo clippy --release --locked --workspace --all-targets "${features[@]}" -- -D warnings
for guest in "${guests[@]}"; do
    cargo clippy --release --locked --manifest-path "$guest/Cargo.toml" \
        --target-dir target/guests -- -D warnings
done

if [[ ! $fast ]]; then
    step "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items --quiet
fi

if [[ ! $fast ]]; then
    step "seed of a Debian guest"
    scripts/debian-guest/test-seed.sh
fi

step "tests"
run_tests() { cargo test --release --locked --workspace "${features[@]}" "$@"; }
if [[ $fast ]]; then
    run_tests
else
    # Tests that start no VM run beside the snapshot's vCPU, too.
    alone=(allocation announce_lan corpus dependencies link ports pure sealed sealed_allocation simulators)
    run_tests --lib --bins "${alone[@]/#/--test=}"

    step "Linux guest"
    result=0
    wait "$snapshot" || result=$?
    snapshot=''
    cat "$snapshot_log"
    ((result == 0)) || exit "$result"

    step "tests with VMs"
    # Every other test program: tests/NAME.rs or tests/NAME/main.rs of a package.
    mapfile -t others < <(find logchan netpath vmm bench tests -path '*/tests/*' \( -path '*/tests/*/main.rs' -o -path '*/tests/*.rs' \) |
        sed -n 's|^.*[^/]/tests/\([a-z_]*\)\(/main\)\?\.rs$|\1|p' | sort -u | grep -vxF -f <(printf '%s\n' "${alone[@]}"))
    run_tests "${others[@]/#/--test=}"
    run_tests --doc
fi
step "done"
