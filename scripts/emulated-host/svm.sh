# shellcheck shell=bash disable=SC2034,SC2154 # Sourced by emulated-host.sh and two-hosts.sh, which set and use the variables.
#
# AMD SVM, which QEMU emulates (TCG).

boot_limit=900

# Sets `emulator_command`, which runs QEMU of the host's suite, with its own libraries, and with two corrections:
#
# - check_io() of target/i386/tcg wants TSS type 9 (available) in TR, where a processor has 11 (busy) after LTR. KVM sets
#   11, so that IN and OUT at CPL3 fault in QEMU although the I/O bitmap allows them. The segment's flags are compared with
#   8900h after `and eax, 8f00h`: with 8d00h instead, 11 counts as 9.
# - decode_op() adds the number of a control register to the code of the intercept unless the code is 0, which is that of
#   READ_CR0. So a read of CR3 counts as one of CR0, which KVM lets pass, and a guest with npt=0 sees the host's CR3. The
#   jump that leaves the addition out becomes a NOP.
#
# QEMU 7.2 (Debian 12) lacks the second fault, but in its SVM a host's kernel with two busy guests crashed or stood still
# every few minutes.
prepare_emulator() {
    local unpacked=$cache/qemu libraries original corrected=$cache/qemu-system-x86_64
    unpack_with_dependencies qemu-system-x86 qemu
    libraries=$unpacked/usr/lib/x86_64-linux-gnu
    original=$unpacked/usr/bin/qemu-system-x86_64
    if [[ ! $corrected -nt $original || ! $corrected -nt ${BASH_SOURCE[0]} ]]; then
        # and eax, 8f00h; cmp eax, 8900h. And: movzx eax, [r13 + 18h]; test al, al; je; add eax, edx; mov [r13 + 18h], al.
        perl -0777 -pe '
            BEGIN { binmode STDIN; binmode STDOUT }
            $found = s/\x25\x00\x8f\x00\x00(\x3d\x00\x89\x00\x00)/\x25\x00\x8d\x00\x00$1/sg;
            $found .= s/(\x41\x0f\xb6\x45\x18\x84\xc0)\x0f\x84.{4}(\x01\xd0\x41\x88\x45\x18)/$1\x66\x0f\x1f\x44\x00\x00$2/sg;
            END { $? = $found eq "11" ? 0 : 1 }' <"$original" >"$work/qemu" ||
            fail 1 "$original is another build than Debian 13's 10.0: it cannot be corrected"
        chmod 755 "$work/qemu"
        mv "$work/qemu" "$corrected"
    fi
    emulator_command=(
        env QEMU_MODULE_DIR="$libraries/qemu" "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$corrected"
        -L "$unpacked/usr/share/qemu" -L "$unpacked/usr/share/seabios"
    )
}

# Sets `machine`, the command line of the emulator for a host, all but its memory, its console and further devices.
describe_machine() {
    local tsc=$cache/tsc-khz append
    [[ $tsc -nt $parts/tsc-khz.c ]] || cc -O1 -o "$tsc" "$parts/tsc-khz.c" || fail 1 "tsc-khz.c does not compile"
    # The frequency is given, because a host that measures it while this machine is busy has a wrong clock.
    append="console=ttyS0 quiet nokaslr mitigations=off no_timer_check tsc=reliable tsc_early_khz=$("$tsc") panic=-1"
    machine=(
        "${emulator_command[@]}"
        -accel "tcg,thread=multi,tb-size=512" -machine q35 -cpu max -smp 2 -nodefaults -display none -no-reboot
        -kernel "$(echo "$kernel"/boot/vmlinuz-*)" -initrd "$work/initramfs.cpio"
        -append "$append KVM_MODULE=kvm_amd KVM_OPTIONS=npt=$paging"
    )
}

start_emulator() {
    local disk number=0
    describe_machine
    for disk in "${disks[@]}"; do
        machine+=(-drive "file=${disk//,/,,},format=raw,if=none,id=disk$number" -device "virtio-blk-pci,drive=disk$number")
        number=$((number + 1))
    done
    emulate "${machine[@]}" -m 3G -serial "file:$work/console"
}
