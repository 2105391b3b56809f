//! Why KVM could not be used.

use kvm_ioctls::Error as Errno;

/// An environment that does not let us run a VM, or a KVM call that failed.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device node is not there.
    #[error("{path} does not exist: load KVM (modprobe kvm_intel, kvm_amd or kvm_pvm)")]
    Missing {
        /// Path that was tried.
        path: String,
    },
    /// The device node may not be opened.
    #[error("no permission to open {path}: run as root or join the group that owns it (kvm)")]
    Permission {
        /// Path that was tried.
        path: String,
    },
    /// The node opened but is not KVM, or fails to open for another reason.
    #[error("{path} can't be used as KVM: {source}")]
    Unusable {
        /// Path that was tried.
        path: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The API version is not the stable one.
    #[error("KVM API version {found}, but only 12 (the stable one) is supported")]
    Version {
        /// Version the kernel reports.
        found: i32,
    },
    /// A capability this machine can't do without.
    #[error("this kernel's KVM lacks {name}: {why}")]
    Capability {
        /// Name of the capability constant.
        name: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
    /// One KVM call failed.
    #[error("KVM call {call} failed: {source}")]
    Call {
        /// Name of the ioctl.
        call: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// Another system call that the vCPU thread needs failed.
    #[error("{call} failed: {source}")]
    Os {
        /// What was called.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A saved state does not fit this host's KVM.
    #[error("the saved vCPU state does not fit this host: {what}")]
    State {
        /// What did not fit.
        what: String,
    },
}

impl KvmError {
    /// Names the ioctl that failed.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(Errno) -> KvmError {
        move |source| KvmError::Call { call, source }
    }

    /// Names another call that failed.
    pub(crate) fn os(call: &'static str) -> impl FnOnce(nix::Error) -> KvmError {
        move |errno| KvmError::Os { call, source: errno.into() }
    }
}
