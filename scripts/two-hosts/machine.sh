# shellcheck shell=bash disable=SC2154 # Sourced by two-hosts.sh, which sets the variables.
#
# The two machines, A and B. Each has a folder $work/A or $work/B: its disk, its console and its emulator's monitor. A
# machine that loses power keeps its disk.

declare -A emulator=()
# How long it took until both had booted, seconds.
boot_seconds=0

# Prints the other machine.
other() { if [[ $1 == A ]]; then echo B; else echo A; fi; }

# Prints the number of the machine, which its addresses contain.
number() { if [[ $1 == A ]]; then echo 1; else echo 2; fi; }

# Prints the time, seconds.
now() { echo "$EPOCHREALTIME"; }

# Prints how many seconds have passed since $1.
since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f\n", to - from }'; }

# Prints the longest time that anything may take, seconds: it ends a hang. The machines' speed is known by their boot.
hang_limit() { echo $((60 + 20 * silence / 1000 + 10 * boot_seconds)); }

# Waits until the command $3... succeeds, for at most $1 seconds; $2 says what that means.
wait_until() {
    local limit=$1 missing=$2 end=$((SECONDS + $1)) name
    shift 2
    until "$@"; do
        ((SECONDS < end)) || fail 1 "it did not happen within $limit s that $missing"
        for name in "${!emulator[@]}"; do
            kill -0 "${emulator[$name]}" 2>/dev/null || fail 1 "the emulator of machine $name ended: $(last_words "$name")"
        done
        sleep 0.2
    done
}

# Prints the last line of what the emulator and the console of machine $1 said.
last_words() {
    cat "$work/$1/console" "$work/$1/emulator.txt" 2>/dev/null | tr -d '\r' | LC_ALL=C tr -cd '\t\n -~' | grep -v '^ *$' | tail -n 1
}

# Makes the disk of machine $1: what is installed there before the document is followed.
make_disk() {
    local disk=$work/$1/disk
    mkdir -p "$disk"/{do,done,etc,log,understudy/scripts}
    echo "10.0.0.$(number "$1")/24" >"$disk/address"
    cp "$repository/scripts/host.sh" "$disk/understudy/scripts/"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$disk/etc/passwd"
    echo '127.0.0.1 localhost' >"$disk/etc/hosts"
}

# Switches machines $@ on and waits until they are up.
switch_on() {
    local name start=$SECONDS
    for name in "$@"; do
        [[ -d $work/$name ]] || make_disk "$name"
        rm -f "$work/$name/disk/up" "$work/$name/monitor".*
        mkfifo "$work/$name/monitor.in" "$work/$name/monitor.out"
        ip netns exec "$space" "${machine[@]}" -m 1536M -serial "file:$work/$name/console" \
            -virtfs "local,path=$work/$name/disk,mount_tag=disk,security_model=none" \
            -monitor "pipe:$work/$name/monitor" "${nics[@]//HOST/$(number "$name")}" \
            >"$work/$name/emulator.txt" 2>&1 </dev/null &
        emulator[$name]=$!
    done
    for name in "$@"; do wait_until "$boot_limit" "machine $name is up" test -e "$work/$name/disk/up"; done
    if (($# == 2)); then
        boot_seconds=$((SECONDS - start + 1))
        say "machines $* are up after $((SECONDS - start)) s"
    fi
}

# Takes the power from machine $1.
cut_power() {
    kill -9 "${emulator[$1]}"
    wait "${emulator[$1]}" 2>/dev/null || true
    unset "emulator[$1]"
}

# Gives a command to the emulator of machine $1, as if somebody stood in front of the machine.
touch_machine() { echo "$2" >"$work/$1/monitor.in"; }

# Starts command $2 on machine $1 and sets `order`, the path of its files without their ends.
start_on() {
    local name=${EPOCHREALTIME/[.,]/}
    order=$work/$1/disk/done/$name
    printf '%s\n' "$2" >"$work/$1/disk/$name"
    mv "$work/$1/disk/$name" "$work/$1/disk/do/$name.sh"
}

# Runs command $2 on machine $1, prints its output and returns its exit code.
run_on() {
    local order
    start_on "$1" "$2"
    wait_until "$(hang_limit)" "on machine $1, '${2%%$'\n'*}' ends" test -e "$order.code"
    cat "$order.txt"
    return "$(cat "$order.code")"
}

# Ends what was started, and removes the run's files.
clean_up() {
    local code=$? process
    for process in "${emulator[@]}" "${processes[@]}"; do
        kill -9 "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    if [[ $keep ]]; then keep_files || say "$keep cannot be written"; fi
    ! ip netns list 2>/dev/null | grep -q "^$space\b" || ip netns del "$space"
    rm -rf "$work"
    say "took $SECONDS s"
    return "$code"
}

# Copies what a person looks at afterwards to $keep.
keep_files() {
    local name
    for name in A B; do
        mkdir -p "$keep/$name"
        cp -r "$work/$name/console" "$work/$name/emulator.txt" "$work/$name/disk/done" "$keep/$name/" 2>/dev/null || true
    done
    cp "$work"/*.txt "$keep/"
}
