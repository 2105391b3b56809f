//! Which io_uring features the running kernel has, of those that this crate needs.

use std::fmt;
use std::io;

use io_uring::{IoUring, opcode, register};

use super::buffers::RxBuffers;
use super::{core, ops};
use crate::error::PortError;

/// One kernel feature that the ports need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name for it.
    pub name: &'static str,
    /// The first Linux version that has it.
    pub since: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// Whether the running kernel has it.
    pub found: bool,
}

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Every feature needed, in the order of the kernel versions that brought them.
    pub features: Vec<Feature>,
}

impl ProbeReport {
    /// The features needed and not found.
    pub fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().filter(|f| !f.found)
    }

    /// Whether every feature needed was found.
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The report as a result: the newest of the missing features as an error, because a kernel
    /// that has it has the others too.
    pub fn into_result(self) -> Result<(), PortError> {
        match self.missing().last() {
            None => Ok(()),
            Some(f) => Err(PortError::RingFeature { feature: f.name, since: f.since }),
        }
    }
}

impl fmt::Display for ProbeReport {
    /// One line per feature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for feature in &self.features {
            let found = if feature.found { "yes" } else { "MISSING" };
            let Feature { name, since, purpose, found: _ } = feature;
            writeln!(f, "{name:<28} Linux {since:<5} {found:<8} {purpose}")?;
        }
        Ok(())
    }
}

/// Tries out the features on throw-away rings. An error means that io_uring as a whole is
/// unavailable; single missing features are in the report.
pub fn probe() -> Result<ProbeReport, PortError> {
    let plain = IoUring::new(2).map_err(explain_unavailable)?;
    let mut opcodes = register::Probe::new();
    let knows_opcodes = plain.submitter().register_probe(&mut opcodes).is_ok();
    let knows = |code: u8| knows_opcodes && opcodes.is_supported(code);
    let feature = |name, since, purpose, found| Feature { name, since, purpose, found };
    let features = vec![
        feature("IORING_OP_WRITE", "5.6", "sending frames", knows(opcode::Write::CODE)),
        feature(
            "IORING_FEAT_EXT_ARG",
            "5.11",
            "waiting with a time limit and a signal mask",
            plain.params().is_feature_ext_arg(),
        ),
        feature(
            "IORING_FEAT_CQE_SKIP",
            "5.17",
            "sending frames without an answer for each",
            plain.params().is_feature_skip_cqe_on_success(),
        ),
        feature(
            "IORING_REGISTER_PBUF_RING",
            "5.19",
            "receive buffers shared with the kernel",
            provides_buffers(&plain),
        ),
        feature(
            "IORING_SETUP_DEFER_TASKRUN",
            "6.1",
            "looking for frames without a system call",
            core::build_ring(2, 4).is_ok(),
        ),
        feature(
            "IORING_OP_READ_MULTISHOT",
            "6.7",
            "receiving frames without asking for each",
            knows(opcode::ReadMulti::CODE),
        ),
    ];
    Ok(ProbeReport { features })
}

fn provides_buffers(ring: &IoUring) -> bool {
    let Ok(buffers) = RxBuffers::new() else { return false };
    ops::try_buffer_ring(ring, &buffers)
}

fn explain_unavailable(error: io::Error) -> PortError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => PortError::RingUnavailable {
            why: "the kernel was built without it, or a seccomp filter hides it",
        },
        Some(libc::EPERM) => PortError::RingUnavailable {
            why: "sysctl kernel.io_uring_disabled=0, or allow it in the container's seccomp rules",
        },
        _ => PortError::System { doing: "cannot set up an io_uring", source: error },
    }
}

/// Turns the failure of setting up a port's ring into what is missing, by probing.
pub(super) fn explain_setup(error: io::Error) -> PortError {
    match probe().and_then(ProbeReport::into_result) {
        Err(explained) => explained,
        Ok(()) => PortError::System { doing: "cannot set up an io_uring", source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_features() {
        let report = probe().unwrap();
        assert!(report.is_complete(), "{report}");
        assert_eq!(report.to_string().lines().count(), report.features.len());
    }

    #[test]
    fn newest_missing_feature_is_reported() {
        let mut report = probe().unwrap();
        for feature in &mut report.features[3..] {
            feature.found = false;
        }
        assert_eq!(
            report.into_result().unwrap_err().to_string(),
            "io_uring lacks IORING_OP_READ_MULTISHOT: Linux 6.7 or newer is needed"
        );
    }
}
