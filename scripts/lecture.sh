#!/usr/bin/env bash
# Builds understudy and plays scenes of a lecture on fault tolerance, each of which checks what it shows: by default all
# of them. docs/lecture/README.md says what to say.
#
#   scripts/lecture.sh [SCENE...] [--list] [--json]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
# The program that plays the scenes starts the other one, and expects it beside itself.
cargo build --release --locked -p vmm -p tests --bin understudy --bin lecture
as_root=()
((EUID == 0)) || as_root=(sudo)
exec "${as_root[@]}" "${CARGO_TARGET_DIR:-target}/release/lecture" "$@"
