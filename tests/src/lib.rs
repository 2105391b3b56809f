//! The simulators ([`sim`]), which have no requirements, and shared code of the end-to-end tests.
//!
//! The end-to-end tests need root, `/dev/kvm`, `/dev/net/tun` and the commands that
//! `scripts/install.sh` installs. Without them they fail; they never skip.

pub mod alone;
pub mod chain;
pub mod demo;
pub mod docs;
pub mod fifo;
pub mod flood;
pub mod guests;
pub mod hostile;
pub mod lecture;
pub mod load;
pub mod pair;
pub mod patience;
pub mod program;
pub mod recording;
pub mod schema;
pub mod sim;
pub mod surgery;
pub mod threads;
pub mod wire;

pub use alone::alone;
