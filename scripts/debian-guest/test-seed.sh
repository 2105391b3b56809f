#!/usr/bin/env bash
# Tests that the guest's read-seed understands the seeds that debian-guest.sh makes and those that people write for cloud-init,
# and says what it does not understand. Takes less than a second.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Applies seed $1 to the empty root file system $work/NAME, and keeps what it says in $work/NAME.txt. NAME is $2.
apply() {
    mkdir -p "$work/$2/etc" "$work/$2/root"
    "$here/debian-guest/root/usr/local/sbin/read-seed" "$1" "$work/$2" >"$work/$2.txt" 2>&1
}
# Fails unless file $1 has the lines of standard input and no others.
expect() {
    diff - "$work/$1" >&2 || {
        echo "test-seed.sh: $1 differs: < is expected" >&2
        exit 1
    }
}

echo 'ssh-ed25519 AAAAC3 someone@somewhere' >"$work/key.pub"
"$here/debian-guest.sh" --name vm7 --ip 192.0.2.7/25 --gateway 192.0.2.1 --ssh-key "$work/key.pub" seed "$work/made" 2>/dev/null
apply "$work/made/seed" own
expect own/run/systemd/network/10-seed.network <<'END'
[Match]
Name=eth0

[Network]
Address=192.0.2.7/25
Gateway=192.0.2.1
END
expect own/etc/hostname <<<'vm7'
expect own/root/.ssh/authorized_keys <"$work/key.pub"
expect own.txt </dev/null
[[ $(stat -c %a "$work/own/root/.ssh/authorized_keys") == 600 ]]

mkdir "$work/other"
printf '%s\n' 'instance-id: "i-1"' "local-hostname: 'web'  " >"$work/other/meta-data"
cat >"$work/other/user-data" <<'END'
#cloud-config
package_update: true
ssh_authorized_keys:
- ssh-rsa AAAAB3 one
# A comment.
- "ssh-ed25519 AAAAC3 two"
users:
  - name: nobody
END
cat >"$work/other/network-config" <<'END'
# For two families.
version: 2
ethernets:
  nic0:
    match:
      macaddress: "52:54:00:77:00:02"
    set-name: eth0
    dhcp4: false
    addresses:
      - 192.0.2.9/24
      - "2001:db8::9/64"   # documentation
    gateway4: 192.0.2.1
    mtu: 1400
    nameservers:
      addresses: [9.9.9.9, 149.112.112.112]
END
apply "$work/other" other
expect other/run/systemd/network/10-seed.network <<'END'
[Match]
MACAddress=52:54:00:77:00:02

[Network]
Address=192.0.2.9/24
Address=2001:db8::9/64
Gateway=192.0.2.1
DNS=9.9.9.9
DNS=149.112.112.112
END
expect other/etc/hostname <<<'web'
expect other/etc/resolv.conf <<'END'
nameserver 9.9.9.9
nameserver 149.112.112.112
END
expect other/root/.ssh/authorized_keys <<'END'
ssh-rsa AAAAB3 one
ssh-ed25519 AAAAC3 two
END
expect other.txt <<'END'
read-seed: network-config: not understood: mtu: 1400
read-seed: user-data: package_update is not understood
read-seed: user-data: users is not understood
END

# A second start of the same instance keeps what has changed since, but sets the network again. Another instance does not.
echo changed >"$work/own/etc/hostname"
rm "$work/own/run/systemd/network/10-seed.network"
apply "$work/made/seed" own
expect own/etc/hostname <<<'changed'
[[ -s $work/own/run/systemd/network/10-seed.network ]]
sed -i 's/^instance-id: .*/instance-id: next/' "$work/made/seed/meta-data"
apply "$work/made/seed" own
expect own/etc/hostname <<<'vm7'

# A seed without its files is refused.
rm "$work/other/meta-data"
if apply "$work/other" other; then
    echo 'test-seed.sh: a seed without meta-data was applied' >&2
    exit 1
fi
expect other.txt <<<'read-seed: the seed has no meta-data'
