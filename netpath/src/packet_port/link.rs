//! The state of a packet port's interface, and its changes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use crate::error::PortError;
use crate::mac::MacAddr;
use crate::sys::ioctl::{self, InterfaceName};

/// Maximum number of changes that wait to be fetched; the oldest is dropped for a new one.
const EVENTS_MAX: usize = 16;

/// The state of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Frames pass, as far as this host can tell.
    Up,
    /// The interface is up, but has no carrier: frames are accepted and lost.
    NoCarrier,
    /// The interface is administratively down: frames are refused until `ip link set NAME up`.
    Down,
    /// The interface is a port of a bridge, which takes its frames. Only a [`NicProbe`](super::NicProbe)
    /// reports this; to a port, such an interface seems to be up.
    BridgePort,
    /// The interface was deleted or left the network namespace. Final: a new interface of the same name
    /// is a different one.
    Gone,
}

/// The port's knowledge of its interface.
pub(super) struct Link {
    /// Socket for interface requests, in the namespace that the port was opened in.
    control: OwnedFd,
    index: u32,
    state: LinkState,
    events: VecDeque<LinkState>,
    /// How often the state left [`LinkState::Up`].
    pub(super) downs: u64,
}

impl Link {
    /// Reads the state of an interface.
    pub(super) fn new(control: OwnedFd, index: u32) -> Link {
        let events = VecDeque::with_capacity(EVENTS_MAX);
        let mut link = Link { control, index, state: LinkState::Up, events, downs: 0 };
        link.state = link.read();
        link
    }

    pub(super) fn state(&self) -> LinkState {
        self.state
    }

    pub(super) fn next_event(&mut self) -> Option<LinkState> {
        self.events.pop_front()
    }

    /// The socket has lost its interface, whatever has its index now.
    pub(super) fn lose(&mut self) {
        self.change(LinkState::Gone);
    }

    /// Reads the state from the kernel and records a change. `failure` says that an operation failed
    /// because the link was down: then a link that is up now went down and came up again.
    pub(super) fn refresh(&mut self, failure: bool) {
        if self.state == LinkState::Gone {
            return;
        }
        let state = self.read();
        if failure && state == LinkState::Up {
            self.change(LinkState::Down);
        }
        self.change(state);
    }

    fn change(&mut self, state: LinkState) {
        if state == self.state {
            return;
        }
        if self.state == LinkState::Up {
            self.downs += 1;
        }
        self.state = state;
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(state);
    }

    fn read(&self) -> LinkState {
        let flags = self.name().and_then(|name| ioctl::interface_flags(&self.control, &name));
        match flags {
            Ok(flags) if flags & libc::IFF_UP == 0 => LinkState::Down,
            Ok(flags) if flags & libc::IFF_RUNNING == 0 => LinkState::NoCarrier,
            Ok(_) => LinkState::Up,
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => LinkState::Gone,
            // Other errors say nothing about the link, so keep the last known state.
            Err(_) => self.state,
        }
    }

    fn name(&self) -> io::Result<InterfaceName> {
        ioctl::interface_name(&self.control, self.index)
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The interface's current MAC address.
    pub(super) fn mac(&self) -> Result<MacAddr, PortError> {
        let mac = self.name().and_then(|name| ioctl::interface_mac(&self.control, &name));
        mac.map_err(PortError::system("cannot read the interface's MAC address"))
    }

    /// The interface's current MTU in bytes, which does not include the Ethernet header.
    pub(super) fn mtu(&self) -> Result<u32, PortError> {
        let mtu = self.name().and_then(|name| ioctl::interface_mtu(&self.control, &name));
        mtu.map_err(PortError::system("cannot read the interface's MTU"))
    }

    pub(super) fn is_ethernet(&self) -> Result<bool, PortError> {
        let kind = self.name().and_then(|name| ioctl::interface_hardware(&self.control, &name));
        let kind = kind.map_err(PortError::system("cannot read the interface's hardware type"))?;
        Ok(kind == libc::ARPHRD_ETHER)
    }
}
