//! Checkpoints as data, on their way to or from a log.

pub mod delta_cache;
mod digest;
mod image;
pub(crate) mod reader;

pub use delta_cache::DeltaCache;
pub use digest::CheckpointDigest;
pub use image::{CheckpointImage, Image, PageImage};
pub use reader::CheckpointFault;
