//! The log as its users see it: the public API of `logchan`.

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
