//! Stage latencies: how long a frame takes through each stage of the machine. A live VM always measures them.
//!
//! - `buckets`: histograms with few buckets, for monitoring
//! - `passage`: the stages, and the timestamps of one sampled frame
//! - `stages`: samples frames, one at a time, and keeps a histogram for each stage
//! - `time_status`: summary of a histogram of times
//! - `trace`: the timestamps of every sampled frame, for benchmarks
//!
//! Only the live side of the nondeterminism boundary takes these times. None of them reaches the guest or the
//! log.

pub mod buckets;
pub mod passage;
pub mod stages;
pub mod time_status;
pub mod trace;

pub use buckets::{Buckets, PAGE_BOUNDS, PageBuckets, SharedTimes, TIME_BOUNDS_NS, TimeBuckets};
pub use passage::{Passage, Stage};
pub use stages::Stages;
pub use time_status::TimeStatus;
