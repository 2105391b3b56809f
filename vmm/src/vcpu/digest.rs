//! The vCPU digest that is compared at a position: a hash of everything that the run page provides without an
//! ioctl.

use crate::kvm::canonical::events_at_position;
use crate::kvm::{Direction, Vcpu, VmExit};
use logchan::entry::REGISTERS;
use replication::boundary::VcpuDigest;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::IntoBytes;

/// Most bytes of an exit that are hashed, without an OUT's data.
const EXIT_MAX: usize = 24;

/// Returns the digest and the general registers at `exit`.
///
/// # Panics
///
/// If `exit` is not a position.
pub(super) fn vcpu_digest(vcpu: &mut Vcpu, exit: &VmExit) -> VcpuDigest {
    let exit = exit_digest(vcpu, exit);
    // Whether an interrupt can be injected follows from RFLAGS.IF and the events.
    let interrupts = u64::from(vcpu.interrupts_enabled());
    let sync = vcpu.sync_regs();
    let digest = replication::vcpu_digest([
        xxh3_64(sync.regs.as_bytes()),
        xxh3_64(sync.sregs.as_bytes()),
        xxh3_64_with_seed(events_at_position(sync.events).as_bytes(), interrupts),
        exit,
    ]);
    VcpuDigest { digest, registers: registers(vcpu) }
}

/// Returns the hash of the exit itself and of its data.
fn exit_digest(vcpu: &mut Vcpu, exit: &VmExit) -> u64 {
    let mut buffer = [0u8; EXIT_MAX];
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        buffer[used..used + bytes.len()].copy_from_slice(bytes);
        used += bytes.len();
    };
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
    xxh3_64_with_seed(&buffer[..used], seed)
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
