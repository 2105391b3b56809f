# shellcheck shell=bash disable=SC2034,SC2154 # Sourced by emulated-host.sh and two-hosts.sh, which set and use the variables.
#
# AMD SVM, which QEMU emulates (TCG).

boot_limit=900

# Sets `qemu` to a copy of qemu-system-x86_64 with a corrected port check.
#
# check_io() of target/i386/tcg wants TSS type 9 (available) in TR, where a processor has 11 (busy) after LTR. KVM sets
# 11, so that IN and OUT at CPL3 fault in QEMU although the I/O bitmap allows them. The type is compared
# after `and eax, 0fh`: with 0dh instead, 11 counts as 9.
prepare_emulator() {
    local original
    original=$(realpath "$(command -v qemu-system-x86_64)")
    qemu=$cache/qemu-system-x86_64
    [[ ! $qemu -nt $original ]] || return 0
    # test ah, 80h; je; shr eax, 8; and eax, 0fh; cmp eax, 9; jne; cmp [tss limit], 67h
    perl -0777 -pe '
        BEGIN { binmode STDIN; binmode STDOUT }
        $found = s/(\xf6\xc4\x80\x0f\x84.{4}\xc1\xe8\x08\x83\xe0)\x0f(\x83\xf8\x09\x0f\x85.{4}\x83\xbf.{4}\x66)/$1\x0d$2/sg;
        END { $? = $found == 1 ? 0 : 1 }' <"$original" >"$work/qemu" ||
        fail 1 "$original is of another compiler than Debian 12's: its port check (check_io) cannot be corrected"
    chmod 755 "$work/qemu"
    # Newer than the original, whatever the clocks say.
    touch -r "$original" -d '+1 second' "$work/qemu"
    mv "$work/qemu" "$qemu"
}

# Sets `machine`, the command line of the emulator for a host, all but its memory, its console and further devices.
describe_machine() {
    local tsc=$cache/tsc-khz append
    [[ $tsc -nt $parts/tsc-khz.c ]] || cc -O1 -o "$tsc" "$parts/tsc-khz.c" || fail 1 "tsc-khz.c does not compile"
    # The frequency is given, because a host that measures it while this machine is busy has a wrong clock.
    append="console=ttyS0 quiet nokaslr mitigations=off no_timer_check tsc=reliable tsc_early_khz=$("$tsc") panic=-1"
    # A copy does not find its modules by itself.
    machine=(
        env QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu "$qemu" -L /usr/share/qemu -L /usr/share/seabios
        -accel "tcg,thread=multi,tb-size=512" -machine q35 -cpu max -smp 2 -nodefaults -display none -no-reboot
        -kernel "$(echo "$kernel"/boot/vmlinuz-*)" -initrd "$work/initramfs.cpio"
        -append "$append KVM_MODULE=kvm_amd KVM_OPTIONS=npt=$paging"
    )
}

start_emulator() {
    describe_machine
    emulate "${machine[@]}" -m 3G -serial "file:$work/console"
}
