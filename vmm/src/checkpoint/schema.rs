//! The bytes of vCPU and device state inside a checkpoint.
//!
//! Both are serde structs in postcard's format. [`MACHINE_SCHEMA`] stands in every log header and
//! moves whenever a field of either is added, removed, reordered or changes its meaning, or a device does
//! something else in the same state; a host applies only its own version.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of `VcpuState` and `DevicesState` as bytes.
pub const MACHINE_SCHEMA: u16 = 5;

/// A checkpoint that can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are no state of this schema.
    #[error("the checkpoint's {what} state is not of schema {MACHINE_SCHEMA}: {source}")]
    Decode {
        /// "vCPU" or "device".
        what: &'static str,
        /// What postcard says.
        source: postcard::Error,
    },
    /// The device state contradicts itself.
    #[error("the checkpoint's device state is inconsistent: {what}")]
    Devices {
        /// What is wrong.
        what: String,
    },
    /// A page outside of guest RAM.
    #[error("the checkpoint has page {page:#x}, beyond the guest's {pages:#x} pages")]
    Page {
        /// Page number.
        page: u64,
        /// Pages of guest RAM.
        pages: u64,
    },
}

/// Serialises a state struct of ours.
pub(super) fn encode<T: Serialize>(state: &T) -> Vec<u8> {
    postcard::to_stdvec(state).expect("state structs have no map and no unsized field")
}

/// Reads a state struct back; all bytes must be consumed.
pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CheckpointError> {
    let decode = |source| CheckpointError::Decode { what, source };
    let (state, rest) = postcard::take_from_bytes(bytes).map_err(decode)?;
    if rest.is_empty() { Ok(state) } else { Err(decode(postcard::Error::SerdeDeCustom)) }
}
