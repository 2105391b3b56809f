#!/usr/bin/env bash
# Builds understudy and shows it at work. Options are those of `understudy demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
cargo build --release --locked -p vmm
exec target/release/understudy demo "$@"
