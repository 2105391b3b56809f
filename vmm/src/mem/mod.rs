//! Guest memory: allocation, address map, dirty pages, page-table walk and digest.

pub mod digest;
pub mod dirty;
pub mod guest;
pub mod layout;
pub mod walk;

pub use guest::{GuestRam, MemoryError, allocate};
