//! What a live VM measures of itself, always: how long a frame takes through each stage of the machine.
//!
//! - `passage`: the stages, and the times of one frame that was followed
//! - `stages`: follows frames, one at a time, and keeps a histogram of each stage
//! - `time_status`: a histogram of times in a few numbers
//! - `trace`: the same, frame by frame, for a benchmark that asks for it
//!
//! Only live event sources take these times. None of them reaches the guest or the log.

pub mod passage;
pub mod stages;
pub mod time_status;
pub mod trace;

pub use passage::{Passage, Stage};
pub use stages::Stages;
pub use time_status::TimeStatus;
