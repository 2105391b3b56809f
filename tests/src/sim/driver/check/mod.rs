//! The checkers. They stand outside the code under test: they know which frames left which host and when, which
//! log arrived, which terms the witness granted, and which answers clients received.
//!
//! | file | requirement |
//! |---|---|
//! | `spoken` | only the owner of the newest term sends for the VM; a takeover reproduces every frame that is on the LAN |
//! | `log` | an output leaves only when the backup's process has received its log; log is sent at once, and does not wait for many bulk frames |
//! | `silence` | no host falls silent without a fault, whatever its machine does; the VM never diverges |
//! | `share` | a guest that is to be slowed pauses |
//! | `hosts` | a host whose tap fails gives up; nothing blocks the vCPU; an old primary does not leave frames in its tap; the VM is lost only when both its copies are |
//! | `liveness` | after healing, the VM is protected again and every client is answered |
//!
//! The checks of the clients are in `sim::system::client`.

mod hosts;
mod liveness;
mod log;
mod share;
mod silence;
mod spoken;

pub(super) use hosts::Copies;
pub(super) use liveness::Phase;
pub(super) use log::{LogRecord, LogState};
pub(super) use share::Share;
pub(super) use silence::Silence;
pub(super) use spoken::Spoken;
