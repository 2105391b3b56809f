//! Sealed frames and the handshake that leads to them: the public API of `seal` and `handshake`.

mod endpoint;
mod frames;
mod fuzz;
mod handshake;
mod pair;
mod sessions;
