# shellcheck shell=bash disable=SC2154 # Sourced by emulated-host.sh and two-hosts.sh, which set the variables.
#
# What an emulated host boots: a kernel of Debian's and an initramfs.

# Sets `kernel` and `modules`, the folders of the unpacked kernel that package $1 depends on. It is kept as $2.
prepare_kernel() {
    kernel=$cache/$2
    if [[ ! -d $kernel ]]; then
        own_apt
        local package
        package=$(apt-cache depends "$1" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
        [[ $package ]] || fail 1 "${HOST_SUITE:-trixie} has no $1"
        unpack "$package" "$2"
    fi
    unpack busybox-static busybox
    modules=$(find "$kernel" -type d -path '*/lib/modules/*' -name kernel -print -quit)
    [[ $modules ]] || fail 1 "$kernel has no modules: delete it, so that it is downloaded again"
}

# Copies module $1 into the image, and first those that it needs. One that does not exist is part of the kernel.
add_module() {
    local name=$1 file needed
    [[ ! -e $tree/modules/$name.ko ]] || return 0
    file=$(find "$modules" -name "${name//_/[-_]}.ko*" -print -quit)
    case $file in
    '') return 0 ;;
    *.xz) xz -dc "$file" >"$tree/modules/$name.ko" ;;
    *.ko) cp "$file" "$tree/modules/$name.ko" ;;
    *) fail 1 "$file is compressed in a way that is not known here" ;;
    esac
    for needed in $(tr '\0' '\n' <"$tree/modules/$name.ko" | LC_ALL=C sed -n 's/^depends=//p' | tr ',-' ' _'); do
        add_module "$needed"
    done
    echo "$name" >>"$tree/modules/order"
}

# Copies program $1 into folder $2 of the image, stripped, with the libraries that it loads.
add_program() {
    local library
    strip -o "$tree/$2/${1##*/}" "$1" 2>/dev/null || cp -L "$1" "$tree/$2/"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [[ -e $tree$library ]] || install -D "$(realpath "$library")" "$tree$library"
    done
}

# Makes $work/initramfs.cpio, whose init runs command line $1 (emulated-host/init). Further arguments are modules that it
# loads besides those that understudy needs.
make_initramfs() {
    local program module
    tree=$work/tree
    mkdir -p "$tree"/{bin,sbin,dev,etc,lib,lib64,modules,proc,root,run/netns,sys,tmp,usr/bin,usr/local/bin}
    cp "$cache/busybox/usr/bin/busybox" "$tree/bin/" 2>/dev/null || cp "$cache/busybox/bin/busybox" "$tree/bin/"
    for program in bash bridge chrt curl ip ping redis-benchmark redis-cli setpriv ss ssh taskset tc; do
        if command -v "$program" >/dev/null; then add_program "$(command -v "$program")" usr/bin; fi
    done
    [[ -x $binaries/understudy ]] || fail 1 "$binaries has no program understudy"
    for program in understudy soak pair-soak; do
        if [[ -x $binaries/$program ]]; then add_program "$binaries/$program" usr/local/bin; fi
    done
    if [[ ${files:-} ]]; then cp -r "$files" "$tree/root/"; fi
    for module in tun veth bridge sch_netem kvm_amd kvm_intel "${@:2}"; do add_module "$module"; done
    cc -O1 -static -o "$tree/bin/hold-vcpu" "$parts/hold-vcpu.c" || fail 1 "hold-vcpu.c does not compile"
    install -m 755 "$parts/init" "$tree/init"
    install -m 755 "$parts/linux-guest-test" "$tree/usr/local/bin/"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    echo '127.0.0.1 localhost' >"$tree/etc/hosts"
    printf '%s\n' "$1" >"$tree/root/command"
    (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs.cpio"
    rm -rf "$tree"
}
