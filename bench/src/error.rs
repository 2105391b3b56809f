//! What can go wrong with a measurement.

use std::io;
use vmm::demo::DemoError;
use vmm::link::LinkError;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A command of the host, or a VM.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A logging channel could not be opened.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A port failed.
    #[error(transparent)]
    Port(#[from] netpath::PortError),
    /// The kernel refused something.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A peer did not do what was measured.
    #[error("{0}")]
    Wrong(String),
}

impl BenchError {
    /// Names what was being done.
    pub(crate) fn os<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> BenchError {
        let doing = doing.into();
        move |source| BenchError::Os { doing, source: source.into() }
    }

    /// Nobody answered for too long.
    pub(crate) fn no_answer(of: &str) -> BenchError {
        BenchError::Wrong(format!("{of} did not answer for {:?}", crate::PATIENCE))
    }
}
