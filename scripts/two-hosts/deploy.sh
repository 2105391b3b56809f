# shellcheck shell=bash disable=SC2154 # Sourced by two-hosts.sh, which sets the variables.
#
# docs/deployment.md, heading by heading, as far as both machines can be given the commands. What the document says and
# this file does must not differ.

# Runs command $2 of the document on machine $1; it must succeed.
must() {
    local output
    output=$(run_on "$1" "$2") || fail 1 "machine $1: '${2%%$'\n'*}' failed: $(tail -n 1 <<<"$output")"
    printf '%s\n' "$output"
}

# "Prepare the hosts", on machine $1. Also after the machine has booted again.
prepare_host() { must "$1" 'scripts/host.sh up --service eth0 --log eth1' >/dev/null; }

# "Run", on machine $1 as role $2, which is primary or backup.
start_role() {
    local order
    start_on "$1" "understudy $2 --config /etc/understudy.toml"
    process_of[$1]=$order
}

deploy() {
    local name
    declare -gA process_of=()
    # Build, with the programs already there
    for name in A B; do must "$name" 'understudy doctor' >/dev/null; done
    for name in A B; do prepare_host "$name"; done
    # One key
    must A 'understudy key /etc/understudy.key' >/dev/null
    cp -p "$work/A/disk/etc/understudy.key" "$work/B/disk/etc/understudy.key"
    # Check the witness
    for name in A B; do
        must "$name" 'understudy witness check --witness etcd://10.0.0.5:2379/understudy --key /etc/understudy.key' >/dev/null
    done
    # Configuration
    for name in A B; do
        must "$name" "cat >/etc/understudy.toml <<'END'
tap = \"tap0\"
interface = \"eth1\"
peer = \"52:54:00:00:02:0$(number "$(other "$name")")\"
key = \"/etc/understudy.key\"
witness = \"etcd://10.0.0.5:2379/understudy\"
memory = 64
command-line = \"ip=10.77.0.2/24\"
silence-ms = $silence
END" >/dev/null
    done
    start_role A primary
    wait_until "$(hang_limit)" "the VM is booted on machine A" said A 'refguest: ready'
    start_role B backup
    primary=A
    wait_protected
    say "the VM is protected, ${SECONDS} s after the start"
}

# Whether the process on machine $1 has said $2 (a regular expression).
said() { grep -qa "$2" "${process_of[$1]}.txt" 2>/dev/null; }

# Waits until the VM is protected, as the primary's machine sees it.
wait_protected() { wait_until "$(hang_limit)" "the VM is protected" is_protected; }

is_protected() { run_on "$primary" 'understudy status --json' 2>/dev/null | grep -q '"protected": *"yes"'; }
