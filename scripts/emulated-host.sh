#!/usr/bin/env bash
# Boots a host whose processor is emulated, runs a command on it as root, and ends with the command's exit code.
#
#   scripts/emulated-host.sh svm [--npt 0] [OPTIONS] [-- COMMAND...]    an AMD host with SVM, in QEMU
#   scripts/emulated-host.sh vmx [--ept 0] [OPTIONS] [-- COMMAND...]    an Intel host with VMX, in Bochs
#
# COMMAND (default: understudy doctor) is a line for bash. Its output is printed. The host has Debian's kernel with its
# kvm module, busybox, ip, ping, curl, redis-cli and redis-benchmark where this machine has them, and understudy, soak
# and pair-soak.
#
#   --npt 0, --ept 0    KVM makes shadow page tables instead of nested ones
#   --limit SECONDS     end the host if the command takes longer (default: 600); exit code 124
#   --binaries FOLDER   take the programs from FOLDER instead of building them
#   --disk FILE         with svm: FILE, a raw image, is a disk of the host (/dev/vda, the next one /dev/vdb), which may write it
#   --files FOLDER      copy FOLDER to the host, where the command starts (as ./NAME OF FOLDER)
#   --keep FILE         copy what the host's console showed to FILE
#
# Packages, the kernel and the built emulator stay in ~/.cache/understudy/hosts; delete that folder for newer ones.
# HOST_SUITE is the Debian suite that they are of (default: trixie). The first run takes minutes; VMX builds Bochs.
# docs/hosts.md says what such hosts can show. Needs root only if a package is missing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. disable=SC2034 # The parts use the variables.
repository=$(cd "$(dirname "$0")/.." && pwd)
parts=$repository/scripts/emulated-host
cache=${XDG_CACHE_HOME:-$HOME/.cache}/understudy/hosts

fail() { # EXIT_CODE MESSAGE...
    local code=$1
    shift
    echo "emulated-host.sh: $*" >&2
    exit "$code"
}
say() { echo "emulated-host.sh: $*" >&2; }
usage() { sed -n '2,21s/^# \{0,1\}//p' "$0"; }

kind=${1:-}
case $kind in
svm | vmx) shift ;;
-h | --help) usage; exit ;;
*) usage >&2; exit 2 ;;
esac
paging=1 limit=600 binaries='' files='' keep='' disks=()
while (($#)) && [[ $1 != -- ]]; do
    case $kind$1 in
    svm--npt | vmx--ept) paging=${2:-} ;;
    *--limit) limit=${2:-} ;;
    *--binaries) binaries=${2:-} ;;
    svm--disk)
        [[ -f ${2:-} ]] || fail 2 "--disk: ${2:-} is no file"
        disks+=("$2")
        ;;
    *--files) files=${2:-} ;;
    *--keep) keep=${2:-} ;;
    *) fail 2 "$1 is no option of $kind: see --help" ;;
    esac
    (($# > 1)) || fail 2 "$1 needs a value"
    shift 2
done
[[ $paging == [01] ]] || fail 2 "give 0 or 1 for --npt and --ept, not '$paging'"
[[ $limit =~ ^[1-9][0-9]{0,5}$ ]] || fail 2 "give seconds from 1 to 999999 for --limit, not '$limit'"
[[ -z $files || -d $files ]] || fail 2 "--files: $files is no folder"
[[ ${1:-} != -- ]] || shift
command_line=${*:-understudy doctor}

# shellcheck source=scripts/emulated-host/packages.sh
source "$parts/packages.sh"
# shellcheck source=scripts/emulated-host/image.sh
source "$parts/image.sh"
# shellcheck source=scripts/emulated-host/run.sh
source "$parts/run.sh"
# shellcheck source=/dev/null
source "$parts/$kind.sh"

[[ $(uname -m) == x86_64 ]] || fail 1 "the emulated processors run Debian's kernel for amd64 and this machine's programs, so this machine must be amd64, not $(uname -m)"
mkdir -p "$cache"
work=$(mktemp -d "$cache/run.XXXXXX")
emulator='' reader=''
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_packages
prepare_emulator
prepare_kernel linux-image-cloud-amd64 kernel
if [[ -z $binaries ]]; then
    (cd "$repository" && cargo build --release --locked --quiet -p vmm -p tests --bins) || fail 1 "the programs do not build"
    binaries=${CARGO_TARGET_DIR:-$repository/target}/release
fi
make_initramfs "$command_line" ${disks[@]:+virtio_blk}
start_emulator
follow_console
