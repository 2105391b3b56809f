//! What needs nothing of the host, against models and with random bytes.

#[path = "../common/mod.rs"]
mod common;

mod announce_fuzz;
mod hold_model;
