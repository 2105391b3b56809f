//! The checkers. They stand outside the code under test: they know which frames left which host and when, what
//! each machine executed, which terms the witness granted, and which answers clients received.
//!
//! | file | requirement |
//! |---|---|
//! | `output` | the output rule: a takeover reproduces every frame that is on the LAN, and no frame is missing |
//! | `passed` | frames that the old primary passes on reach the VM, and none too often |
//! | `speaker` | only the owner of the newest term sends for the VM, and no process sends after a newer one |
//! | `agreement` | both machines are equal, in every byte, at each common position |
//! | `copies` | the VM is lost only when both its copies are |
//! | `bounds` | queues, windows, lag, timeouts and wake-ups stay within their bounds |
//! | `resync` | a backup whose protection does not last is not synced again and again without a pause |
//! | `liveness` | after healing, the VM is protected again and every client is answered |
//!
//! The checks of the clients are in [`super::client`].

mod agreement;
mod bounds;
mod copies;
mod liveness;
mod output;
mod passed;
mod resync;
mod speaker;

pub(crate) use agreement::Agreement;
pub(crate) use bounds::Bounds;
pub(crate) use copies::{Copies, EndCause};
pub(crate) use liveness::Phase;
pub(crate) use output::{OutputLedger, is_synced_backup};
pub(crate) use passed::{PassedLedger, Waiting};
pub(crate) use resync::SyncPace;
pub(crate) use speaker::is_primary;
