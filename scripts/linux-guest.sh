#!/bin/bash
# Builds a Linux guest from Debian packages and, with 'save', boots it and saves a snapshot in which it
# is ready to serve:
#
#   scripts/linux-guest.sh [build|save] [FOLDER]
#
# FOLDER (default: ~/.cache/understudy/linux-guest) receives vmlinuz, initramfs.cpio, versions.txt and,
# with 'save', guest.snap. Nothing is installed: packages are downloaded with apt and unpacked in
# FOLDER. A step is skipped if its result exists and is newer than its inputs (initramfs.cpio: than this
# script, too). guest.snap is also rebuilt if the program cannot start from it. UNDERSTUDY names the
# program (default: the release build).
#
# The guest runs unmodified busybox (shell on the serial console, httpd on port 80) and redis-server
# (port 6379) with their libraries and the kernel's virtio modules. Its address is 10.77.0.2/24.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
what=${1:-save}
folder=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy/linux-guest}
understudy=${UNDERSTUDY:-${CARGO_TARGET_DIR:-$here/target}/release/understudy}

packages="busybox-static redis-server redis-tools libc6 libatomic1 libjemalloc2 liblzf1 libssl3
  libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 libzstd1 libstdc++6 libgcc-s1"
# In load order: each module depends on the ones before it.
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover
  virtio_net"
programs="usr/bin/redis-server usr/bin/redis-cli"
cmdline="console=ttyS0 quiet ipv6.disable=1 mitigations=off init_on_alloc=0 audit=0 selinux=0 apparmor=0 \
nowatchdog cryptomgr.notests integrity_audit=0 \
initcall_blacklist=load_system_certificate_list,load_revocation_certificate_list"

say() { printf '%(%T)T  %s\n' -1 "$*" >&2; }
fail() { echo "linux-guest.sh: $*" >&2; exit 1; }
case $what in build | save) ;; *) fail "give 'build' or 'save', not '$what'" ;; esac
for tool in apt-get apt-cache dpkg-deb find; do
  command -v "$tool" > /dev/null || fail "$tool is needed (a Debian or Ubuntu host)"
done
mkdir -p "$folder"
cd "$folder"

download() {
  local kernel
  kernel=$(apt-cache depends linux-image-cloud-amd64 2> /dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
  [ -n "$kernel" ] || fail "apt knows no linux-image-cloud-amd64: run 'apt-get update' on a Debian host"
  say "downloading $kernel and $(wc -w <<< "$packages") packages"
  rm -rf packages.part && mkdir packages.part
  # As root, apt would drop to a user who may not write here, and print warnings about it.
  (cd packages.part && apt-get -qq -o APT::Sandbox::User=root download "$kernel" $packages)
  mv packages.part packages
}

unpack() {
  say "unpacking"
  rm -rf root.part && mkdir root.part
  for package in packages/*.deb; do dpkg-deb -x "$package" root.part; done
  mv root.part root
  for package in packages/*.deb; do
    dpkg-deb -f "$package" Package Version | sed 's/^[^:]*: //' | paste -sd' '
  done > versions.txt
}

# Prints the program's libraries, as its own loader finds them in the unpacked packages.
libraries() {
  local dirs=root/lib/x86_64-linux-gnu:root/usr/lib/x86_64-linux-gnu
  root/lib64/ld-linux-x86-64.so.2 --inhibit-cache --library-path "$dirs" --list "$1" |
    sed -n 's/^.* => \(.*\) (0x.*$/\1/p; s/^.*not found.*$/&/p'
}

initramfs() {
  say "making the initramfs"
  local tree=tree.part program library
  rm -rf $tree && mkdir -p $tree/{bin,dev,proc,sys,tmp,www,modules,lib64,usr/bin} $tree/lib/x86_64-linux-gnu
  cp root/bin/busybox $tree/bin/
  # Copied from the real path: the link is absolute and would lead out of the folder.
  cp -L root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 $tree/lib64/
  for program in $programs; do
    cp -L "root/$program" $tree/usr/bin/
    for library in $(libraries "root/$program"); do
      case $library in
        root/*) cp -L "$library" $tree/lib/x86_64-linux-gnu/ ;;
        *) fail "$program needs a library that none of the packages contains: $library" ;;
      esac
    done
  done
  local directory
  directory=$(echo root/lib/modules/*/kernel)
  for module in $modules; do
    find "$directory" -name "$module.ko" -exec cp {} $tree/modules/ \;
    [ -f "$tree/modules/$module.ko" ] || fail "the kernel has no module $module"
  done
  echo '<!doctype html><title>guest</title><p>A Debian kernel, redis and busybox' > $tree/www/index.html
  sed "s/@MODULES@/$(echo $modules)/" > $tree/init << 'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
for module in @MODULES@; do insmod /modules/$module.ko; done
ip link set lo up
ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.77.0.1
httpd -h /www
redis-server --save '' --appendonly no --protected-mode no --daemonize yes > /dev/null
until redis-cli ping > /dev/null 2>&1; do sleep 0.2; done
echo "guest: $(uname -sr), $(redis-server --version | cut -d' ' -f1-3)"
echo 'guest: ready'
while :; do setsid cttyhack sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1; done
INIT
  chmod 755 $tree/init
  (cd $tree && find . | LC_ALL=C sort | ./bin/busybox cpio -o -H newc 2> /dev/null) > initramfs.part
  mv initramfs.part initramfs.cpio
  rm -rf $tree
  cp root/boot/vmlinuz-* vmlinuz
}

# Scans for instructions that run at CPL3 and cannot be made to fault (docs/determinism.md).
sweep() {
  say "sweeping programs and modules"
  for file in root/bin/busybox root/usr/bin/redis-server root/usr/bin/redis-cli \
    $(libraries root/usr/bin/redis-server | grep ^root/) root/lib64/ld-linux-x86-64.so.2 \
    $(for module in $modules; do find root/lib/modules -name "$module.ko"; done); do
    echo "$file: $("$understudy" inspect "$file" | tail -1)"
  done > sweep.part
  mv sweep.part sweep.txt
}

save() {
  say "booting the guest up to 'guest: ready' (about two minutes where KVM emulates kernel code)"
  local start=$SECONDS
  "$understudy" save guest.snap --kernel vmlinuz --initrd initramfs.cpio --memory 256 \
    --cmdline "$cmdline" --kernel-shortcuts --slow-clock 16 --deadline-us 20000 --for 7200 \
    --when 'guest: ready' --json > save.json
  say "saved $folder/guest.snap after $((SECONDS - start)) s"
}

# Returns whether guest.snap is valid, of this version's format, and from a host like this one.
is_usable() {
  "$understudy" run --restore guest.snap --for 0.1 --quiet > /dev/null 2>&1
}

[ -d packages ] || download
[ versions.txt -nt packages ] || unpack
[ initramfs.cpio -nt versions.txt ] && [ initramfs.cpio -nt "$here/scripts/linux-guest.sh" ] || initramfs
[ -x "$understudy" ] || fail "$understudy does not exist: run 'cargo build --release'"
[ sweep.txt -nt initramfs.cpio ] || sweep
if [ "$what" = save ]; then
  { [ guest.snap -nt initramfs.cpio ] && is_usable; } || save
fi
say "done: $folder"
