//! [`LanHealth`]: whether frames of a VM can pass between its tap and the LAN, as far as this host can tell.
//!
//! - `probe`: [`LanProbe`], which asks the kernel, and an address on the LAN if it is told one
//! - `reach`: how that address is asked
//!
//! A VM reaches its LAN through a tap, the bridge that the tap is a port of, and another port of this bridge,
//! the uplink. The kernel reports carriers to user space up to a second late (its link watch is rate-limited),
//! but answers a question with the current state. So a [`LanProbe`] is asked repeatedly.

mod probe;
mod reach;

pub use probe::LanProbe;
pub use reach::{BridgeSocket, OpenBridge, UNANSWERED_MAX, UNREACHABLE_AFTER};

/// The state of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TapState {
    /// It is up, has a carrier, and its bridge, if it is a port of one, forwards its frames.
    Up,
    /// It was deleted, or moved to another network namespace. Final: a new interface of the same name is a
    /// different one.
    Gone,
    /// It is administratively down.
    Down,
    /// It is up, but has no carrier: no process is attached, or its carrier was turned off.
    NoCarrier,
    /// Its bridge does not forward its frames (yet): the bridge is down, or the spanning tree protocol has
    /// blocked the port or still listens and learns.
    Blocked,
    /// The bridge, or a port of it, has the VM's MAC address: the bridge gives the VM's frames to the host.
    AddressTaken,
}

impl TapState {
    const ALL: [TapState; 6] = [
        TapState::Up,
        TapState::Gone,
        TapState::Down,
        TapState::NoCarrier,
        TapState::Blocked,
        TapState::AddressTaken,
    ];
}

/// What connects a tap with the rest of the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Uplink {
    /// Another port of the tap's bridge passes frames. Taps count only if all other ports are taps, because
    /// a tap is usually the one of another VM.
    Up,
    /// The bridge has other ports, or had some when the probe was asked before, but none of them passes
    /// frames.
    Down,
    /// The tap is the only port of its bridge, and was so from the beginning: the LAN is this host.
    OnlyPort,
    /// The tap is not a port of a bridge, and was not from the beginning: this host routes its packets, or a
    /// switch that is not a Linux bridge connects it (Open vSwitch).
    NoBridge,
    /// The tap was a port of a bridge when the probe was asked before, and is not any more.
    LeftBridge,
}

impl Uplink {
    const ALL: [Uplink; 5] =
        [Uplink::Up, Uplink::Down, Uplink::OnlyPort, Uplink::NoBridge, Uplink::LeftBridge];
}

/// Whether frames of a VM can pass between its tap and the LAN, as far as this host can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanHealth {
    /// The tap.
    pub tap: TapState,
    /// What connects it with the LAN.
    pub uplink: Uplink,
    /// The address on the LAN that is asked answers, or none is asked.
    pub answers: bool,
}

impl LanHealth {
    /// Nothing is known to be wrong.
    pub const GOOD: LanHealth = LanHealth { tap: TapState::Up, uplink: Uplink::Up, answers: true };

    /// The bit of [`to_bits`](Self::to_bits) for an address that does not answer.
    const SILENT: u8 = 0x80;

    /// Returns whether frames can pass. A LAN of which the host can't see the uplink counts as reachable.
    pub fn passes_frames(self) -> bool {
        let reaches_lan = match self.uplink {
            Uplink::Up | Uplink::OnlyPort | Uplink::NoBridge => true,
            Uplink::Down | Uplink::LeftBridge => false,
        };
        self.tap == TapState::Up && reaches_lan && self.answers
    }

    /// Returns what is wrong and what to do, in one line; `None` if frames can pass. `tap` is the name of the
    /// tap.
    pub fn fault(self, tap: &str) -> Option<String> {
        let fault = match self.tap {
            TapState::Gone => format!("tap {tap} was deleted: create it again"),
            TapState::Down => format!("tap {tap} is down: 'ip link set {tap} up'"),
            TapState::NoCarrier => {
                format!("tap {tap} has no carrier: 'ip link set {tap} carrier on'")
            }
            TapState::Blocked => {
                format!("the bridge of tap {tap} does not forward its frames: 'bridge link show'")
            }
            TapState::AddressTaken => format!(
                "the bridge of tap {tap}, or a port of it, has the VM's MAC address, so the host gets the VM's \
                 frames: give it another one ('ip link set INTERFACE address MAC')"
            ),
            TapState::Up => match self.uplink {
                Uplink::Up | Uplink::OnlyPort | Uplink::NoBridge if self.answers => return None,
                Uplink::Up | Uplink::OnlyPort | Uplink::NoBridge => format!(
                    "the address of --probe does not answer through the bridge of tap {tap}: check the \
                     LAN, and whether that address is up"
                ),
                Uplink::Down => format!(
                    "no other port of the bridge of tap {tap} passes frames: check the host's uplink"
                ),
                Uplink::LeftBridge => {
                    format!("tap {tap} left its bridge: 'ip link set {tap} master BRIDGE'")
                }
            },
        };
        Some(fault)
    }

    /// Returns the value as a number, for an atomic variable.
    pub fn to_bits(self) -> u8 {
        let silent = if self.answers { 0 } else { Self::SILENT };
        silent | (self.tap as u8) << 4 | self.uplink as u8
    }

    /// Returns the value of a number from [`to_bits`](Self::to_bits); `None` for any other number.
    pub fn from_bits(bits: u8) -> Option<LanHealth> {
        let answers = bits & Self::SILENT == 0;
        let tap = *TapState::ALL.get(usize::from((bits & !Self::SILENT) >> 4))?;
        let uplink = *Uplink::ALL.get(usize::from(bits & 15))?;
        Some(LanHealth { tap, uplink, answers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = LanHealth> {
        let uplinks = |tap| Uplink::ALL.into_iter().map(move |uplink| (tap, uplink));
        let paths = TapState::ALL.into_iter().flat_map(uplinks);
        paths.flat_map(|(tap, uplink)| {
            [true, false].map(|answers| LanHealth { tap, uplink, answers })
        })
    }

    #[test]
    fn bits_of_each_value_give_it_back_and_other_bits_give_none() {
        for health in all() {
            assert_eq!(LanHealth::from_bits(health.to_bits()), Some(health));
        }
        let values = (0..=u8::MAX).filter_map(LanHealth::from_bits).count();
        assert_eq!(values, all().count());
    }

    #[test]
    fn fault_is_one_line_and_exists_exactly_if_no_frame_passes() {
        for health in all() {
            let fault = health.fault("tap0");
            assert_eq!(fault.is_none(), health.passes_frames(), "{health:?}");
            assert!(fault.is_none_or(|text| text.contains("tap0") && !text.contains('\n')));
        }
        assert!(LanHealth::GOOD.passes_frames());
        let routed = LanHealth { uplink: Uplink::NoBridge, ..LanHealth::GOOD };
        assert!(routed.passes_frames());
        let silent = LanHealth { answers: false, ..LanHealth::GOOD };
        assert!(silent.fault("tap0").unwrap().contains("--probe"));
    }
}
