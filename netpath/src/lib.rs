//! Getting Ethernet frames on and off a wire.
//!
//! One trait, [`FramePort`], and what implements it:
//!
//! - [`TapPort`]: a tap device, through io_uring; the VM's network.
//! - [`PacketPort`]: raw frames of one EtherType on an interface; the logging channel.
//! - [`NullPort`]: no network at all.
//! - [`LoopbackPort`](testing::LoopbackPort): two ends in memory, for tests.
//! - [`middleware`]: ports around ports: fault injection, packet capture, tracing.
//!
//! What a replicated VM needs between its device and its port, pure (time is an argument):
//!
//! - [`HoldQueue`]: frames that may not leave before a position of the log is acknowledged.
//! - [`GuestAddresses`] and [`Announcer`]: whose frames they are, and how the LAN is told that the
//!   VM is elsewhere now.
//!
//! The crate does not know what a frame means to the VM or to the logging channel.
//!
//! Unsafe code lives in `sys/` (system calls) and in `ring/` (memory shared with the kernel) and
//! nowhere else; each file that holds some begins with the rules its blocks argue from.

pub mod announce;
pub mod error;
pub mod hold;
pub mod limits;
pub mod mac;
pub mod middleware;
pub mod null_port;
pub mod packet_port;
pub mod port;
pub mod ring;
pub mod stats;
pub mod sys;
pub mod tap_port;
pub mod testing;
pub mod wait;
pub mod wait_any;

pub use announce::{AddressesError, AnnounceStats, Announcement, Announcer, GuestAddresses};
pub use error::PortError;
pub use hold::{Full, Held, HoldLimits, HoldLimitsError, HoldQueue, HoldStats};
pub use mac::MacAddr;
pub use null_port::NullPort;
pub use packet_port::{
    CHANNEL_ETHERTYPE, LinkState, MTU_BYTES_MIN, Mark, PacketConfig, PacketPort, PacketStats,
    RECEIVE_FRAMES, ReceivePath, plain_socket,
};
pub use port::{FRAME_MAX, FRAME_MIN, FramePort, Wake};
pub use ring::ReadPath;
pub use stats::PortStats;
pub use tap_port::{TapConfig, TapPort};
pub use wait::WaitPolicy;
pub use wait_any::wait_any;
