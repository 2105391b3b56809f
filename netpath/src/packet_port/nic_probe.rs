//! [`NicProbe`]: asks the kernel for an interface.

use super::LinkState;
use crate::error::PortError;
use crate::mac::MacAddr;
use crate::netlink::{Interface, InterfaceSocket, Question};
use crate::sys::ioctl::InterfaceName;

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its index. An interface that was deleted and made again has another one.
    pub index: u32,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu_bytes: u32,
    /// Its state.
    pub state: LinkState,
    /// The index of the bridge that it is a port of.
    pub bridge: Option<u32>,
}

/// Asks the kernel for an interface: the one that has an index, whatever its name is now, or the one that has a
/// name. A question waits for changes of interfaces that are under way, so it is not for a thread that runs a vCPU.
pub struct NicProbe {
    socket: InterfaceSocket,
    name: InterfaceName,
}

impl NicProbe {
    /// Opens a probe of `interface` in the calling thread's network namespace. It may be used on another
    /// thread.
    ///
    /// # Errors
    ///
    /// [`PortError`] if this can't be an interface's name, or the kernel can't be asked.
    pub fn open(interface: &str) -> Result<NicProbe, PortError> {
        let name = InterfaceName::new(interface)?;
        Ok(NicProbe { socket: InterfaceSocket::open()?, name })
    }

    /// Asks for the interface that has the name; `None` if there is none, or it is not Ethernet.
    ///
    /// # Errors
    ///
    /// [`PortError::System`] if the kernel does not answer. The next question may succeed.
    pub fn by_name(&mut self) -> Result<Option<Nic>, PortError> {
        Ok(self.socket.ask_for_one(&Question::Name(&self.name))?.and_then(nic))
    }

    /// Asks for the interface that has `index`; `None` if there is none, or it is not Ethernet.
    ///
    /// # Errors
    ///
    /// As [`by_name`](Self::by_name).
    pub fn by_index(&mut self, index: u32) -> Result<Option<Nic>, PortError> {
        Ok(self.socket.ask_for_one(&Question::Index(index))?.and_then(nic))
    }
}

fn nic(interface: Interface) -> Option<Nic> {
    let Interface { index, mac, mtu_bytes, port_of, .. } = interface;
    let bridge = port_of.map(|port| port.bridge);
    Some(Nic { index, mac: mac?, mtu_bytes, state: state(&interface), bridge })
}

fn state(interface: &Interface) -> LinkState {
    if !interface.is_up {
        LinkState::Down
    } else if interface.port_of.is_some() {
        LinkState::BridgePort
    } else if !interface.has_carrier {
        LinkState::NoCarrier
    } else {
        LinkState::Up
    }
}

impl std::fmt::Debug for NicProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NicProbe").field("name", &self.name).finish_non_exhaustive()
    }
}
