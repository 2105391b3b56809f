//! The process that opens for a VM's process what needs a permission, after that one has given up its own.
//!
//! ```text
//!   understudy run|record|primary|backup ---- open the tap, the log link, ... ----> its child, "opener"
//!   (no capability, no files)            <--- an answer, with the open files -----  (root, some capabilities)
//! ```
//!
//! The VM's process opens everything at its start. What may have to be opened again is little, and known then: the
//! tap, the interface of the log link, a socket on the tap's bridge for `--probe`, and the control socket. Files that are
//! made only when the guest has run are the opener's, too: the snapshot of `save`, which gets its name when it is
//! complete, and the report of `replay` about a divergence. The opener is told all names when it is started, and nothing
//! later: a request has no name in it, so that a VM's process that a guest controls can't have anything else opened.
//!
//! The opener is a copy of the VM's process from before that has opened anything or started a thread. It has one thread,
//! and ends when the other end of its socket is closed. If it ends earlier, the VM goes on, and what is lost stays lost.
//! Requests come from the threads that have opened these files until then; `vcpu0` makes none while the VM runs.
//!
//! In a process without an opener, the functions here open the files themselves.
//!
//! - `message`: requests and answers
//! - `client`: the VM's process
//! - `child`: the opener

mod child;
mod client;
mod message;

pub(crate) use child::become_child;
pub use child::open_descriptors;
pub use client::{
    OutputDraft, create_draft, create_report, listen, open_bridge, open_link, open_tap, start,
    unlink, unlink_metrics, watch, watch_child,
};

use crate::files::Access;
use netpath::{PacketConfig, TapConfig};
use std::path::PathBuf;

/// What an opener opens.
#[derive(Clone, Debug, Default)]
pub struct OpenerConfig {
    /// The VM's tap, which must exist.
    pub tap: Option<TapConfig>,
    /// The interface of the log link.
    pub link: Option<PacketConfig>,
    /// The control socket.
    pub control: Option<PathBuf>,
    /// The socket of the metrics, which is only removed: it is opened once.
    pub metrics: Option<PathBuf>,
    /// The file that is written as a draft, and gets its name when it is complete.
    pub draft: Option<OutputPath>,
    /// The folder of the report.
    pub report: Option<OutputPath>,
}

/// Where an output is made.
#[derive(Clone, Debug)]
pub struct OutputPath {
    /// The file or folder.
    pub path: PathBuf,
    /// Who may use it.
    pub access: Access,
}
