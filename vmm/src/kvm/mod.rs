//! The interface to KVM: the only user of `kvm-ioctls`, and the only place in this crate with `unsafe` code.
//!
//! # Rules that the unsafe blocks rely on
//!
//! 1. Guest memory given to KVM stays mapped as long as the VM's file descriptor is open: [`vm::Vm`]
//!    owns a clone of the `GuestRam`, whose mapping is reference-counted.
//! 2. The `kvm_run` page is read and written only by the thread that runs the vCPU, and only
//!    between two `KVM_RUN` calls. The one exception is the byte `immediate_exit`: a signal handler
//!    may set it at any time, through a mapping of its own (`kick::Aim`).
//! 3. `exit_reason` alone determines which member of `kvm_run`'s exit union is valid
//!    (Documentation/virt/kvm/api.rst, section 5).

pub(crate) mod canonical;
pub mod caps;
pub mod clock;
pub mod credentials;
pub mod entropy;
pub mod error;
pub mod exit;
pub mod kick;
mod msr_filter;
pub mod offered_models;
pub mod pass_fd;
pub mod pidfd;
pub mod priority;
pub mod process;
pub mod profile;
pub mod secret_page;
pub mod state;
pub mod system;
pub mod vcpu;
pub mod vm;
mod xsave_tracking;

pub use error::KvmError;
pub use exit::{Direction, VmExit};
pub use state::VcpuState;
pub use system::System;
pub use vcpu::Vcpu;
pub use vm::Vm;
