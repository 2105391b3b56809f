//! Guest memory: where things lie, which pages were written, what all of it hashes to.

pub mod digest;
pub mod dirty;
pub mod guest;
pub mod layout;
pub mod walk;

pub use guest::{GuestRam, MemoryError, allocate};
