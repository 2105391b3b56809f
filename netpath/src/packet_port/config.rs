//! Configuration and counters of a packet port.

use super::payload_filter::PayloadFilter;
use super::receive::ReceivePath;
use crate::wait::WaitPolicy;

/// Which interface a packet port uses, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketConfig {
    /// Interface name, at most 15 bytes.
    pub interface: String,
    /// How the port receives.
    pub receive: ReceivePath,
    /// How [`wait`](crate::FramePort::wait) waits.
    pub wait: WaitPolicy,
    /// Whether frames to all stations are delivered, too.
    pub accepts_broadcast: bool,
    /// Which frames the kernel delivers, if other ports use the interface, too. `None`: all.
    pub payload: Option<PayloadFilter>,
}

impl PacketConfig {
    /// A configuration for `interface` with the defaults for the rest.
    pub fn new(interface: impl Into<String>) -> Self {
        let (receive, wait) = (ReceivePath::default(), WaitPolicy::default());
        PacketConfig {
            interface: interface.into(),
            receive,
            wait,
            accepts_broadcast: false,
            payload: None,
        }
    }
}

/// Counters of a packet port since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketStats {
    /// Frames handed to the caller.
    pub rx_frames: u64,
    /// Bytes of those frames, Ethernet header and padding included.
    pub rx_bytes: u64,
    /// Frames that the kernel dropped because the port's receive buffer was full.
    pub rx_kernel_drops: u64,
    /// Frames discarded because they were too long for a port, truncated, or shorter than an Ethernet
    /// header.
    pub rx_bad_length: u64,
    /// Frames discarded because this interface had sent them: they came back.
    pub rx_own: u64,
    /// Frames discarded because their destination was another station or a group.
    pub rx_foreign_mac: u64,
    /// Frames discarded because they had another EtherType.
    pub rx_foreign_ethertype: u64,
    /// Frames discarded because they belonged to a VLAN.
    pub rx_foreign_vlan: u64,
    /// Frames the kernel accepted. This does not mean that they reached the peer.
    pub tx_frames: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Frames the kernel refused: the interface is down or gone, or its queue is full.
    pub tx_dropped: u64,
    /// Frames never offered to the kernel because they were shorter than a header or longer than the MTU
    /// allows.
    pub tx_bad_length: u64,
    /// How often the link stopped passing frames.
    pub link_downs: u64,
    /// `io_uring_enter` system calls.
    pub enters: u64,
}

impl std::ops::Add for PacketStats {
    type Output = PacketStats;

    /// The counters of two ports that were used one after the other.
    fn add(self, other: PacketStats) -> PacketStats {
        PacketStats {
            rx_frames: self.rx_frames + other.rx_frames,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_kernel_drops: self.rx_kernel_drops + other.rx_kernel_drops,
            rx_bad_length: self.rx_bad_length + other.rx_bad_length,
            rx_own: self.rx_own + other.rx_own,
            rx_foreign_mac: self.rx_foreign_mac + other.rx_foreign_mac,
            rx_foreign_ethertype: self.rx_foreign_ethertype + other.rx_foreign_ethertype,
            rx_foreign_vlan: self.rx_foreign_vlan + other.rx_foreign_vlan,
            tx_frames: self.tx_frames + other.tx_frames,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            tx_dropped: self.tx_dropped + other.tx_dropped,
            tx_bad_length: self.tx_bad_length + other.tx_bad_length,
            link_downs: self.link_downs + other.link_downs,
            enters: self.enters + other.enters,
        }
    }
}
