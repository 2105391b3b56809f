# shellcheck shell=bash disable=SC2154 # Sourced by emulated-host.sh, which sets the variables.
#
# The emulator's process and the console of the emulated host, which is the file $work/console.

# Starts $@ as the emulator.
emulate() {
    : >"$work/console"
    "$@" >"$work/emulator.txt" 2>&1 </dev/null &
    emulator=$!
}

# Whether the emulator runs. `tail --pid` takes one that was killed and not waited for as running.
is_running() { [[ $(ps -o stat= -p "$emulator") == [!Z]* ]]; }

# Prints the last line of what the emulator and the host's console said.
last_words() {
    cat "$work/emulator.txt" "$work/console" 2>/dev/null | tr -d '\r' | LC_ALL=C tr -cd '\t\n -~' | grep -v '^ *$' | tail -n 1
}

# Prints what the command prints and exits as it does.
follow_console() {
    local line part='' rest begun='' start=$SECONDS end=$((SECONDS + boot_limit)) result
    exec {console}< <(exec tail -n +1 -s 0.2 -f --pid="$emulator" "$work/console" 2>/dev/null)
    reader=$!
    while :; do
        ((end > SECONDS)) || over "$begun" "$((SECONDS - start))"
        result=0
        IFS= read -r -t 5 line <&"$console" || result=$?
        part+=$line
        if ((result > 128)) && is_running; then continue; fi
        ((result == 0)) || fail 1 "the emulator ended before the command: $(last_words)"
        line=${part//$'\r'/} part=''
        case $line in
        *'Kernel panic - not syncing'*) fail 1 "the emulated host's kernel crashed: $line" ;;
        'emulated host: begin '*)
            begun=1 end=$((SECONDS + limit))
            say "Linux ${line##* } is up after $((SECONDS - start)) s"
            start=$SECONDS
            ;;
        *'emulated host: end '*)
            rest=${line%emulated host: end *}
            [[ -z $rest ]] || printf '%s\n' "$rest"
            say "the command took $((SECONDS - start)) s"
            exit "${line##* }"
            ;;
        *) if [[ $begun || $line == 'emulated host: '* ]]; then printf '%s\n' "$line"; fi ;;
        esac
    done
}

# Ends because a time limit is over: of the boot, or if $1 is not empty, of the command, after $2 seconds.
over() {
    if [[ $1 ]]; then fail 124 "the command did not end within $2 s (--limit)"; fi
    fail 124 "the emulated host was not up within $2 s: $(last_words)"
}

# Ends the processes that were started, and removes the run's files.
clean_up() {
    local process
    for process in $emulator $reader; do
        kill "$process" 2>/dev/null || continue
        for _ in {1..20}; do
            kill -0 "$process" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$process" 2>/dev/null || true
    done
    [[ -z $keep ]] || cp "$work/console" "$keep" 2>/dev/null || say "$keep cannot be written"
    rm -rf "$work"
    say "took $SECONDS s"
}
