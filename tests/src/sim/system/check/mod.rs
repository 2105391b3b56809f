//! The checkers. They stand outside: they know which frames left which host when, what each machine
//! did, what the witness gave to whom, and what clients were told; not why.
//!
//! | file | what must hold |
//! |---|---|
//! | `output` | what is on the LAN can never be taken back: nothing leaves that a takeover would not make again, and nothing is left out |
//! | `speaker` | one process speaks at a time, the one that the witness knows, and nobody after a newer one |
//! | `agreement` | two machines at one position are equal, down to the last byte |
//! | `custody` | the VM is lost only when both its copies are |
//! | `bounds` | queues, windows, lag, timers and events stay within what they should |
//! | `liveness` | when nothing goes wrong any more, the VM is protected again and everybody is answered |
//!
//! What clients check is in [`super::client`].

mod agreement;
mod bounds;
mod custody;
mod liveness;
mod output;
mod speaker;

pub(crate) use agreement::Agreement;
pub(crate) use bounds::Bounds;
pub(crate) use custody::{Custody, Gone};
pub(crate) use liveness::Phase;
pub(crate) use output::{OutputLedger, is_whole};
pub(crate) use speaker::is_primary;
