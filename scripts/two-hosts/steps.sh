# shellcheck shell=bash disable=SC2154 # Sourced by two-hosts.sh, which sets the variables.
#
# The faults. Each ends when the VM is protected again.

# Rows of the report's table.
rows=()
# How many lines the process on each machine had said when the step began.
declare -A messages_before=()

# Runs step $1 and adds its row to the report.
run_step() {
    local step=$1 victim=$primary survivor begin row repaired what ping counter
    survivor=$(other "$victim")
    # The connection is quiet and the lease is young: as long as a silence timeout, nothing happens.
    wait_until "$(hang_limit)" "the client gets answers" has_answers "$((silence / 200))" "$(now)"
    for row in A B; do messages_before[$row]=$(wc -l <"${process_of[$row]}.txt"); done
    begin=$(now)
    "step_$step"
    wait_until "$(hang_limit)" "the client gets answers after step $step" has_answers 5 "$(now)"
    ping=$(longest_gap ping "$begin") counter=$(longest_gap counter "$begin")
    say "$step: $what; outage $ping s (ping), $counter s (TCP)"
    repaired=$(now)
    "repair_$step"
    wait_protected
    repaired=$(since "$repaired")
    rows+=("$step|$what|$ping ($(in_silences "$ping"))|$counter ($(in_silences "$counter"))|$repaired|$(since "$begin")")
    say "$step: protected again $repaired s after the repair began; the primary is machine $primary"
}

# Prints $1 seconds as a multiple of the silence timeout.
in_silences() { awk -v s="$1" -v t="$silence" 'BEGIN { printf "%.2f", s * 1000 / t }'; }

# Whether the process on machine $1 has said $2 (a regular expression) in this step.
said_now() { tail -n "+$((messages_before[$1] + 1))" "${process_of[$1]}.txt" | grep -qa "$2"; }

# Whether the other machine has gone live, or the primary goes on alone.
is_decided() { said_now "$survivor" 'LIVE in term' || said_now "$victim" 'term [0-9]* is ours'; }

step_power() {
    cut_power "$victim"
    wait_until "$(hang_limit)" "machine $survivor goes live" said_now "$survivor" 'LIVE in term'
    primary=$survivor what="machine $victim loses power, $survivor takes over"
}

repair_power() {
    switch_on "$victim"
    prepare_host "$victim"
    start_role "$victim" backup
}

step_log() {
    local host
    for host in 1 2; do on_third ip link set "log$host" down; done
    settle "the log link passes nothing"
}

repair_log() {
    local host
    for host in 1 2; do on_third ip link set "log$host" up; done
    rejoin
}

step_cable() {
    touch_machine "$victim" 'set_link log off'
    touch_machine "$survivor" 'set_link log off'
    settle "the cable of the log link is out"
}

repair_cable() {
    touch_machine A 'set_link log on'
    touch_machine B 'set_link log on'
    rejoin
}

# Waits until one machine runs the VM alone; $1 says what has happened.
settle() {
    wait_until "$(hang_limit)" "one machine goes on alone" is_decided
    if said_now "$survivor" 'LIVE in term'; then
        primary=$survivor what="$1, $survivor takes over"
    else
        what="$1, $victim goes on alone"
    fi
}

# Starts a backup on the machine that was the primary, if it lost its term: its process must end with exit code 14.
rejoin() {
    [[ $primary != "$victim" ]] || return 0
    wait_until "$(hang_limit)" "the process on machine $victim ends" test -e "${process_of[$victim]}.code"
    local code
    code=$(cat "${process_of[$victim]}.code")
    [[ $code == 14 ]] || fail 1 "machine $victim: the process of the old primary ended with code $code, not 14"
    start_role "$victim" backup
}

step_freeze() {
    kill -STOP "${emulator[$victim]}"
    settle "machine $victim stands still"
}

repair_freeze() {
    kill -CONT "${emulator[$victim]}"
    rejoin
}

step_lan() {
    touch_machine "$victim" 'set_link service off'
    wait_until "$(hang_limit)" "machine $survivor goes live" said_now "$survivor" 'LIVE in term'
    primary=$survivor what="machine $victim has no LAN, the VM is handed over to $survivor"
}

repair_lan() { touch_machine "$victim" 'set_link service on'; }

# Stops the VM; the processes on both machines must end with code 0.
stop_pair() {
    local name code
    # The client's connection ends with the VM: not a loss.
    kill "$client_counter" "$client_ping" 2>/dev/null || true
    must "$primary" 'understudy stop' >/dev/null
    for name in A B; do
        wait_until "$(hang_limit)" "the process on machine $name ends" test -e "${process_of[$name]}.code"
        code=$(cat "${process_of[$name]}.code")
        [[ $code == 0 ]] || fail 1 "machine $name: the process ended with code $code: $(tail -n 1 "${process_of[$name]}.txt")"
    done
}

# Prints the table; exit code 1 if the client lost something.
report() {
    local answers lost repeated resets
    read -r answers lost repeated resets < <(check_counter)
    echo "NICs $nic, silence timeout $silence ms, Linux $(basename "$kernel"/boot/vmlinuz-* | sed 's/vmlinuz-//') on machines A and B, boot $boot_seconds s"
    printf '%s\n' 'step|what happens|outage, ping: s (of the silence timeout)|outage, TCP|protected again, s|the step took, s' "${rows[@]}" | sed 's/|/ | /g; s/^/| /; s/$/ |/' | sed '1a | --- | --- | --- | --- | --- | --- |'
    echo "counter connection: $answers answers; lost, repeated, resets: $lost, $repeated, $resets"
    ((lost + repeated + resets == 0)) || fail 1 "the client lost $lost answers, got $repeated twice, and its connection was reset $resets times"
}
