//! The vCPU digest that is compared at a position: one hash of everything that the run page provides
//! without an ioctl.

use crate::kvm::canonical::events_at_position;
use crate::kvm::{Direction, Vcpu, VmExit};
use logchan::entry::REGISTERS;
use replication::boundary::VcpuDigest;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::IntoBytes;

/// Most bytes that are hashed: `struct kvm_regs`, `kvm_sregs`, `kvm_vcpu_events`, one flag, and the exit
/// in at most 24 bytes.
const FIXED_MAX: usize = 144 + 312 + 64 + 1 + 24;

/// Returns the digest and the general registers at `exit`.
///
/// # Panics
///
/// If `exit` is not a position.
pub(super) fn vcpu_digest(vcpu: &mut Vcpu, exit: &VmExit) -> VcpuDigest {
    let mut buffer = [0u8; FIXED_MAX];
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        buffer[used..used + bytes.len()].copy_from_slice(bytes);
        used += bytes.len();
    };
    // KVM's readiness to inject is not compared: it follows from the other state and the interrupt shadow.
    put(&[u8::from(vcpu.interrupts_enabled())]);
    let mut seed = 0;
    match *exit {
        VmExit::Pio { direction, port, size, count } => {
            if direction == Direction::Out {
                seed = xxh3_64(vcpu.pio_data());
            }
            put(&[1, direction as u8, size]);
            put(&port.to_le_bytes());
            put(&count.to_le_bytes());
        }
        VmExit::Mmio { direction, address, length, data } => {
            put(&[2, direction as u8, length]);
            put(&address.to_le_bytes());
            put(&data);
        }
        VmExit::Halt => put(&[3]),
        VmExit::IrqWindow => put(&[4]),
        VmExit::SetTpr => put(&[5]),
        VmExit::Interrupted
        | VmExit::Shutdown
        | VmExit::InternalError { .. }
        | VmExit::EntryFailed { .. }
        | VmExit::Unknown { .. } => unreachable!("{exit} is no position"),
    }
    let sync = vcpu.sync_regs();
    put(sync.regs.as_bytes());
    put(sync.sregs.as_bytes());
    put(events_at_position(sync.events).as_bytes());
    let digest = xxh3_64_with_seed(&buffer[..used], seed);
    VcpuDigest { digest, registers: registers(vcpu) }
}

/// Index of RIP in the array that [`registers`] returns.
pub(super) const RIP: usize = 16;

/// Returns the general registers at the last exit, in the order of `struct kvm_regs`.
pub(super) fn registers(vcpu: &mut Vcpu) -> [u64; REGISTERS] {
    let mut registers = [0; REGISTERS];
    let bytes = vcpu.sync_regs().regs.as_bytes();
    for (register, bytes) in registers.iter_mut().zip(bytes.chunks_exact(8)) {
        *register = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    }
    registers
}
