#!/bin/bash
# Builds a Linux guest from Debian packages and, with 'save', boots it and saves a snapshot in which it
# is ready to serve:
#
#   scripts/linux-guest.sh [--kernel KERNEL] [--suite SUITE] [--disk MIB] [build|save] [FOLDER]
#
#   --kernel KERNEL   a version (6.12: the newest cloud kernel of 6.12 that apt knows) or a package
#                     (linux-image-amd64); default: linux-image-cloud-amd64
#   --suite SUITE     the Debian suite that the kernel is from (trixie, trixie-backports), with package
#                     lists in FOLDER; default: the suites that this host's apt knows
#   --disk MIB        also make data.img, an ext4 file system of this size, which the guest gets as its disk and
#                     on which redis keeps an append-only file (appendfsync always), and SQLite a database
#                     (synchronous=FULL; each line that port 6380 receives is executed by sqlite3)
#
# FOLDER (default: ~/.cache/understudy/linux-guest, with -KERNEL, -SUITE and -disk appended if they are given)
# receives vmlinuz, initramfs.cpio, cmdline, versions.txt, with --disk data.img, and with 'save' guest.snap.
# data.img is not replaced if it exists. Nothing is installed:
# packages are downloaded with apt and unpacked in FOLDER. A step is skipped if its result exists and is
# newer than its inputs. After a change of this script the initramfs is made again, and replaced if its
# files differ. guest.snap is also rebuilt if the program cannot start from it. UNDERSTUDY names the
# program (default: the release build), DEBIAN_MIRROR where --suite downloads from.
#
# The guest runs unmodified busybox (shell on the serial console, httpd on port 80) and redis-server
# (port 6379) with their libraries and the kernel's virtio modules. Its address is 10.77.0.2/24.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/linux-guest/common.sh
source "$here/scripts/linux-guest/common.sh"
kernel='' suite='' disk=''
while [[ ${1:-} == -* ]]; do
  case $1 in
    --kernel) kernel=${2:-} ;;
    --suite) suite=${2:-} ;;
    --disk) disk=${2:-} ;;
    -h | --help) sed -n '2,26s/^# \{0,1\}//p' "$0"; exit ;;
    *) fail "$1 is no option: see --help" ;;
  esac
  [[ ${2:-} =~ ^[a-zA-Z0-9][a-zA-Z0-9.+_-]*$ ]] || fail "$1 needs a name, not '${2:-}'"
  shift 2
done
[[ $disk =~ ^([1-9][0-9]*)?$ ]] || fail "--disk needs a size in MiB, not '$disk'"
what=${1:-save}
folder=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy/linux-guest${kernel:+-$kernel}${suite:+-$suite}${disk:+-disk}}
understudy=${UNDERSTUDY:-${CARGO_TARGET_DIR:-$here/target}/release/understudy}

packages="busybox-static redis-server redis-tools libc6 libatomic1 libjemalloc2 liblzf1 libssl3
  libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 libzstd1 libstdc++6 libgcc-s1
  ${disk:+sqlite3 libsqlite3-0 libreadline8 libtinfo6 zlib1g}"
# In load order: each module depends on the ones before it. A kernel may have some of them built in.
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover
  virtio_net virtio_blk crc16 crc32c_generic mbcache jbd2 ext4"
# Newer kernels have these in other modules or in none.
may_lack="crc16 crc32c_generic"
programs="usr/bin/redis-server usr/bin/redis-cli ${disk:+usr/bin/sqlite3}"
cmdline=$kernel_parameters

case $what in build | save) ;; *) fail "give 'build' or 'save', not '$what'" ;; esac
for tool in apt-get apt-cache dpkg-deb find xz ${disk:+mke2fs}; do
  command -v "$tool" > /dev/null || fail "$tool is needed (a Debian or Ubuntu host)"
done
mkdir -p "$folder"
cd "$folder"
if [ -e vmlinuz ] && [ ! -e cmdline ]; then
  # Made by a version of this script that kept no cmdline and had the same.
  echo "$cmdline" > cmdline
  touch -r vmlinuz cmdline
fi
write_cmdline "$cmdline"

# Runs apt-get or apt-cache for the kernel: with the package lists of --suite, if it is given.
kernel_apt() {
  if [ -z "$suite" ]; then "$@"; else APT_CONFIG=$PWD/apt/apt.conf "$@"; fi
}

# Makes package lists of --suite in FOLDER.
read_suite() {
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -e $keys ] || fail "$keys is needed (package debian-archive-keyring)"
  mkdir -p apt/lists/partial apt/cache/archives/partial
  echo "deb [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main" > apt/sources.list
  cat > apt/apt.conf << CONF
Dir::Etc::sourcelist "$PWD/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$PWD/apt/lists";
Dir::Cache "$PWD/apt/cache";
Acquire::Languages "none";
CONF
  kernel_apt apt-get -qq -o APT::Sandbox::User=root update || fail "apt cannot read the package lists of $suite"
}

# Prints the packages on which package $1 depends and whose names match $2.
depends() { kernel_apt apt-cache depends "$1" 2> /dev/null | sed -n "s/^ *Depends: \($2\)\$/\1/p"; }

# Prints the packages of the kernel: its image and, since Linux 7, the two packages that the image consists of.
kernel_packages() {
  local image=${kernel:-linux-image-cloud-amd64}
  if [[ $image =~ ^[0-9] ]]; then
    image=$(kernel_apt apt-cache search --names-only "^linux-image-${image//[.+]/[.+]}[.+].*cloud-amd64\$" |
      cut -d' ' -f1 | sort -V | tail -1)
    [ -n "$image" ] || fail "apt knows no cloud kernel $kernel${suite:+ in $suite}: see --help, or run 'apt-get update'"
  elif [[ ! $image =~ ^linux-image-[0-9] ]]; then
    image=$(depends "$image" 'linux-image-[0-9].*' | head -1)
    [ -n "$image" ] || fail "apt knows no ${kernel:-linux-image-cloud-amd64}: run 'apt-get update' on a Debian host"
  fi
  echo "$image"
  depends "$image" 'linux-\(base\|binary\|modules\)-[0-9].*'
}

# Returns whether all packages but those of the kernel are there; a version of this script may have had fewer.
has_packages() {
  local package
  for package in $packages; do
    compgen -G "packages/${package}_*.deb" > /dev/null || return 1
  done
}

download() {
  local of_kernel
  [ -z "$suite" ] || read_suite
  of_kernel=$(kernel_packages)
  say "downloading ${of_kernel%%$'\n'*} and $(wc -w <<< "$packages") packages"
  rm -rf packages.part && mkdir packages.part
  # As root, apt would drop to a user who may not write here, and print warnings about it.
  (
    cd packages.part
    apt-get -qq -o APT::Sandbox::User=root download $packages
    [ -z "$suite" ] || export APT_CONFIG=../apt/apt.conf
    apt-get -qq -o APT::Sandbox::User=root download $of_kernel
  )
  rm -rf packages
  mv packages.part packages
}

unpack() {
  say "unpacking"
  rm -rf root.part && mkdir root.part
  for package in packages/*.deb; do dpkg-deb -x "$package" root.part; done
  # As on an installed system, where /bin, /lib and /lib64 are links to the folders in /usr.
  for part in bin lib lib64; do
    [ -d root.part/$part ] || continue
    mkdir -p root.part/usr/$part
    cp -a root.part/$part/. root.part/usr/$part/
    rm -rf "root.part/$part"
    ln -s usr/$part root.part/$part
  done
  [ -e root.part/lib ] || ln -s usr/lib root.part/lib
  rm -rf root
  mv root.part root
  for package in packages/*.deb; do
    dpkg-deb -f "$package" Package Version | sed 's/^[^:]*: //' | paste -sd' '
  done > versions.txt
}

# Copies the kernel's modules to the folder modules, and prints those that are not built in.
unpack_modules() {
  local directory module file
  directory=$(echo root/lib/modules/*/)
  rm -rf modules && mkdir modules
  for module in $modules; do
    file=$(find "$directory/kernel" -name "$module.ko*" -print -quit)
    case $file in
      *.ko) cp "$file" modules/ ;;
      *.ko.xz) xz -dc "$file" > "modules/$module.ko" ;;
      '')
        [[ " $may_lack " == *" $module "* ]] || grep -q "/$module\.ko" "$directory/modules.builtin" ||
          fail "the kernel has no module $module"
        continue
        ;;
      *) fail "$file is compressed in a way that is not known here" ;;
    esac
    echo "$module"
  done
}

# Prints the program's libraries, as its own loader finds them in the unpacked packages.
libraries() {
  local dirs=root/lib/x86_64-linux-gnu:root/usr/lib/x86_64-linux-gnu
  root/lib64/ld-linux-x86-64.so.2 --inhibit-cache --library-path "$dirs" --list "$1" |
    sed -n 's/^.* => \(.*\) (0x.*$/\1/p; s/^.*not found.*$/&/p'
}

initramfs() {
  say "making the initramfs"
  local tree=tree.part program library loaded
  loaded=$(unpack_modules)
  rm -rf $tree && mkdir -p $tree/{bin,data,dev,proc,sys,tmp,www,modules,lib64,usr/bin} $tree/lib/x86_64-linux-gnu
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
  cp modules/*.ko $tree/modules/
  echo '<!doctype html><title>guest</title><p>A Debian kernel, redis and busybox' > $tree/www/index.html
  sed "s/@MODULES@/$(echo $loaded)/; ${disk:+s,@DATABASE@,. /database,;} /@DATABASE@/d" > $tree/init << 'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
for module in @MODULES@; do insmod /modules/$module.ko; done
ip link set lo up
ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.77.0.1
httpd -h /www
set -- --appendonly no
if [ -b /dev/vda ] && mount -t ext4 /dev/vda /data; then
  set -- --dir /data --appendonly yes --appendfsync always
  @DATABASE@
  echo 'guest: the data are on /dev/vda'
fi
redis-server --save '' "$@" --protected-mode no --daemonize yes > /dev/null
until [ "$(redis-cli ping 2> /dev/null)" = PONG ]; do sleep 0.2; done
echo "guest: $(uname -sr), $(redis-server --version | cut -d' ' -f1-3)"
echo 'guest: ready'
while :; do setsid cttyhack sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1; done
INIT
  chmod 755 $tree/init
  [ -z "$disk" ] || cat > $tree/database << 'DATABASE'
sqlite3 /data/numbers.db 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS numbers (id INTEGER PRIMARY KEY)' > /dev/null
nc -ll -p 6380 -e sqlite3 -batch -cmd 'PRAGMA synchronous=FULL' /data/numbers.db &
DATABASE
  # What contains the same files is kept, and so is the snapshot that was made from it.
  rm -rf previous && mkdir previous
  if ! { [ -f initramfs.cpio ] && [ initramfs.cpio -nt versions.txt ] &&
    (cd previous && ../$tree/bin/busybox cpio -i < ../initramfs.cpio) && diff -r previous $tree; } > /dev/null 2>&1; then
    (cd $tree && find . | LC_ALL=C sort | ./bin/busybox cpio -o -H newc 2> /dev/null) > initramfs.part
    mv initramfs.part initramfs.cpio
    cp "$(find root/boot/ root/lib/modules/*/ -maxdepth 1 -name 'vmlinuz*' -print -quit 2> /dev/null)" vmlinuz
  fi
  rm -rf $tree previous
  touch initramfs.checked
}

# Scans for instructions that run at CPL3 and cannot be made to fault (docs/determinism.md).
sweep() {
  say "sweeping programs and modules"
  for file in root/bin/busybox $(printf 'root/%s\n' $programs) \
    $(for program in $programs; do libraries "root/$program"; done | grep ^root/ | sort -u) root/lib64/ld-linux-x86-64.so.2 \
    modules/*.ko; do
    echo "$file: $("$understudy" inspect "$file" | tail -1)"
  done > sweep.part
  mv sweep.part sweep.txt
}

save() {
  say "booting the guest up to 'guest: ready' (about two minutes where KVM emulates kernel code)"
  save_guest initramfs.cpio 256 ${disk:+--disk data.img,format=raw}
}

# Makes the file system at once, so that the guest has nothing of it to finish.
make_disk() {
  say "making data.img of $disk MiB"
  rm -f data.part
  mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -L data data.part "${disk}M"
  mv data.part data.img
}

has_packages || download
[ versions.txt -nt packages ] || unpack
[ initramfs.checked -nt versions.txt ] && [ initramfs.checked -nt "$here/scripts/linux-guest.sh" ] || initramfs
[ -x "$understudy" ] || fail "$understudy does not exist: run 'cargo build --release'"
[ sweep.txt -nt initramfs.cpio ] || sweep
[ -z "$disk" ] || [ -e data.img ] || make_disk
if [ "$what" = save ]; then
  { [ guest.snap -nt initramfs.cpio ] && [ guest.snap -nt cmdline ] && is_usable ${disk:+--disk data.img,format=raw}; } || save
fi
say "took $SECONDS s: $folder"
