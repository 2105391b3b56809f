#!/usr/bin/env bash
# Formats all Rust code, or with --check says what is not formatted: the workspace, the crates outside it, and
# the folders of the devices, which cargo fmt does not find because a macro declares them.
#
#   scripts/format.sh [--check]
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    '' | --check) ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
cargo fmt --all -- "$@"
for crate in vmm/guest tests/guests/hard tests/guests/hostile tests/no_std; do cargo fmt --manifest-path "$crate/Cargo.toml" -- "$@"; done
rustfmt --edition 2024 "$@" vmm/src/devices/*/mod.rs
