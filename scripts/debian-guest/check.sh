#!/usr/bin/env bash
# Boots the guest of debian-guest.sh, uses it, powers it off, saves it, records and replays it. debian-guest.sh runs this,
# also on an emulated host.
#
#   check.sh FOLDER ROOT SEED MEMORY SECONDS
#
# FOLDER has vmlinuz, initrd.img, cmdline and ssh-key. ROOT and SEED are the disks, of which the VM writes ROOT. MEMORY is its
# size in MiB; SECONDS is how long is recorded. Needs a network namespace of its own. Exit code: 1 if something failed.
set -uo pipefail
folder=$1 disks=(--disk "$2,format=raw" --disk "$3,format=raw,readonly") memory=$4 seconds=$5
boot=(--kernel "$folder/vmlinuz" --initrd "$folder/initrd.img" --cmdline "$(<"$folder/cmdline")" --memory "$memory" --deadline-us 20000)
saving=()
if understudy doctor | grep -q 'KVM emulates kernel code  *yes'; then boot+=(--kernel-shortcuts) saving=(--slow-clock 16); fi
address=10.77.0.2 limit=5400 failed=0 vm=''

step() { printf '\n-- %s\n' "$1"; }
say() { printf '   %4d s  %s\n' "$SECONDS" "$*"; }
fail() {
    printf '   %4d s  FAILED %s\n' "$SECONDS" "$*"
    failed=1
}
redis() { timeout 300 redis-cli -h $address "$@" 2>&1; }
guest() {
    timeout "$limit" ssh -F none -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=known -o LogLevel=ERROR -o ConnectTimeout=600 root@$address "$@" 2>&1
}
# Inserts a row with SQLite, and prints the number of rows.
insert() {
    local count=''
    { IFS= read -r -t 300 count <&3; } 3<>/dev/tcp/$address/7100
    echo "$count"
}
clean_up() { [[ ! $vm ]] || kill "$vm" 2>/dev/null; }
trap clean_up EXIT

# Waits until file $1 has text $2, or the VM has ended.
wait_for() { until grep -q "$2" "$1" || ! kill -0 "$vm" 2>/dev/null; do sleep 0.2; done; grep -q "$2" "$1"; }

# Waits until redis answers, the VM has ended, or the time limit is over.
wait_for_redis() {
    local end=$((SECONDS + limit))
    until [[ $(redis ping) == PONG ]]; do
        kill -0 "$vm" 2>/dev/null && ((SECONDS < end)) || return 1
        sleep 0.5
    done
}

# Sends requests until the file `stop` exists, and prints how many were answered as they must be.
load() {
    local incr=$1 rows=0 answer wrong=0
    rm -f stop
    until [[ -e stop || $(redis ping) == PONG ]]; do sleep 0.5; done
    until [[ -e stop ]]; do
        answer=$(redis incr check)
        if [[ $answer == $((incr + 1)) ]]; then incr=$answer; elif [[ ! -e stop ]]; then wrong=$((wrong + 1)); fi
        [[ -e stop ]] || { answer=$(insert 2>/dev/null) && [[ $answer ]] && rows=$((rows + 1)); }
    done
    echo "incr $((incr - $1)), sqlite $rows, wrong $wrong"
}

install -m 600 "$folder/ssh-key" key
ip link set lo up
ip tuntap add dev tap0 mode tap
ip addr add 10.77.0.1/24 dev tap0
ip link set tap0 up

step 'run: the disk is written'
began=$SECONDS
understudy run "${boot[@]}" "${disks[@]}" --tap tap0 --for "$limit" --json >run.txt 2>&1 &
vm=$!
wait_for run.txt 'guest: ready' && say "'guest: ready' after $((SECONDS - began)) s" || fail 'the guest is not ready'
wait_for_redis && say "redis answers $((SECONDS - began)) s after the start" || fail 'redis does not answer'
for number in 1 2 3 4 5; do
    answer=$(redis incr check)
    [[ $answer == "$number" ]] || fail "incr: '$answer' instead of $number"
done
for number in 1 2 3; do
    answer=$(insert)
    [[ $answer == "$number" ]] || fail "sqlite: '$answer' instead of $number"
done
say 'redis has 5, SQLite 3 rows'
began=$SECONDS
say "by ssh: $(guest 'hostname; systemctl is-system-running; systemctl --failed --no-legend; systemd-analyze; findmnt -no SOURCE,FSTYPE /; free -m | sed -n 2p' | paste -sd' ') ($((SECONDS - began)) s)"
began=$SECONDS
guest systemctl poweroff
wait "$vm"
code=$?
vm=''
[[ $code == 9 ]] && say "powered off in $((SECONDS - began)) s" || fail "run: exit code $code"
tail -n 1 run.txt

step 'save'
began=$SECONDS
understudy save guest.snap "${boot[@]}" "${saving[@]}" "${disks[@]}" --for "$limit" --when 'guest: ready' --json >save.txt 2>&1 &&
    say "saved after $((SECONDS - began)) s" || fail save
tail -n 1 save.txt

step 'restore: what was written before the power-off is there'
began=$SECONDS
understudy run --restore guest.snap "${disks[@]}" --tap tap0 --deadline-us 20000 --for "$limit" --json >restore.txt 2>&1 &
vm=$!
wait_for_redis && say "redis answers $((SECONDS - began)) s after the start" || fail 'redis does not answer'
answer=$(redis incr check)
[[ $answer == 6 ]] || fail "incr: '$answer' instead of 6"
answer=$(insert)
[[ $answer == 4 ]] || fail "sqlite: '$answer' instead of 4"
kill -INT "$vm"
wait "$vm"
code=$?
vm=''
[[ $code == 0 ]] && say 'redis has 6, SQLite 4 rows' || fail "run --restore: exit code $code"

step "record for $seconds s"
load 5 >load.txt &
understudy record --restore guest.snap "${disks[@]}" --tap tap0 --log run.ulog --deadline-us 20000 --for "$seconds" --json >record.txt 2>&1 || fail record
touch stop
wait
say "answered: $(<load.txt)"
[[ $(<load.txt) == *'wrong 0' ]] || fail 'wrong answers'
tail -n 1 record.txt
step replay
began=$SECONDS
understudy replay --restore guest.snap "${disks[@]}" run.ulog --json >replay.txt 2>&1 && say "replayed in $((SECONDS - began)) s" || fail replay
tail -n 1 replay.txt
step end
exit "$failed"
