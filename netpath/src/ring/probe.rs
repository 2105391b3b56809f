//! Which io_uring features the running kernel has, of those that this crate uses. Here is the one rule by
//! which a kernel is taken or refused: by trying what a port needs, not by the kernel's version.

use std::fmt;
use std::io;

use io_uring::{IoUring, Submitter, opcode, register};

use super::buffers::RxBuffers;
use super::{core, ops};
use crate::error::PortError;

/// What becomes of the ports where a feature is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// They can't be opened.
    Unusable,
    /// They work; what it costs.
    Slower {
        /// As a clause.
        cost: &'static str,
    },
}

/// One kernel feature that the ports use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name for it.
    pub name: &'static str,
    /// The first Linux version that has it.
    pub since: &'static str,
    /// What it is used for.
    pub purpose: &'static str,
    /// What becomes of the ports without it.
    pub without: Without,
    /// Whether the running kernel has it.
    pub found: bool,
}

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Every feature used, in the order of the kernel versions that brought them.
    pub features: Vec<Feature>,
}

impl ProbeReport {
    /// Whether every feature was found.
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The features without which the ports work that are missing, each with what that costs.
    pub fn slower_without(&self) -> impl Iterator<Item = (&Feature, &'static str)> {
        self.missing().filter_map(|feature| match feature.without {
            Without::Unusable => None,
            Without::Slower { cost } => Some((feature, cost)),
        })
    }

    /// Whether ports can be opened.
    ///
    /// # Errors
    ///
    /// The newest of the features that they can't do without and that are missing, because a kernel that
    /// has it has the others too.
    pub fn check(&self) -> Result<(), PortError> {
        match self.missing().filter(|feature| feature.without == Without::Unusable).last() {
            None => Ok(()),
            Some(&Feature { name: feature, since, purpose, without: _, found: _ }) => {
                Err(PortError::RingFeature { feature, purpose, since })
            }
        }
    }

    fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().filter(|feature| !feature.found)
    }
}

impl fmt::Display for ProbeReport {
    /// One line per feature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for feature in &self.features {
            let found = if feature.found { "yes" } else { "MISSING" };
            let Feature { name, since, purpose, without: _, found: _ } = feature;
            writeln!(f, "{name:<28} Linux {since:<5} {found:<8} {purpose}")?;
        }
        Ok(())
    }
}

/// Tries out the features on throw-away rings. Single missing features are in the report.
///
/// # Errors
///
/// If io_uring as a whole is unavailable.
pub fn probe() -> Result<ProbeReport, PortError> {
    let plain = IoUring::new(2).map_err(explain_unavailable)?;
    let knows = |code| knows_opcode(&plain.submitter(), code);
    let feature =
        |name, since, purpose, without, found| Feature { name, since, purpose, without, found };
    let features = vec![
        feature(
            "IORING_OP_WRITE",
            "5.6",
            "sending frames",
            Without::Unusable,
            knows(opcode::Write::CODE),
        ),
        feature(
            "IORING_FEAT_EXT_ARG",
            "5.11",
            "waiting with a time limit and a signal mask",
            Without::Unusable,
            plain.params().is_feature_ext_arg(),
        ),
        feature(
            "IORING_FEAT_CQE_SKIP",
            "5.17",
            "sending frames without an answer for each",
            Without::Unusable,
            plain.params().is_feature_skip_cqe_on_success(),
        ),
        feature(
            "IORING_REGISTER_PBUF_RING",
            "5.19",
            "receive buffers shared with the kernel",
            Without::Unusable,
            provides_buffers(&plain),
        ),
        feature(
            "IORING_SETUP_DEFER_TASKRUN",
            "6.1",
            "looking for frames without a system call",
            Without::Unusable,
            core::build_ring(2, 4).is_ok(),
        ),
        feature(
            "IORING_OP_READ_MULTISHOT",
            "6.7",
            "receiving frames without asking for each",
            Without::Slower { cost: "each frame from a tap costs a system call more" },
            has_multishot_read(&plain.submitter()),
        ),
    ];
    Ok(ProbeReport { features })
}

/// Whether one read can give many frames.
pub(super) fn has_multishot_read(ring: &Submitter<'_>) -> bool {
    knows_opcode(ring, opcode::ReadMulti::CODE)
}

fn knows_opcode(ring: &Submitter<'_>, code: u8) -> bool {
    let mut opcodes = register::Probe::new();
    ring.register_probe(&mut opcodes).is_ok() && opcodes.is_supported(code)
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
    match probe().and_then(|report| report.check()) {
        Err(explained) => explained,
        Ok(()) => PortError::System { doing: "cannot set up an io_uring", source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_features_that_are_needed() {
        let report = probe().unwrap();
        assert!(report.check().is_ok(), "{report}");
        assert_eq!(report.to_string().lines().count(), report.features.len());
    }

    #[test]
    fn newest_missing_feature_that_is_needed_is_reported() {
        let mut report = probe().unwrap();
        for feature in &mut report.features[3..] {
            feature.found = false;
        }
        assert_eq!(
            report.check().unwrap_err().to_string(),
            "io_uring lacks IORING_SETUP_DEFER_TASKRUN, needed for looking for frames without a system call: \
             use Linux 6.1 or newer"
        );
    }

    #[test]
    fn kernel_without_multishot_reads_is_taken() {
        let mut report = probe().unwrap();
        report.features.last_mut().unwrap().found = false;
        report.check().unwrap();
        assert!(!report.is_complete());
        let slower: Vec<_> = report.slower_without().map(|(f, _)| (f.name, f.since)).collect();
        assert_eq!(slower, [("IORING_OP_READ_MULTISHOT", "6.7")]);
    }
}
