#!/usr/bin/env bash
# Builds the Debian package: the program, its service, man pages, completions, an example configuration, the documents.
#
#   scripts/package.sh [--no-build] [--version VERSION] [FOLDER]
#
# FOLDER (default: target/release-files) gets understudy_VERSION_amd64.deb.
#
# --no-build  packs target/release/understudy as it is, and makes the man pages with target/release/manual: for tests.
#             Without it, the program is built as scripts/release.sh does
# --version   another version than the program's: for tests of upgrades
#
# cargo-deb is taken from PATH, or built into target/tools, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }
build=1 version=()
while [[ ${1:-} == -* ]]; do
    case $1 in
    --no-build) build= ;;
    --version) version=(--deb-version "${2:?}"); shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
target=${CARGO_TARGET_DIR:-target}
folder=$(realpath -m "${1:-$target/release-files}")
tools=$(realpath -m "$target/tools/release")
export PATH=$PATH:$tools/bin
command -v cargo-deb >/dev/null || cargo install --quiet --locked --root "$tools" cargo-deb@3.8.0

if [[ $build ]]; then
    scripts/release.sh "$folder"
    cargo build --release --locked --package manual
fi
rm -rf "$target/release/package"
"$target/release/manual" "$target/release/package"
gzip -9n "$target"/release/package/man/*.1
mkdir -p "$folder"
cargo deb --quiet --no-build --no-strip --package vmm "${version[@]}" --output "$folder/"
ls "$folder"/understudy_*.deb
