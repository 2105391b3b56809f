//! Record and replay: one vCPU loop on several implementations of one nondeterminism boundary.

pub mod console;
pub mod deadline;
pub mod error;
pub mod guest_clock;
pub mod log_file;
mod log_writer_thread;
pub mod orders;
pub mod rate_limit;
pub mod recorder;
pub mod replayer;
pub mod snapshotter;
mod timer_pace;
mod turn_clock;
pub mod world;

pub use error::{HostError, LogError, SourceError};
pub use orders::Orders;
pub use recorder::Recorder;
pub use replayer::Replayer;
pub use snapshotter::Snapshotter;
pub use world::World;
