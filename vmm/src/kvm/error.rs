//! Errors of the interface to KVM.

use crate::boot::host_checks::{MEND_SHADOW_PAGING, SHADOW_PAGING};
use kvm_ioctls::Error as Errno;

/// This host can't run a VM, or a KVM call failed.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device node does not exist.
    #[error("{path} does not exist: load KVM (modprobe kvm_intel, kvm_amd or kvm_pvm)")]
    Missing {
        /// Path that was tried.
        path: String,
    },
    /// There is no permission to open the device node.
    #[error("no permission to open {path}: run as root or join the group that owns it (kvm)")]
    Permission {
        /// Path that was tried.
        path: String,
    },
    /// The device node is not KVM, or can't be opened for another reason.
    #[error("{path} can't be used as KVM: {source}")]
    Unusable {
        /// Path that was tried.
        path: String,
        /// Error of the system call.
        source: Errno,
    },
    /// The API version is not the stable one.
    #[error("KVM API version {found} is not supported, only 12 (the stable version)")]
    Version {
        /// Version that the kernel reports.
        found: i32,
    },
    /// The kvm module runs guests on shadow page tables, on which a replay can diverge.
    #[error("{SHADOW_PAGING}: {MEND_SHADOW_PAGING}")]
    ShadowPaging,
    /// A required capability is missing.
    #[error("this kernel's KVM lacks {name}: {why}")]
    Capability {
        /// Name of the capability constant.
        name: &'static str,
        /// Why it is required.
        why: &'static str,
    },
    /// A KVM ioctl failed.
    #[error("KVM call {call} failed: {source}")]
    Call {
        /// Name of the ioctl.
        call: &'static str,
        /// Error of the system call.
        source: Errno,
    },
    /// Another system call that the vCPU thread needs failed.
    #[error("{call} failed: {source}")]
    Os {
        /// Name of the system call.
        call: &'static str,
        /// Error of the system call.
        source: std::io::Error,
    },
    /// A saved state does not fit this host's KVM.
    #[error("the saved vCPU state does not fit this host: {what}")]
    State {
        /// What does not fit.
        what: String,
    },
}

impl KvmError {
    /// Returns a function that adds the name of the ioctl to an error.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(Errno) -> KvmError {
        move |source| KvmError::Call { call, source }
    }

    /// Returns a function that adds the name of another system call to an error.
    pub(crate) fn os(call: &'static str) -> impl FnOnce(nix::Error) -> KvmError {
        move |errno| KvmError::Os { call, source: errno.into() }
    }
}
