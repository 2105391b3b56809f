#!/usr/bin/env bash
# Builds understudy and runs the demonstration: a VM on two hosts (network namespaces of this machine),
# real clients, and kill -9 of the host that the VM runs on, three times by default. Options are those
# of `understudy demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
cargo build --release --locked -p vmm
as_root=()
((EUID == 0)) || as_root=(sudo)
exec "${as_root[@]}" target/release/understudy demo "$@"
