//! A switch between the two ends of the log link.
//!
//! ```text
//!   host A: log0 ------ log-a - br0 - log-b ------ log0 :host B
//! ```
//!
//! Its ports can be taken out of the bridge. Then frames pass only if somebody forwards them, who can lose some
//! of them. (Kernels may lack netem and the other actions of tc; this has no requirements.)

use super::network::{Host, LOG_LINK, Network};
use crate::namespace::SWITCH;
use crate::{Namespace, TestbedError};

/// The switch; removed on drop, and the log link with it.
#[derive(Debug)]
pub struct LogSwitch(Namespace);

impl LogSwitch {
    /// Inserts a switch into the log link of `network`, whose hosts must have no processes yet.
    ///
    /// # Errors
    ///
    /// If `ip` fails, or an interface gets no carrier.
    pub fn insert(network: &Network) -> Result<LogSwitch, TestbedError> {
        let switch = LogSwitch(Namespace::new("log")?);
        switch.0.add_switch()?;
        // Deletes both ends.
        network.host(Host::A).ip(&format!("link del {LOG_LINK}"))?;
        for host in Host::ALL {
            switch.plug_in(network, host, host.log_mac())?;
        }
        for host in Host::ALL {
            network.host(host).wait_for_carrier(LOG_LINK)?;
        }
        Ok(switch)
    }

    /// Connects a new log interface of `host`, with the address `mac`. The host must have none.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn plug_in(&self, network: &Network, host: Host, mac: &str) -> Result<(), TestbedError> {
        self.0.plug_in(LogSwitch::port(host), network.host(host), LOG_LINK)?;
        network.host(host).set_up(LOG_LINK, &format!("address {mac}"))
    }

    /// Returns the namespace of the switch.
    pub fn namespace(&self) -> &Namespace {
        &self.0
    }

    /// Returns the switch's port towards `host`.
    pub const fn port(host: Host) -> &'static str {
        match host {
            Host::A => "log-a",
            Host::B => "log-b",
        }
    }

    /// Takes the ports out of the bridge: from now on no frame passes by itself. Each port gets the MAC address
    /// of the opposite host, so that it receives the frames for that host.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn take_out(&self) -> Result<(), TestbedError> {
        self.set_ports(|host| format!("nomaster address {}", host.other().log_mac()))
    }

    /// Puts the ports back into the bridge.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn put_back(&self) -> Result<(), TestbedError> {
        self.set_ports(|host| format!("address {} master {SWITCH}", own_mac(host)))
    }

    /// Makes the bridge pass no frame between its ports, which keep their carriers, or pass all again.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn isolate(&self, isolation: Isolation) -> Result<(), TestbedError> {
        let value = match isolation {
            Isolation::On => "on",
            Isolation::Off => "off",
        };
        self.set_ports(|_host| format!("type bridge_slave isolated {value}"))
    }

    fn set_ports(&self, settings: impl Fn(Host) -> String) -> Result<(), TestbedError> {
        for host in Host::ALL {
            self.0.ip(&format!("link set {} {}", LogSwitch::port(host), settings(host)))?;
        }
        Ok(())
    }
}

/// Whether the ports of a [`LogSwitch`] are isolated from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// No frame passes.
    On,
    /// Every frame passes.
    Off,
}

/// Returns the MAC address that the port towards `host` has as a port of the bridge. It is not one of a host.
const fn own_mac(host: Host) -> &'static str {
    match host {
        Host::A => "02:00:00:00:01:0a",
        Host::B => "02:00:00:00:01:0b",
    }
}
