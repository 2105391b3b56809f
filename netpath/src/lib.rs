//! Sends and receives Ethernet frames.
//!
//! One trait, [`FramePort`], and its implementations:
//!
//! - [`TapPort`]: a tap device, through io_uring; the VM's network.
//! - [`PacketPort`]: raw frames of one EtherType on an interface; the logging channel. A [`FrameSender`]
//!   only sends them, and is no port.
//! - [`NullPort`]: no network at all.
//! - [`LoopbackPort`](testing::LoopbackPort): two ends in memory, for tests.
//! - [`middleware`]: ports that wrap another port: fault injection, packet capture, tracing.
//!
//! [`LanHealth`] says whether frames can pass between a tap and the LAN.
//!
//! The crate does not know what a frame means to the VM or to the logging channel.
//!
//! Unsafe code is confined to `sys/` (system calls) and `ring/` (memory shared with the kernel). Each
//! file with unsafe code begins with the rules that its SAFETY comments refer to.

#![warn(clippy::missing_errors_doc)]

pub mod error;
pub mod lan_health;
pub mod mac;
pub mod middleware;
mod netlink;
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

pub use error::PortError;
pub use lan_health::{BridgeSocket, LanHealth, LanProbe, OpenBridge, TapState, Uplink};
pub use mac::MacAddr;
pub use null_port::NullPort;
pub use packet_port::{
    CHANNEL_ETHERTYPE, FrameSender, LABEL_BYTES, LinkState, MTU_BYTES_MIN, Mark, Nic, NicProbe,
    PacketConfig, PacketFiles, PacketPort, PacketStats, PayloadByte, PayloadFilter, RECEIVE_FRAMES,
    ReceivePath, plain_socket,
};
pub use port::{FRAME_MAX, FRAME_MIN, FramePort, Wake};
pub use ring::ReadPath;
pub use stats::PortStats;
pub use tap_port::{TapConfig, TapFiles, TapPort};
pub use wait::WaitPolicy;
pub use wait_any::wait_any;
