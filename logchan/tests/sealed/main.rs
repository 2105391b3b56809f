//! Tests of the seal, the handshake and the endpoint through their public API.

#[path = "../common/channel_frames.rs"]
mod channel_frames;
#[path = "../common/fixtures.rs"]
mod fixtures;
#[path = "../common/fuzz_run.rs"]
mod fuzz_run;
#[path = "../common/rng.rs"]
mod rng;

mod endpoint;
mod frames;
mod fuzz;
mod fuzz_endpoint;
mod fuzz_identity;
mod golden;
mod handshake;
mod notices;
mod pair;
mod sessions;
