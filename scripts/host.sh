#!/usr/bin/env bash
# Prepares one of the two hosts of a pair, or undoes that. Idempotent; needs root.
#
#   scripts/host.sh up --service NIC --log NIC [--tap NAME] [--bridge NAME] [--log-mac MAC]
#   scripts/host.sh down [--tap NAME] [--bridge NAME]
#
# up    creates a bridge, adds the service NIC (its addresses move to the bridge) and a tap for the VM, and
#       brings the log NIC up without addresses: it carries only the log.
# down  removes the tap and the bridge, if it exists; the service NIC gets its addresses back.
set -euo pipefail

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
fail() {
    echo "host.sh: $*" >&2
    exit 1
}

verb=${1:-}
shift || usage
tap=tap0 bridge=br-understudy service='' log='' log_mac=''
while (($#)); do
    case $1 in
    --service) service=${2:?} ;;
    --log) log=${2:?} ;;
    --tap) tap=${2:?} ;;
    --bridge) bridge=${2:?} ;;
    --log-mac) log_mac=${2:?} ;;
    *) usage ;;
    esac
    shift 2
done

exists() { ip link show dev "$1" >/dev/null 2>&1; }

# Moves IPv4 and IPv6 addresses and the default route from one interface to another.
move_addresses() {
    local from=$1 to=$2 gateway
    gateway=$(ip -4 route show default dev "$from" | awk '{print $3; exit}')
    ip -o addr show dev "$from" scope global | awk '{print $4}' | while read -r address; do
        ip addr del "$address" dev "$from"
        ip addr replace "$address" dev "$to"
    done
    if [[ -n $gateway ]]; then
        ip route replace default via "$gateway" dev "$to"
    fi
}

up() {
    [[ -n $service && -n $log ]] || usage
    exists "$service" || fail "interface $service does not exist: 'ip link' lists those that do"
    exists "$log" || fail "interface $log does not exist: 'ip link' lists those that do"
    [[ $service != "$log" ]] || fail "the log needs its own NIC: give different interfaces for --service and --log"

    exists "$bridge" || ip link add "$bridge" type bridge
    # Ports forward without delay, so that the frames of a VM that goes live get through at once.
    ip link set "$bridge" type bridge stp_state 0 forward_delay 0
    ip link set "$bridge" up
    ip link set "$service" master "$bridge" up
    move_addresses "$service" "$bridge"

    exists "$tap" || ip tuntap add dev "$tap" mode tap
    # No IPv6 address: the host sends no traffic of its own on the VM's tap.
    ip link set "$tap" addrgenmode none
    ip link set "$tap" master "$bridge" up

    [[ -z $log_mac ]] || ip link set "$log" address "$log_mac"
    ip link set "$log" addrgenmode none
    ip link set "$log" up
    echo "host.sh: $bridge holds $service and $tap; the log NIC $log has $(cat "/sys/class/net/$log/address")"
}

down() {
    if exists "$tap"; then ip link del "$tap"; fi
    exists "$bridge" || return 0
    local port
    for port in "/sys/class/net/$bridge/brif/"*; do
        [[ -e $port ]] || continue
        port=$(basename "$port")
        ip link set "$port" nomaster
        move_addresses "$bridge" "$port"
    done
    ip link del "$bridge"
}

case $verb in
up) up ;;
down) down ;;
*) usage ;;
esac
