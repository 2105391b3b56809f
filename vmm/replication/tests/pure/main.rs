//! Tests without host requirements: comparisons with models, and random bytes.

#[path = "../../../../netpath/tests/common/mod.rs"]
mod common;

mod announce_fuzz;
mod hold_model;
