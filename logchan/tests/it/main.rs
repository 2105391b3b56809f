//! Tests of the log and the channel through the public API of `logchan`.

#[path = "../common/channel_frames.rs"]
mod channel_frames;
#[path = "../common/fixtures.rs"]
mod fixtures;
#[path = "../common/fuzz_run.rs"]
mod fuzz_run;
#[path = "../common/rng.rs"]
mod rng;

mod block;
mod channel_ends;
mod channel_log;
mod damage;
mod decode_errors;
mod dump;
mod frame;
mod fuzz;
mod fuzz_channel;
mod golden;
mod header;
mod ingredients;
mod pair;
mod round_trip;
mod samples;
mod sequence;
