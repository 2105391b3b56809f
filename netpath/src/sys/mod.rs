//! System calls and raw memory, behind safe functions.

pub(crate) mod ioctl;
pub(crate) mod map;
pub(crate) mod packet_socket;
pub(crate) mod signal;
pub mod tap;
pub(crate) mod timer;
