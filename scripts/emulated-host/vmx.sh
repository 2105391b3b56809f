# shellcheck shell=bash disable=SC2034,SC2154 # Sourced by emulated-host.sh, which sets and uses the variables.
#
# Intel VMX, which Bochs emulates.

boot_limit=900
# Instructions per emulated second.
instructions=200000000

# Builds Bochs from Debian's source package: Debian's binary has a debugger and several processors, which make it slow,
# and lacks one correction.
#
# What an EPT violation saves in RFLAGS.RF depends on bit 31 of the IDT-vectoring information (SDM vol. 3, "Saving RIP,
# RSP, RFLAGS, and SSP"). Bochs
# asks `in_event` instead, which is clear by then, so that RF becomes 1 in a guest whose interrupt was just being
# delivered.
prepare_emulator() {
    unpack bochsbios bochsbios
    unpack vgabios vgabios
    unpack isolinux isolinux
    unpack syslinux-common syslinux
    bochs=$cache/bochs
    [[ ! -x $bochs ]] || return 0
    own_apt
    say "building Bochs (4 minutes with two free cores)"
    local source=$work/bochs old='if (! BX_CPU_THIS_PTR in_event)' new='if (! (VMread32(VMCS_32BIT_IDT_VECTORING_INFO) \& 0x80000000))'
    mkdir "$source"
    (cd "$source" && apt-get -qq source --tar-only --download-only bochs && tar --strip-components=1 -xf bochs_*.orig.tar.*) \
        >"$work/apt.txt" 2>&1 || fail 1 "the source of Bochs cannot be had: $(tail -n 1 "$work/apt.txt")"
    [[ $(grep -cF "$old" "$source/cpu/vmx.cc") == 1 ]] ||
        fail 1 "the source of Bochs is not as expected: VMexitReadEFLAGS in cpu/vmx.cc no longer asks in_event once"
    sed -i "s/$old/$new/" "$source/cpu/vmx.cc"
    (
        cd "$source"
        export CFLAGS='-O2 -march=native' CXXFLAGS='-O2 -march=native'
        ./configure --enable-x86-64 --enable-cpu-level=6 --enable-all-optimizations --enable-vmx=2 --enable-avx \
            --enable-evex --enable-pci --disable-docbook --with-nogui --with-term=no && make -j"$(nproc)"
    ) >"$cache/bochs-build.txt" 2>&1 || fail 1 "Bochs does not build: see $cache/bochs-build.txt"
    strip -o "$work/stripped" "$source/bochs"
    mv "$work/stripped" "$bochs"
    rm -rf "$source"
}

start_emulator() {
    local disc=$work/disc
    mkdir -p "$disc/isolinux"
    cp "$kernel"/boot/vmlinuz-* "$disc/vmlinuz"
    mv "$work/initramfs.cpio" "$disc/"
    cp "$cache/isolinux/usr/lib/ISOLINUX/isolinux.bin" "$cache/syslinux/usr/lib/syslinux/modules/bios/ldlinux.c32" "$disc/isolinux/"
    # The processor's CPUID claims 3.5 GHz; tsc_early_khz is what is true. What takes long and is not needed is left out.
    cat >"$disc/isolinux/isolinux.cfg" <<CFG
default host
prompt 0
timeout 1
label host
  kernel /vmlinuz
  initrd /initramfs.cpio
  append console=ttyS0,115200 quiet nokaslr mitigations=off no_timer_check tsc=reliable tsc_early_khz=$((instructions / 1000)) random.trust_cpu=1 nowatchdog audit=0 selinux=0 apparmor=0 cryptomgr.notests initcall_blacklist=load_system_certificate_list,load_revocation_certificate_list rcupdate.rcu_cpu_stall_suppress=1 KVM_MODULE=kvm_intel KVM_OPTIONS=ept=$paging
CFG
    xorriso -as mkisofs -quiet -o "$work/host.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
        -boot-load-size 4 -boot-info-table "$disc" >"$work/emulator.txt" 2>&1 || fail 1 "no CD image: $(last_words)"
    rm -rf "$disc"
    cat >"$work/bochsrc" <<RC
plugin_ctrl: unmapped=1, biosdev=1, serial=1, speaker=0
config_interface: textconfig
display_library: nogui
cpu: model=corei7_skylake_x, count=1, ips=$instructions, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=$cache/bochsbios/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=$(find "$cache/vgabios/" -name vgabios.bin -print -quit)
clock: sync=none, time0=utc
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/host.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/console
log: $work/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
RC
    emulate "$bochs" -q -f "$work/bochsrc"
}
