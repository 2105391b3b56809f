//! State of all devices.

use serde::{Deserialize, Serialize};

use super::clockport::ClockPortState;
use super::pci::{ConfigPortState, FunctionState};
use super::pit::PitState;
use super::reset::ResetState;
use super::rtc::RtcState;
use super::serial::UartState;
use super::virtio::net::NetState;
use super::virtio::rng::RngState;
use crate::irq::pic::PicState;

/// The state outside the vCPU and guest memory that decides what the guest sees next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesState {
    /// Guest time as read or received last, nanoseconds.
    pub now_ns: u64,
    /// Interrupt controllers.
    pub pic: PicState,
    /// Timer.
    pub pit: PitState,
    /// UART.
    pub uart: UartState,
    /// Real-time clock.
    pub rtc: RtcState,
    /// Guest clock port.
    pub clock_port: ClockPortState,
    /// Reset ports.
    pub reset: ResetState,
    /// PCI configuration port.
    pub config_port: ConfigPortState,
    /// PCI host bridge.
    pub host_bridge: FunctionState,
    /// Network device.
    pub net: NetState,
    /// Entropy device.
    pub rng: RngState,
    /// Interrupt windows are enabled. This is not a device's state but the machine's. It is here because
    /// a replay and a backup must do the same as the recording.
    pub irq_windows: bool,
}
