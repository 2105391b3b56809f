# shellcheck shell=bash
#
# What a machine of two-hosts.sh runs after booting: mounts its disk, gives its LAN NIC the address that the disk says, and
# executes the files NAME.sh that appear in the disk's folder `do`. Their output is NAME.txt, their exit code NAME.code.

# Debian's programs find these here.
mkdir -p /disk
ln -s /bin/env /usr/bin/env
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=262144 disk /disk
mount --bind /disk/etc /etc
ip addr add "$(cat /disk/address)" dev eth0
ip link set eth0 up

execute() {
    local name=${1%.sh}
    cd /disk/understudy || exit
    bash "$1" >"$name.txt" 2>&1 </dev/null
    echo $? >"$name.new"
    mv "$name.new" "$name.code"
}

# Reading from a pipe that nobody writes to is a pause that needs no process.
mkfifo /run/never
exec {never}<>/run/never
: >/disk/up
while :; do
    for file in /disk/do/*.sh; do
        [[ -e $file ]] || continue
        mv "$file" "/disk/done/${file##*/}"
        execute "/disk/done/${file##*/}" &
    done
    read -r -t 0.2 -u "$never"
done
