#!/usr/bin/env bash
# Tests understudy on hosts whose processors are emulated (emulated-host.sh), one after the other.
#
#   scripts/test-hosts.sh [--short] [--linux FOLDER]... [--binaries FOLDER] [KIND...]
#
# KIND is svm, vmx, svm-npt0 or vmx-ept0 (shadow page tables); default: svm vmx svm-npt0. On each kind run: `doctor`;
# `soak`, which records and replays the reference guest and the hard guest; a demonstration of a pair with 3 kills. A
# host with ept=0 must be refused instead. At the end a table has a row for each kind. Exit code 1: a kind failed.
#
#   --short             fewer runs (default KIND: svm)
#   --linux FOLDER      instead of all that, boot the Linux guest in FOLDER (made by 'linux-guest.sh build FOLDER'), record
#                       it under load and replay the log, and run a demonstration of a pair of it with 3 kills
#   --binaries FOLDER   as for emulated-host.sh
#
# What each host printed is in ~/.cache/understudy/hosts/results. A kind takes 5 to 20 minutes (docs/hosts.md).
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
results=${XDG_CACHE_HOME:-$HOME/.cache}/understudy/hosts/results

fail() {
    echo "test-hosts.sh: $*" >&2
    exit 2
}
usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; }

short='' options=() kinds=() guests=()
while (($#)); do
    case $1 in
    --short) short=1 ;;
    --binaries)
        [[ ${2:-} ]] || fail "--binaries needs a folder"
        options+=(--binaries "$2")
        shift
        ;;
    --linux)
        [[ -e ${2:-}/vmlinuz && -e $2/initramfs.cpio && -e $2/cmdline ]] || fail "--linux needs a folder of linux-guest.sh"
        guests+=("$2")
        shift
        ;;
    svm | vmx | svm-npt0 | vmx-ept0) kinds+=("$1") ;;
    -h | --help) usage; exit ;;
    *) fail "'$1' is no option and no kind of host: see --help" ;;
    esac
    shift
done
if ((${#kinds[@]} == 0)); then
    kinds=(svm vmx svm-npt0)
    [[ ! $short ]] || kinds=(svm)
fi

# Prints what runs on a host of kind $1: runs of soak with the reference guest and with the hard guest, and their seconds.
runs_on() {
    case $1${short:+-short} in
    svm) echo 5 8 10 12 ;;
    svm-npt0) echo 5 8 10 12 ;;
    vmx) echo 2 8 1 12 ;;
    vmx-ept0) echo 1 4 1 4 ;;
    svm*-short) echo 1 8 1 8 ;;
    vmx*-short) echo 1 3 1 3 ;;
    esac
}

# Prints the sum of JSON field $1 of the replays in file $2, between the lines that contain $3 and $4.
sum() {
    sed -n "/$3/,/$4/s/^  replay .*\"$1\":\([0-9]*\).*/\1/p" "$2" | awk '{ total += $1 } END { print total + 0 }'
}

# Copies its input to its output and to file $1, and says of each step, which a line "-- STEP" begins, how long it took.
log_steps() {
    local line step='' start=$SECONDS
    while IFS= read -r line; do
        if [[ $line == '-- '* ]]; then
            [[ ! $step ]] || echo "test-hosts.sh: $step took $((SECONDS - start)) s"
            step=${line#-- } start=$SECONDS
        fi
        printf '%s\n' "$line"
    done | tee "$1"
}

# Tests a host of kind $1 and appends its row to `rows`.
test_kind() {
    local kind=$1 file=$results/$1.txt reference_runs reference_seconds hard_runs hard_seconds paging=() result=0 start=$SECONDS
    read -r reference_runs reference_seconds hard_runs hard_seconds < <(runs_on "$kind")
    case $kind in
    svm-npt0) paging=(--npt 0) ;;
    vmx-ept0) paging=(--ept 0) ;;
    esac
    echo "== $kind"
    "$repository/scripts/emulated-host.sh" "${kind%%-*}" "${paging[@]}" --limit 5400 "${options[@]}" --keep "$file.console" -- "
        echo '-- doctor'; understudy doctor || exit
        failed=0
        echo '-- reference guest'; soak --runs $reference_runs --seconds $reference_seconds || failed=1
        echo '-- hard guest'; soak --guest hard --runs $hard_runs --seconds $hard_seconds || failed=1
        echo '-- pair'; understudy demo --kills 3 --silence 2000 || failed=1
        echo '-- end'; exit \$failed" 2>&1 | log_steps "$file" || result=$?
    add_row "$kind" "$file" "$result" "$((SECONDS - start))"
}

# Appends the row of kind $1, from output file $2, exit code $3 and duration $4, to `rows`.
add_row() {
    local kernel refused outcome="${3/#0/passed}" failovers lost divergences='-'
    [[ $3 == 0 ]] || outcome="exit code $3"
    kernel=$(sed -n 's/.*: Linux \(.*\) is up after.*/\1/p' "$2")
    refused=$(grep -c '^FAIL  kvm module  *kvm_intel has ept=0' "$2" || true)
    if [[ $1 == vmx-ept0 && $3 == 3 && $refused == 1 ]]; then
        outcome='refused, as it must be'
    elif [[ $1 == vmx-ept0 ]]; then
        outcome='not refused' wrong=1
    elif [[ $3 != 0 ]]; then
        wrong=1
    fi
    failovers=$(sed -n 's/^failovers  *//p' "$2")
    lost=$(sed -n 's/^  lost, repeated, resets  *//p' "$2")
    divergences=$(sed -n 's/^.* runs, .* interrupts, divergences //p; s/^divergences  *//p; s/^FAILED run.*/1/p' "$2" | awk '{ n += $1 } END { print NR ? n : "-" }')
    rows+=("| $1 | ${kernel:--} | $(sum interrupts "$2" '^-- reference' '^-- hard') / $(sum natural_exits "$2" '^-- reference' '^-- hard') | $(sum interrupts "$2" '^-- hard' '^-- pair') / $(sum natural_exits "$2" '^-- hard' '^-- pair') | ${failovers:--}; ${lost:--} | $divergences | $4 s | $outcome |")
}

# Prints field $1 of the JSON object behind "$2: " in file $3.
field() { sed -n "s/^$2: .*\"$1\":\([^,}]*\).*/\1/p" "$3" | head -n 1; }

# Prints the seconds for which the Linux guest is recorded, the kills and the silence timeout on a host of kind $1.
linux_on() {
    case $1${short:+-short} in
    *-short) echo 15 1 4000 ;;
    *) echo 60 3 4000 ;;
    esac
}

# Tests the Linux guest in folder $2 on a host of kind $1 and appends its row to `rows`.
test_linux() {
    local kind=$1 guest=$2 name file files seconds kills silence paging=() result=0 start=$SECONDS
    name=$(sed -n 's/^linux-image-//p' "$guest/versions.txt" | cut -d' ' -f1)
    file=$results/$kind-linux-$name.txt
    read -r seconds kills silence < <(linux_on "$kind")
    case $kind in
    svm-npt0) paging=(--npt 0) ;;
    vmx-ept0) paging=(--ept 0) ;;
    esac
    echo "== $kind, $name"
    files=$(mktemp -d)
    cp "$guest"/{vmlinuz,initramfs.cpio,cmdline} "$files/"
    "$repository/scripts/emulated-host.sh" "${kind%%-*}" "${paging[@]}" --limit 5400 "${options[@]}" --files "$files" \
        --keep "$file.console" -- "linux-guest-test ${files##*/} $seconds $kills $silence" 2>&1 | log_steps "$file" || result=$?
    rm -rf "$files"
    add_linux_row "$kind" "$name" "$file" "$result"
    rows[-1]+=" $((SECONDS - start)) s |"
}

# Appends the row of kind $1 and guest kernel $2, from output file $3 and exit code $4, to `rows`.
add_linux_row() {
    local boot load compared failovers lost outcome="${4/#0/passed}"
    [[ $4 == 0 ]] || outcome="exit code $4" wrong=1
    boot=$(sed -n 's/^boot: \([0-9]*\) s;.*/\1 s/p' "$3")
    load=$(sed -n 's/^load: //p' "$3")
    compared="$(field interrupts replay "$3") / $(field natural_exits replay "$3")"
    failovers=$(sed -n 's/^failovers  *//p' "$3")
    lost=$(sed -n 's/^  lost, repeated, resets  *//p' "$3")
    rows+=("| $1 | $2 | ${boot:--} | ${load:--} | $compared | ${failovers:--}; ${lost:--} | $outcome |")
}

mkdir -p "$results"
wrong=0 rows=()
if ((${#guests[@]} > 0)); then
    for kind in "${kinds[@]}"; do
        for guest in "${guests[@]}"; do test_linux "$kind" "$guest"; done
    done
    echo
    echo "commit $(git -C "$repository" describe --always --dirty 2>/dev/null || echo unknown)"
    echo '| host | kernel of the guest | boot | answered while recorded | replay: interrupts / exits compared | failovers; lost, repeated, resets | result | duration |'
    echo '|---|---|---|---|---|---|---|---|'
    printf '%s\n' "${rows[@]}"
    echo "took $SECONDS s"
    exit "$wrong"
fi
for kind in "${kinds[@]}"; do test_kind "$kind"; done
echo
echo "commit $(git -C "$repository" describe --always --dirty 2>/dev/null || echo unknown)"
echo '| host | kernel | reference guest: interrupts / exits compared | hard guest: interrupts / exits compared | failovers; lost, repeated, resets | divergences | duration | result |'
echo '|---|---|---|---|---|---|---|---|'
printf '%s\n' "${rows[@]}"
echo "took $SECONDS s"
exit "$wrong"
