//! [`LanProbe`]: asks the kernel for the state of a tap and of its uplink, and an address on the LAN whether it
//! answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::reach::{OpenBridge, ReachProbe};
use super::{LanHealth, TapState, Uplink};
use crate::error::PortError;
use crate::mac::MacAddr;
use crate::netlink::{BridgePort, ChangeSocket, Interface, InterfaceSocket, Question};
use crate::sys::ioctl::InterfaceName;

/// Asks the kernel for the state of one tap and of its uplink. A question takes some system calls and waits
/// for changes of interfaces that are under way, so it is not for a thread that runs a vCPU.
///
/// The tap is the interface that had the given name when the probe was opened, whatever its name is later. When that
/// is gone, it is the next one that gets the name.
pub struct LanProbe {
    socket: InterfaceSocket,
    changes: ChangeSocket,
    name: InterfaceName,
    index: u32,
    history: History,
    vm: Option<MacAddr>,
    reach: Option<ReachProbe>,
}

/// What earlier answers have shown.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    was_port: bool,
    had_other_ports: bool,
}

impl LanProbe {
    /// Opens a probe of `tap` in the calling thread's network namespace. It may be used on another thread.
    ///
    /// # Errors
    ///
    /// [`PortError`] if there is no such interface, or the kernel can't be asked.
    pub fn open(tap: &str) -> Result<LanProbe, PortError> {
        let name = InterfaceName::new(tap)?;
        // First, so that no change after the answer is missed.
        let changes = ChangeSocket::open()?;
        let mut socket = InterfaceSocket::open()?;
        let Some(interface) = socket.ask_for_one(&Question::Name(&name))? else {
            return Err(PortError::InterfaceMissing { name: tap.into() });
        };
        let history = History::default();
        let index = interface.index;
        Ok(LanProbe { socket, changes, name, index, history, vm: None, reach: None })
    }

    /// Also looks whether the tap's bridge or a port of it has `address`, the VM's.
    #[must_use]
    pub fn for_vm(self, address: MacAddr) -> LanProbe {
        LanProbe { vm: Some(address), ..self }
    }

    /// Also asks `address` from now on, by ARP, from the bridge that the tap is a port of. The first questions
    /// of [`ask`](Self::ask) can't have its answer: it counts as reachable until three consecutive questions
    /// had none, which is at most two seconds after its last answer if `ask` is called every 100 ms.
    /// `open` opens the socket for that, on the bridge that the tap is a port of.
    #[must_use]
    pub fn with_address(self, address: Ipv4Addr, open: OpenBridge) -> LanProbe {
        LanProbe { reach: Some(ReachProbe::new(address, open)), ..self }
    }

    /// Waits until an interface has changed since the last call, but not longer than `timeout`. The state must be
    /// asked in any case.
    pub fn wait_for_change(&mut self, timeout: Duration) {
        self.changes.wait(timeout);
    }

    /// Asks for the current state.
    ///
    /// # Errors
    ///
    /// [`PortError::System`] if the kernel does not answer. The next question may succeed.
    pub fn ask(&mut self) -> Result<LanHealth, PortError> {
        let mut tap = self.socket.ask_for_one(&Question::Index(self.index))?;
        if tap.is_none() {
            tap = self.socket.ask_for_one(&Question::Name(&self.name))?;
        }
        let Some(tap) = tap else {
            let uplink = self.history.uplink(None, &[]);
            return Ok(LanHealth { tap: TapState::Gone, uplink, answers: true });
        };
        self.index = tap.index;
        let ports = match tap.port_of {
            Some(BridgePort { bridge, .. }) => self.socket.ask_for_all(&Question::Ports(bridge))?,
            None => Vec::new(),
        };
        let uplink = self.history.uplink(Some(&tap), &ports);
        let bridge = tap.port_of.map(|port| port.bridge);
        let state = match tap_state(&tap) {
            TapState::Up if self.is_address_taken(bridge, &ports)? => TapState::AddressTaken,
            state => state,
        };
        let answers = match &mut self.reach {
            Some(reach) => reach.step(bridge, Instant::now()),
            None => true,
        };
        Ok(LanHealth { tap: state, uplink, answers })
    }

    /// Returns whether `bridge` or one of its `ports` has the VM's address. A bridge takes frames to such an address for
    /// the host's own.
    fn is_address_taken(
        &mut self,
        bridge: Option<u32>,
        ports: &[Interface],
    ) -> Result<bool, PortError> {
        let (Some(vm), Some(bridge)) = (self.vm, bridge) else { return Ok(false) };
        let bridge = self.socket.ask_for_one(&Question::Index(bridge))?;
        Ok(ports.iter().chain(&bridge).any(|interface| interface.mac == Some(vm)))
    }
}

impl std::fmt::Debug for LanProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanProbe").field("index", &self.index).finish_non_exhaustive()
    }
}

fn tap_state(tap: &Interface) -> TapState {
    if !tap.is_up {
        TapState::Down
    } else if !tap.has_carrier {
        TapState::NoCarrier
    } else if tap.port_of.is_some_and(|port| !port.forwards) {
        TapState::Blocked
    } else {
        TapState::Up
    }
}

impl History {
    /// Returns the state of the uplink of `tap`, whose bridge has `ports`, and notes what it shows. A tap that
    /// is gone is `None`.
    fn uplink(&mut self, tap: Option<&Interface>, ports: &[Interface]) -> Uplink {
        let Some(tap) = tap else {
            return if self.was_port { Uplink::LeftBridge } else { Uplink::NoBridge };
        };
        if tap.port_of.is_none() {
            return if self.was_port { Uplink::LeftBridge } else { Uplink::NoBridge };
        }
        self.was_port = true;
        let others = || ports.iter().filter(|port| port.index != tap.index);
        let all_are_taps = others().all(|port| port.is_tap);
        let mut candidates = others().filter(|port| !port.is_tap || all_are_taps);
        if others().next().is_none() {
            return if self.had_other_ports { Uplink::Down } else { Uplink::OnlyPort };
        }
        self.had_other_ports = true;
        match candidates.any(passes_frames) {
            true => Uplink::Up,
            false => Uplink::Down,
        }
    }
}

fn passes_frames(port: &Interface) -> bool {
    port.is_up && port.has_carrier && port.port_of.is_some_and(|port| port.forwards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: u32 = 9;

    fn port(index: u32, is_tap: bool, passes: bool) -> Interface {
        let port_of = Some(BridgePort { bridge: BRIDGE, forwards: passes });
        let (is_up, has_carrier, mac, mtu_bytes) = (passes, passes, None, 1500);
        Interface { index, is_up, has_carrier, mac, mtu_bytes, is_tap, port_of }
    }

    #[test]
    fn state_of_tap_names_first_fault() {
        let good = port(1, true, true);
        assert_eq!(tap_state(&good), TapState::Up);
        assert_eq!(tap_state(&Interface { port_of: None, ..good }), TapState::Up);
        assert_eq!(tap_state(&port(1, true, false)), TapState::Down);
        assert_eq!(tap_state(&Interface { has_carrier: false, ..good }), TapState::NoCarrier);
        let port_of = Some(BridgePort { bridge: BRIDGE, forwards: false });
        assert_eq!(tap_state(&Interface { port_of, ..good }), TapState::Blocked);
    }

    #[test]
    fn uplink_is_port_that_passes_frames_and_is_no_tap_if_there_is_one() {
        let tap = port(1, true, true);
        let up = |others: &[Interface]| {
            History::default().uplink(Some(&tap), &[&[tap], others].concat())
        };
        assert_eq!(up(&[]), Uplink::OnlyPort);
        assert_eq!(up(&[port(2, false, true)]), Uplink::Up);
        assert_eq!(up(&[port(2, false, false)]), Uplink::Down);
        assert_eq!(up(&[port(2, false, false), port(3, false, true)]), Uplink::Up);
        assert_eq!(
            up(&[port(2, false, false), port(3, true, true)]),
            Uplink::Down,
            "another VM's tap"
        );
        assert_eq!(up(&[port(3, true, true)]), Uplink::Up, "a LAN of taps");
        assert_eq!(up(&[port(3, true, false)]), Uplink::Down);
    }

    #[test]
    fn lost_bridge_and_lost_ports_are_remembered() {
        let tap = port(1, true, true);
        let alone = Interface { port_of: None, ..tap };
        let mut history = History::default();
        assert_eq!(history.uplink(Some(&alone), &[]), Uplink::NoBridge);
        assert_eq!(history.uplink(None, &[]), Uplink::NoBridge);
        assert_eq!(history.uplink(Some(&tap), &[tap]), Uplink::OnlyPort);
        assert_eq!(history.uplink(Some(&tap), &[tap, port(2, false, true)]), Uplink::Up);
        assert_eq!(history.uplink(Some(&tap), &[tap]), Uplink::Down);
        assert_eq!(history.uplink(Some(&alone), &[]), Uplink::LeftBridge);
        assert_eq!(history.uplink(None, &[]), Uplink::LeftBridge);
    }
}
