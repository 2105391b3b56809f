//! The log as its users see it: the public API of `logchan`.

mod block;
mod damage;
mod decode_errors;
mod dump;
mod fuzz;
mod golden;
mod header;
mod ingredients;
mod round_trip;
mod samples;
mod sequence;
