#!/bin/bash
# Makes a VM with a Debian on its disk (systemd, ext4, redis, SQLite, sshd, apt). With 'save' it also boots it and saves a
# snapshot in which it is ready to serve; with 'seed' it makes only the disk with the VM's settings; with 'check' it tries
# what docs/debian-guest.md says, with a copy of the disk:
#
#   scripts/debian-guest.sh [OPTIONS] [build|save|seed|check] [FOLDER]
#
#   --suite SUITE      the Debian suite (default: bookworm; no other was tried)
#   --kernel PACKAGE   the kernel (default: linux-image-cloud-amd64)
#   --size MIB         the size of the disk (default: 2048; the image is sparse)
#   --include P,P...   more packages
#   --name NAME        the VM's name, in its seed (default: debian)
#   --ip ADDRESS/N     its address (default: 10.77.0.2/24)
#   --gateway ADDRESS  its gateway (default: 10.77.0.1)
#   --on svm           with 'check': on an emulated host (docs/hosts.md), with the programs beside UNDERSTUDY
#   --ssh-key FILE     public keys that may log in as root (default: a new pair of keys, ssh-key and ssh-key.pub in FOLDER)
#
# FOLDER (default: ~/.cache/understudy/debian-guest, with -SUITE appended if it is given) receives root.img,
# vmlinuz, initrd.img, cmdline, versions.txt, seed.img, and with 'save' guest.snap. root.img is the VM's disk: it is not
# replaced if it exists. seed.img is made again if name, addresses or keys differ. docs/debian-guest.md has the use.
#
# Needs root, and mmdebstrap, mke2fs, gzip, xorriso or genisoimage, and ssh-keygen without --ssh-key. DEBIAN_MIRROR names where
# packages are from (default: http://deb.debian.org/debian), UNDERSTUDY the program (default: the release build).
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/linux-guest/common.sh
source "$here/scripts/linux-guest/common.sh"

usage() { sed -n '2,24s/^# \{0,1\}//p' "$0"; }
suite=bookworm in_name='' kernel=linux-image-cloud-amd64 size=2048 include='' name=debian ip=10.77.0.2/24 \
  gateway=10.77.0.1 ssh_key='' on=''
while [[ ${1:-} == -* ]]; do
  value=${2:-} form='[a-z0-9][a-z0-9.+-]*'
  case $1 in
    -h | --help) usage; exit ;;
    --suite) suite=$value in_name=$value ;;
    --kernel) kernel=$value ;;
    --size) size=$value form='[1-9][0-9]{2,6}' ;;
    --include) include=$value form='[a-z0-9][a-z0-9.+,-]*' ;;
    --name) name=$value form='[a-z0-9][a-z0-9-]*' ;;
    --ip) ip=$value form='[0-9]+(\.[0-9]+){3}/[0-9]+' ;;
    --gateway) gateway=$value form='[0-9]+(\.[0-9]+){3}' ;;
    --on) on=$value form=svm ;;
    --ssh-key) ssh_key=$value form='.+' ;;
    *) fail "$1 is no option: see --help" ;;
  esac
  [[ $value =~ ^($form)$ ]] || fail "$1 cannot be '$value': see --help"
  shift 2
done
what=${1:-save}
folder=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy/debian-guest${in_name:+-$in_name}}
understudy=$(realpath -m "${UNDERSTUDY:-${CARGO_TARGET_DIR:-$here/target}/release/understudy}")
memory=256
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

packages="systemd systemd-sysv udev kmod tiny-initramfs e2fsprogs iproute2 netbase ca-certificates openssh-server
  redis-server sqlite3 $kernel"
# The limits of systemd are for a faster machine: a unit that takes a minute longer has not failed.
cmdline="$kernel_parameters root=/dev/vda rw rootflags=noatime net.ifnames=0 initcall_blacklist=i8042_init \
systemd.show_status=error systemd.service_watchdogs=no systemd.default_timeout_start_sec=3600 systemd.default_device_timeout_sec=3600"

case $what in build | save | seed | check) ;; *) fail "give 'build', 'save', 'seed' or 'check', not '$what'" ;; esac
[ "$what" != check ] || [ "$ip$ssh_key" = 10.77.0.2/24 ] || fail "'check' needs the usual address and a key of its own"
[ -z "$ssh_key" ] || [ -r "$ssh_key" ] || fail "--ssh-key: $ssh_key cannot be read"
[ -z "$ssh_key" ] || ssh_key=$(realpath "$ssh_key")
iso=$(command -v xorriso || command -v genisoimage) || fail "xorriso or genisoimage is needed, from the package of that name"
tools=(gzip:gzip)
[ -n "$ssh_key" ] || tools+=(ssh-keygen:openssh-client)
[ "$what" = seed ] || tools+=(mmdebstrap:mmdebstrap mke2fs:e2fsprogs)
for tool in "${tools[@]}"; do
  command -v "${tool%:*}" > /dev/null || fail "${tool%:*} is needed, from the package ${tool#*:}"
done
mkdir -p "$folder"
cd "$folder"

# Makes root.img, vmlinuz, initrd.img and versions.txt.
make_root() {
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg part=$PWD/new sources
  [ "$(id -u)" = 0 ] || fail "the files of the disk have owners: run this as root"
  [ -e $keys ] || fail "$keys is needed, from the package debian-archive-keyring"
  say "making a Debian ($suite) with $kernel on a disk of $size MiB"
  sources=("deb [signed-by=$keys] $mirror $suite main" "deb [signed-by=$keys] $mirror $suite-updates main"
    "deb [signed-by=$keys] ${mirror%/debian}/debian-security $suite-security main")
  rm -rf --one-file-system "$part" && mkdir "$part"
  # The initrd is made when the kernel is installed. It has no udev: the kernel itself makes /dev/vda.
  OUTPUT=$part mmdebstrap --mode=root --variant=minbase --format=directory \
    --include="$(echo $packages | tr ' ' ,)${include:+,$include}" --aptopt='APT::Install-Recommends "false"' \
    --essential-hook='mkdir -p "$1/etc/tiny-initramfs" && printf "%s\n" AUTO_MODULES=no MICROCODE=no INCLUDE_MODULES=virtio_pci,virtio_blk,ext4 > "$1/etc/tiny-initramfs/tiny-initramfs.conf"' \
    --customize-hook="$here/scripts/debian-guest/customize.sh" \
    "$suite" "$part/root" "${sources[@]}" > mmdebstrap.txt 2>&1 ||
    fail "mmdebstrap failed: $(grep -m 1 '^E: ' mmdebstrap.txt) (all of it: $PWD/mmdebstrap.txt)"
  # With its tables and its journal written, the guest has nothing of it to finish.
  mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -L root -d "$part/root" "$part/root.img" "${size}M" > mke2fs.txt 2>&1 ||
    fail "mke2fs failed: $(tail -n 1 mke2fs.txt)"
  mv "$part"/{vmlinuz,initrd.img,versions.txt,root.img} .
  rm -rf --one-file-system "$part" mmdebstrap.txt mke2fs.txt
}

# Makes seed.img, unless one of the same contents is there.
make_seed() {
  local keys=${ssh_key:-ssh-key.pub} new=seed.part
  if [ -z "$ssh_key" ] && [ ! -e ssh-key ]; then ssh-keygen -q -t ed25519 -N '' -C understudy -f ssh-key; fi
  rm -rf $new && mkdir $new
  cat > $new/network-config << CONFIG
version: 2
ethernets:
  eth0:
    match:
      name: eth0
    addresses: [$ip]
    routes:
      - to: default
        via: $gateway
CONFIG
  {
    echo '#cloud-config'
    echo 'disable_root: false'
    echo 'ssh_authorized_keys:'
    grep -v '^ *\(#\|$\)' "$keys" | sed 's/.*/  - "&"/'
  } > $new/user-data || fail "$keys has no key"
  # Another instance is one whose settings differ: it applies them, and makes host keys of its own.
  echo "instance-id: $(cat <(echo "$name") $new/* | sha256sum | cut -c1-16)" > $new/meta-data
  echo "local-hostname: $name" >> $new/meta-data
  if [ ! -e seed.img ] || ! diff -r seed $new > /dev/null 2>&1; then
    say "making the seed"
    case $iso in
      */xorriso) "$iso" -as mkisofs -quiet -V CIDATA -J -r -o seed.img.part $new ;;
      *) "$iso" -quiet -V CIDATA -J -r -o seed.img.part $new ;;
    esac > iso.txt 2>&1 || fail "the seed cannot be made: $(tail -n 1 iso.txt)"
    mv seed.img.part seed.img
    rm -rf seed iso.txt
    mv $new seed
  fi
  rm -rf $new
}

# Runs check.sh with a copy of the disks, here or on an emulated host, and checks the file system afterwards.
check() {
  local work result=0 parts=$here/scripts/debian-guest
  work=$(mktemp -d "$PWD/check.XXXXXX")
  trap "rm -rf '$work'" EXIT
  mkdir "$work/files"
  cp --sparse=always root.img seed.img "$work"
  cp vmlinuz initrd.img cmdline ssh-key "$parts/check.sh" "$work/files"
  if [ -z "$on" ]; then
    (cd "$work/files" && PATH=$(dirname "$understudy"):$PATH unshare -n bash check.sh . ../root.img ../seed.img $memory 30) || result=$?
  else
    "$here/scripts/emulated-host.sh" "$on" --limit 7200 --binaries "$(dirname "$understudy")" --disk "$work/root.img" \
      --disk "$work/seed.img" --files "$work/files" -- "cd files; bash check.sh . /dev/vda /dev/vdb $memory 30" || result=$?
  fi
  ((result == 0)) || fail "the check failed (exit code $result)"
  e2fsck -fn "$work/root.img" > e2fsck.txt 2>&1 || fail "the file system of the guest is not clean: $PWD/e2fsck.txt"
  rm e2fsck.txt
  say 'the check passed, and the file system is clean'
}

disks=(--disk root.img,format=raw --disk seed.img,format=raw,readonly)
[ "$what" = seed ] || [ -e root.img ] || make_root
make_seed
write_cmdline "$cmdline"
[ "$what" = build ] || [ "$what" = seed ] || [ -x "$understudy" ] || fail "$understudy does not exist: run 'cargo build --release'"
if [ "$what" = check ]; then check; fi
if [ "$what" = save ]; then
  { [ guest.snap -nt initrd.img ] && [ guest.snap -nt cmdline ] && [ guest.snap -nt seed.img ] && is_usable "${disks[@]}"; } || {
    say "booting the guest up to 'guest: ready'"
    save_guest initrd.img "$memory" "${disks[@]}"
  }
fi
say "took $SECONDS s: $folder"
