//! The error type of the benchmarks.

use std::io;
use testbed::TestbedError;
use vmm::link::LinkError;

/// Reasons why a benchmark failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A host command or a VM failed.
    #[error(transparent)]
    Testbed(#[from] TestbedError),
    /// A logging channel could not be opened.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A port failed.
    #[error(transparent)]
    Port(#[from] netpath::PortError),
    /// A system call failed.
    #[error("{doing}: {source}")]
    Os {
        /// The operation that failed, as a gerund phrase.
        doing: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A peer did not behave as the benchmark requires, or an option is wrong.
    #[error("{0}")]
    Wrong(String),
}

impl BenchError {
    /// Returns a function that turns an OS error into a [`BenchError`] which names the operation
    /// `doing`.
    pub(crate) fn os<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> BenchError {
        let doing = doing.into();
        move |source| BenchError::Os { doing, source: source.into() }
    }

    /// The error for a peer `of` that did not answer within [`crate::PATIENCE`].
    pub(crate) fn no_answer(of: &str) -> BenchError {
        BenchError::Wrong(format!("{of} did not answer for {:?}", crate::PATIENCE))
    }
}
