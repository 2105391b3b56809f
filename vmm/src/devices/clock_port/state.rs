//! State of the guest clock port.

use serde::{Deserialize, Serialize};

/// The latch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockPortState {
    /// High half of the reading whose low half was read last.
    pub(crate) high: u32,
}
