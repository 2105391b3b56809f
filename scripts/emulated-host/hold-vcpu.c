// Keeps a VM with a vCPU that has no local APIC, so that KVM does not patch its code each time the last such vCPU goes
// (static key kvm_has_noapic_vcpu): QEMU's threads may execute the int3 of a patch that is over ("Oops: int3").
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);

    if (ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
        return 1;
    for (;;)
        pause();
}
