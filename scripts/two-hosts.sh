#!/usr/bin/env bash
# Sets up a pair on two emulated machines by docs/deployment.md, breaks them, and says what a client noticed.
#
#   scripts/two-hosts.sh [--nic MODEL] [--silence MS] [--steps LIST] [--binaries FOLDER] [--keep FOLDER]
#
# Machines A and B have SVM, by QEMU, and a NIC each on the LAN and on the log link. A third machine, a network namespace
# of this one, has the client (ping, and one TCP connection to the reference guest's counter) and etcd, the witness.
#
#   --nic MODEL         virtio-net (default) or e1000e: model of all NICs
#   --silence MS        silence timeout (default: 3000)
#   --steps LIST        what happens (default: power,log,lan), with commas, in this order:
#                       power   the primary's machine loses power, and is switched on again
#                       log     the log link passes no frames, and then does again
#                       cable   the cable of the log link is pulled, and plugged in again
#                       freeze  the primary's machine stands still, and goes on when the other one has taken over
#                       lan     the primary's cable to the LAN is pulled, and plugged in again
#   --binaries FOLDER   take the programs from FOLDER instead of building them
#   --keep FOLDER       copy messages, consoles and what the client received to FOLDER
#
# Exit code 1: the client lost something, or a step did not end as docs/operations.md says. Needs root and etcd
# (scripts/install.sh --tests). Takes 2 to 5 minutes (docs/hosts.md); the kernel of the first run is 110 MB.
set -euo pipefail
export LC_ALL=C
# shellcheck source-path=SCRIPTDIR/.. disable=SC2034 # The parts use the variables.
repository=$(cd "$(dirname "$0")/.." && pwd)
parts=$repository/scripts/emulated-host
cache=${XDG_CACHE_HOME:-$HOME/.cache}/understudy/hosts
kind=two-hosts paging=1

fail() { # EXIT_CODE MESSAGE...
    local code=$1
    shift
    echo "two-hosts.sh: $*" >&2
    exit "$code"
}
say() { echo "two-hosts.sh: $*" >&2; }
usage() { sed -n '2,23s/^# \{0,1\}//p' "$0"; }

nic=virtio-net silence=3000 steps=power,log,lan binaries='' keep=''
while (($#)); do
    case $1 in
    --nic) nic=${2:-} ;;
    --silence) silence=${2:-} ;;
    --steps) steps=${2:-} ;;
    --binaries) binaries=${2:-} ;;
    --keep) keep=${2:-} ;;
    -h | --help) usage; exit ;;
    *) fail 2 "'$1' is no option: see --help" ;;
    esac
    (($# > 1)) || fail 2 "$1 needs a value"
    shift 2
done
[[ $nic == virtio-net || $nic == e1000e ]] || fail 2 "give virtio-net or e1000e for --nic, not '$nic'"
[[ $silence =~ ^[1-9][0-9]{2,4}$ && $silence -le 60000 ]] || fail 2 "give milliseconds from 100 to 60000 for --silence, not '$silence'"
[[ $steps =~ ^(power|log|cable|freeze|lan)(,(power|log|cable|freeze|lan))*$ ]] || fail 2 "give steps with commas for --steps (power, log, cable, freeze, lan), not '$steps'"
((EUID == 0)) || fail 1 "it makes network namespaces and taps: run it as root"
command -v etcd >/dev/null || fail 1 "etcd is missing: run scripts/install.sh --tests"
[[ $(uname -m) == x86_64 ]] || fail 1 "the emulated machines run this machine's programs, so this machine must be amd64, not $(uname -m)"

# shellcheck source=scripts/emulated-host/packages.sh
source "$parts/packages.sh"
# shellcheck source=scripts/emulated-host/image.sh
source "$parts/image.sh"
# shellcheck source=scripts/emulated-host/svm.sh
source "$parts/svm.sh"
# shellcheck source=scripts/two-hosts/machine.sh
source "$repository/scripts/two-hosts/machine.sh"
# shellcheck source=scripts/two-hosts/third.sh
source "$repository/scripts/two-hosts/third.sh"
# shellcheck source=scripts/two-hosts/deploy.sh
source "$repository/scripts/two-hosts/deploy.sh"
# shellcheck source=scripts/two-hosts/steps.sh
source "$repository/scripts/two-hosts/steps.sh"

mkdir -p "$cache"
work=$(mktemp -d "$cache/run.XXXXXX")
space=two-hosts-$$
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_packages
prepare_emulator
prepare_kernel linux-image-amd64 kernel-amd64
if [[ -z $binaries ]]; then
    (cd "$repository" && cargo build --release --locked --quiet -p vmm) || fail 1 "the program does not build"
    binaries=${CARGO_TARGET_DIR:-$repository/target}/release
fi
make_initramfs "$(cat "$repository/scripts/two-hosts/agent.sh")" virtio_pci virtio_net e1000e 9pnet_virtio 9p
describe_machine

make_network
start_witness
switch_on A B
deploy
start_client
for step in ${steps//,/ }; do run_step "$step"; done
stop_pair
report
