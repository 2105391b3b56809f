//! Checkpoints: the state of the whole machine at a position, either in full or as the pages that changed
//! since the previous checkpoint.

pub mod image;
pub mod restore;
pub mod save;
pub mod schema;
pub mod snapshot;

pub use image::ImageView;
pub use schema::{CheckpointError, MACHINE_SCHEMA};
pub use snapshot::{SavedDisk, Snapshot, SnapshotError, SnapshotIdentity};
