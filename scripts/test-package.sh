#!/usr/bin/env bash
# Tests the Debian package in a clean Debian root, without a running systemd: needs root and /dev/kvm.
#
#   scripts/test-package.sh [SUITE]
#
# Packs target/release/understudy twice, as an old and as a new version, and checks in SUITE (default: bookworm):
#   - apt installs it with what it depends on; the program starts; systemd accepts the unit
#   - each command has a man page, and the configuration folder is closed to other users
#   - an upgrade leaves a running VM running
#   - purge leaves nothing of the package, and keeps what the administrator has put into /etc/understudy
# The root is made once, in ~/.cache/understudy/package-root.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit ;; -*) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
suite=${1:-bookworm}
cache=$HOME/.cache/understudy/package-root tarball=$HOME/.cache/understudy/package-root/$suite.tar
if [[ ! -e $tarball ]]; then
    command -v mmdebstrap >/dev/null || apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
    mkdir -p "$cache"
    mmdebstrap --quiet --format=tar --variant=minbase --include=systemd,systemd-sysv,dbus "$suite" "$tarball.part"
    mv "$tarball.part" "$tarball"
fi

root=$(mktemp -d) process=''
clean_up() {
    [[ ! $process ]] || kill "$process" 2>/dev/null || true
    for folder in dev proc; do umount "$root/$folder" 2>/dev/null || true; done
    rm -rf --one-file-system "$root"
}
trap clean_up EXIT
fail() { echo "test-package.sh: $*" >&2; exit 1; }
step() { printf '== %s (%d s)\n' "$*" "$SECONDS"; }
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes "$@"; }
apt_get() { inside apt-get -y -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null; }
install() { apt_get install --no-install-recommends "/tmp/$1"; }

step "root"
tar -xf "$tarball" -C "$root" --exclude='./dev/*'
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/urandom" c 1 9
mknod "$root/dev/kvm" c 10 232
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Files that only the installation of any package changes.
listing() { (cd "$root" && find etc usr opt srv var/lib run -xdev | grep -vE '^(var/lib/(dpkg|apt)|etc/.*-$|run/)' | sort); }
apt_get update
before=$(listing)

step "packages"
scripts/package.sh --no-build --version 0.0.1-1 "$root/tmp" >/dev/null
scripts/package.sh --no-build "$root/tmp" >/dev/null
new=$(cd "$root/tmp" && ls understudy_*.deb | grep -v 0.0.1-1)

step "installation of the old version"
install understudy_0.0.1-1_amd64.deb
inside understudy --version
inside systemd-analyze verify --man=no /usr/lib/systemd/system/understudy@.service 2>&1 | tee "$root/tmp/verify"
# Of this unit only: others of a root without devices are not ours to judge.
! grep -i understudy "$root/tmp/verify" || fail "systemd does not accept the unit"
for command in $(inside understudy --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -vx help); do
    [[ -e $root/usr/share/man/man1/understudy-$command.1.gz ]] || fail "no man page for $command"
done
[[ $(stat -c %a "$root/etc/understudy/vms") == 700 ]] || fail "/etc/understudy/vms is not closed"
inside getent passwd understudy >/dev/null || fail "no user"

step "upgrade beside a running VM"
chroot "$root" /usr/bin/understudy run --quiet --for 600 >/dev/null &
process=$!
sleep 1
kill -0 "$process" || fail "the VM does not run"
install "$new"
kill -0 "$process" || fail "the upgrade has ended the VM"
[[ $(readlink "/proc/$process/exe") == */usr/bin/understudy*deleted* ]] || fail "the VM runs another program"
inside dpkg-query -W -f '${Version}\n' understudy

step "purge"
kill "$process"
wait "$process" || fail "the VM did not end in order"
process=''
touch "$root/etc/understudy/vms/web.toml"
apt_get purge understudy
[[ -e $root/etc/understudy/vms/web.toml ]] || fail "purge has removed the administrator's file"
install "$new"
rm "$root/etc/understudy/vms/web.toml"
apt_get purge understudy
diff <(echo "$before") <(listing) || fail "purge leaves files"
! inside getent passwd understudy || fail "purge leaves the user"
step "done"
