//! Checkpoints: the state of the whole machine at a position, whole or as what changed since the
//! last one.

pub mod image;
pub mod restore;
pub mod save;
pub mod schema;
pub mod snapshot;
pub mod told;

pub use image::{Image, ImageDigest, ImageView, PageImage};
pub use schema::{CheckpointError, MACHINE_SCHEMA};
pub use snapshot::{Snapshot, SnapshotError, SnapshotOf};
pub use told::Told;
