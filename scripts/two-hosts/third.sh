# shellcheck shell=bash disable=SC2034,SC2154 # Sourced by two-hosts.sh, which sets and uses the variables.
#
# The third machine: a network namespace with the switches of the LAN and of the log link, etcd and the client.

# Processes that end with the script, besides the emulators. Each is started by `ip netns exec`, whose number it takes; with
# on_third the number would be that of a shell, and the process would outlive it.
processes=()
client_ping='' client_counter=''

on_third() { ip netns exec "$space" "$@"; }

# Makes the namespace, its switches and the taps of the machines; sets `nics`, options of the emulator in which HOST stands
# for the machine's number.
make_network() {
    local switch host
    ip netns add "$space"
    on_third ip link set lo up
    for switch in lan log; do
        on_third ip link add "$switch" type bridge stp_state 0 forward_delay 0
        for host in 1 2; do
            on_third ip tuntap add dev "$switch$host" mode tap
            on_third ip link set "$switch$host" master "$switch" up
        done
        on_third ip link set "$switch" addrgenmode none up
    done
    on_third ip addr add 10.0.0.5/24 dev lan
    on_third ip addr add 10.77.0.1/24 dev lan
    local device=$nic-pci
    [[ $nic != e1000e ]] || device=e1000e
    nics=(
        -netdev "tap,id=service,ifname=lanHOST,script=no,downscript=no"
        -device "$device,netdev=service,mac=52:54:00:00:01:0HOST,romfile=,addr=5"
        -netdev "tap,id=log,ifname=logHOST,script=no,downscript=no"
        -device "$device,netdev=log,mac=52:54:00:00:02:0HOST,romfile=,addr=6"
    )
}

# Starts etcd with the settings of docs/deployment.md, "etcd as the witness".
start_witness() {
    ip netns exec "$space" env ETCD_LISTEN_CLIENT_URLS="http://10.0.0.5:2379" ETCD_ADVERTISE_CLIENT_URLS="http://10.0.0.5:2379" \
        etcd --data-dir "$work/etcd" >"$work/etcd.txt" 2>&1 </dev/null &
    processes+=($!)
}

# Asks the counter of the guest every 100 ms on one connection, and prints the time and the number of each answer. Prints
# the time and "reset" when the connection ends or can't be made.
count() {
    local connection line
    exec {connection}<>"/dev/tcp/10.77.0.2/7000" || connection=''
    while [[ $connection ]] && printf 'next\n' >&"$connection" && IFS= read -r line <&"$connection"; do
        echo "$EPOCHREALTIME ${line##* }"
        sleep 0.1
    done
    echo "$EPOCHREALTIME reset"
}

# Starts ping and the counter's client.
start_client() {
    : >"$work/counter.txt"
    ip netns exec "$space" stdbuf -oL ping -n -D -i 0.1 10.77.0.2 >"$work/ping.txt" 2>&1 </dev/null &
    client_ping=$!
    ip netns exec "$space" bash -c "$(declare -f count); count" >"$work/counter.txt" 2>&1 </dev/null &
    client_counter=$!
    processes+=("$client_ping" "$client_counter")
    wait_until "$(hang_limit)" "the client has 20 answers" has_answers 20 0
    say "the guest answers in $(awk 'NR > 1 { print $1 - last - 0.1 } { last = $1 }' "$work/counter.txt" | sort -n | sed -n '10p' | awk '{ printf "%.0f", $1 * 1000 }') ms (median of 20)"
}

# Whether the counter's client has had $1 answers after time $2, or has failed.
has_answers() {
    awk -v wanted="$1" -v from="$2" '$1 > from { n++ } $2 == "reset" { n = wanted } END { exit n < wanted }' "$work/counter.txt"
}

# Prints the times of all echo replies, of all answers of the counter.
times_of() {
    case $1 in
    ping) sed -n 's/^\[\([0-9.]*\)\] .* bytes from .*/\1/p' "$work/ping.txt" ;;
    counter) awk '$2 != "reset" { print $1 }' "$work/counter.txt" ;;
    esac
}

# Prints the longest time between two replies to client $1, of those that include time $2 or are later, seconds.
longest_gap() {
    times_of "$1" | awk -v from="$2" '$1 >= from && last && $1 - last > longest { longest = $1 - last } { last = $1 } END { printf "%.2f\n", longest }'
}

# Prints how many answers there were, and how many numbers were lost, were repeated, and how many resets there were.
check_counter() {
    awk '$2 == "reset" { resets++; next }
        NF != 2 || $2 !~ /^[0-9]+$/ { resets++; next }
        last != "" && $2 > last + 1 { lost += $2 - last - 1 }
        last != "" && $2 <= last { repeated++ }
        { last = $2; n++ }
        END { print n + 0, lost + 0, repeated + 0, resets + 0 }' "$work/counter.txt"
}
