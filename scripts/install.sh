#!/usr/bin/env bash
# Installs the packages that a fresh Debian machine lacks to build, run and test understudy. Idempotent.
# Sourced or run by demo.sh and test.sh. Needs root for apt-get only if a package is missing.
#
#   scripts/install.sh [--tests]    with --tests, also the packages that only tests need
set -euo pipefail

declare -A package_of=(
    [cc]=gcc [ip]=iproute2 [ping]=iputils-ping [curl]=curl [setpriv]=util-linux
    [script]=bsdutils [chrt]=util-linux [tcpdump]=tcpdump
)
if [[ ${1:-} == --tests ]]; then
    # For bench peers. Without recommended packages it installs no display and no sound.
    package_of[qemu-system-x86_64]=qemu-system-x86
    # Makes and checks qcow2 images.
    package_of[qemu-img]=qemu-utils
    # Block devices from files.
    package_of[losetup]=mount
    # Man pages are checked with it.
    package_of[groff]=groff-base
    # For tests with wrong wall clocks.
    package_of[faketime]=faketime
    # Makes the seed of a Debian guest.
    package_of[xorriso]=xorriso
    # Clients of a Linux guest.
    package_of[redis-cli]=redis-tools
    package_of[redis-benchmark]=redis-tools
    # Reads the database on the disk of a Linux guest.
    package_of[sqlite3]=sqlite3
    # For etcd as a witness, with certificates. The tests start servers of their own.
    package_of[etcd]=etcd-server
    package_of[openssl]=openssl
    # Scrapes the metrics, and checks alert rules.
    package_of[prometheus]=prometheus
    package_of[promtool]=prometheus
fi
declare -A wanted=()
for command in "${!package_of[@]}"; do
    command -v "$command" >/dev/null || wanted[${package_of[$command]}]=1
done
if [[ ${1:-} == --tests ]] && ! python3 -c 'import jsonschema' 2>/dev/null; then
    # Checks what commands print against the schemas of docs/schema.
    wanted[python3-jsonschema]=1
fi
missing=("${!wanted[@]}")
if ((${#missing[@]})); then
    echo "installing ${missing[*]}"
    apt-get update -qq
    (
        # No package starts a service, for example etcd: invoke-rc.d(8) asks this program.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    )
fi

if ! command -v cargo >/dev/null; then
    [[ -x $HOME/.cargo/bin/cargo ]] || {
        echo "cargo is missing: install rustup, which installs the pinned Rust (https://rustup.rs)" >&2
        exit 1
    }
    export PATH=$HOME/.cargo/bin:$PATH
fi
