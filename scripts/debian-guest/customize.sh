#!/bin/sh
# mmdebstrap runs this at the end: it configures the root file system in folder $1, and writes vmlinuz, initrd.img and
# versions.txt to the folder OUTPUT.
set -eu
root=$1
parts=$(cd "$(dirname "$0")" && pwd)

# Ownership and the modes of folders are those of root and the packages.
(cd "$parts/root" && find . -type d) | while read -r folder; do mkdir -p "$root/$folder"; done
(cd "$parts/root" && find . -type f) | while read -r file; do
    mode=644
    [ ! -x "$parts/root/$file" ] || mode=755
    install -m $mode "$parts/root/$file" "$root/$file"
done

# The first start of a VM makes these.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
echo debian >"$root/etc/hostname"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
# systemd-resolved is not installed.
echo 'nameserver 9.9.9.9' >"$root/etc/resolv.conf"
chmod 644 "$root/etc/resolv.conf"
echo '/dev/vda / ext4 defaults,noatime 0 0' >"$root/etc/fstab"

sed -i -e 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/; s/^appendonly .*/appendonly yes/' \
    -e 's/^appendfsync .*/appendfsync always/; s/^# save ""$/save ""/' "$root/etc/redis/redis.conf"
mkdir -p "$root/var/lib/sqlite-demo"
chroot "$root" sqlite3 /var/lib/sqlite-demo/requests.db 'PRAGMA journal_mode = WAL; CREATE TABLE request (id INTEGER PRIMARY KEY, at INTEGER);' >/dev/null

# Nothing in the VM needs these, and each takes long where KVM emulates kernel code.
systemctl --root="$root" -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer systemd-logind.service systemd-pstore.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-random-seed.service systemd-network-generator.service systemd-modules-load.service \
    systemd-journal-flush.service kmod-static-nodes.service getty@tty1.service getty-static.service dev-hugepages.mount dev-mqueue.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount modprobe@.service \
    proc-sys-fs-binfmt_misc.automount
# The programs that make units at every start, but for the one that reads /etc/fstab.
mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/lib/systemd/system-generators/*; do
    [ "${generator##*/}" = systemd-fstab-generator ] || ln -s /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done
systemctl --root="$root" -q enable serial-getty@ttyS0.service read-seed.service guest-ready.service sqlite-demo.socket \
    systemd-networkd.service redis-server.service ssh.socket
systemctl --root="$root" -q disable systemd-networkd-wait-online.service ssh.service

chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt/* "$root"/var/cache/debconf/*-old

# What systemd would do at the first start, because it finds /usr newer than these, the packages have done.
touch "$root/etc/.updated" "$root/var/.updated"

cp "$root"/boot/vmlinuz-* "$OUTPUT/vmlinuz"
# Otherwise the VM's kernel would have to decompress it.
gzip -dc "$root"/boot/initrd.img-* >"$OUTPUT/initrd.img"
chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' >"$OUTPUT/versions.txt"
