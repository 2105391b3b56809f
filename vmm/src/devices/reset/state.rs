//! State of the reset ports.

use serde::{Deserialize, Serialize};

/// The reset control register. The i8042 has no state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResetState {
    /// The value that it reads back.
    pub(crate) control: u8,
}
