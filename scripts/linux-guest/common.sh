# shellcheck shell=bash disable=SC2034,SC2154 # Sourced by linux-guest.sh and debian-guest.sh, which set and use the variables.
#
# What the guests of both scripts have in common: messages, the kernel's parameters, the snapshot.

say() { printf '%(%T)T  %s\n' -1 "$*" >&2; }
fail() { echo "${0##*/}: $*" >&2; exit 1; }

# Leave out work of the kernel that takes long where KVM emulates kernel code.
kernel_parameters="console=ttyS0 quiet ipv6.disable=1 mitigations=off init_on_alloc=0 audit=0 selinux=0 apparmor=0 \
nowatchdog cryptomgr.notests integrity_audit=0 \
initcall_blacklist=load_system_certificate_list,load_revocation_certificate_list"

# Writes $1 to the file cmdline, unless it is there.
write_cmdline() { [ "$(cat cmdline 2> /dev/null)" = "$1" ] || echo "$1" > cmdline; }

# Boots the guest with initrd $1 and $2 MiB, and further options of understudy, and saves guest.snap when it is ready.
save_guest() {
  local start=$SECONDS
  "$understudy" save guest.snap --kernel vmlinuz --initrd "$1" --memory "$2" \
    --cmdline "$(cat cmdline)" --kernel-shortcuts --slow-clock 16 --deadline-us 20000 --for 7200 \
    --when 'guest: ready' --json "${@:3}" > save.json
  say "saved $PWD/guest.snap after $((SECONDS - start)) s"
}

# Returns whether guest.snap is valid, of this version's format, and from a host like this one. Takes further options.
is_usable() { "$understudy" run --restore guest.snap --for 0.1 --quiet "$@" > /dev/null 2>&1; }
