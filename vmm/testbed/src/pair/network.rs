//! The LAN of a pair: two hosts and a client on a switch, and a link between the two
//! hosts for the log. Each node is a network namespace.
//!
//! ```text
//!   host A:  tap0 - br0 - eth0 ------ to-a \
//!      log0                                 \
//!       |                           switch: br0 - to-client ------ eth0, 10.77.0.1: the client
//!      log0                                 /
//!   host B:  tap0 - br0 - eth0 ------ to-b /
//! ```

use super::vm::PairVm;
use crate::namespace::SWITCH;
use crate::{HOST_CIDR, Namespace, TAP, TestbedError};

/// Interface of the log link on both hosts.
pub const LOG_LINK: &str = "log0";

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The first primary.
    A,
    /// The first backup.
    B,
}

impl Host {
    /// Both hosts.
    pub const ALL: [Host; 2] = [Host::A, Host::B];

    /// Returns the other host.
    pub const fn other(self) -> Host {
        match self {
            Host::A => Host::B,
            Host::B => Host::A,
        }
    }

    /// Returns the index in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the MAC address of this host's end of the log link.
    pub const fn log_mac(self) -> &'static str {
        match self {
            Host::A => "02:00:00:00:00:0a",
            Host::B => "02:00:00:00:00:0b",
        }
    }

    /// Returns the switch's port towards this host.
    pub const fn port(self) -> &'static str {
        match self {
            Host::A => "to-a",
            Host::B => "to-b",
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Host::A => "A",
            Host::B => "B",
        })
    }
}

/// The LAN; removed on drop.
#[derive(Debug)]
pub struct Network {
    hosts: [Namespace; 2],
    client: Namespace,
    switch: Namespace,
}

impl Network {
    /// Creates the namespaces and links, and waits for the carriers.
    ///
    /// # Errors
    ///
    /// If `ip` fails or an interface gets no carrier.
    pub fn new() -> Result<Network, TestbedError> {
        let switch = Namespace::new("switch")?;
        let client = Namespace::new("client")?;
        let hosts = [Namespace::new("a")?, Namespace::new("b")?];
        switch.add_switch()?;
        switch.plug_in("to-client", &client, "eth0")?;
        client.ip(&format!("addr add {HOST_CIDR} dev eth0"))?;
        for (host, namespace) in Host::ALL.into_iter().zip(&hosts) {
            switch.plug_in(host.port(), namespace, "eth0")?;
            namespace.add_switch()?;
            namespace.ip(&format!("link set eth0 master {SWITCH}"))?;
            add_tap(namespace, TAP)?;
        }
        let [a, b] = &hosts;
        a.add_cable(LOG_LINK, b, LOG_LINK)?;
        for (host, namespace) in Host::ALL.into_iter().zip(&hosts) {
            namespace.set_up(LOG_LINK, &format!("address {}", host.log_mac()))?;
        }
        client.wait_for_carrier("eth0")?;
        for namespace in &hosts {
            namespace.wait_for_carrier("eth0")?;
            namespace.wait_for_carrier(LOG_LINK)?;
        }
        Ok(Network { hosts, client, switch })
    }

    /// Creates the tap of a host again after it was deleted.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn restore_tap(&self, host: Host) -> Result<(), TestbedError> {
        add_tap(self.host(host), TAP)
    }

    /// Creates the tap of `vm`, which is not the first one, on both hosts.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn add_vm(&self, vm: PairVm) -> Result<(), TestbedError> {
        self.hosts.iter().try_for_each(|host| add_tap(host, &vm.tap()))
    }

    /// Returns the namespace of a host.
    pub fn host(&self, host: Host) -> &Namespace {
        &self.hosts[host.index()]
    }

    /// Returns the namespace of the client.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Returns the namespace of the switch.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }
}

/// Creates a tap of a host as a port of its bridge.
fn add_tap(host: &Namespace, tap: &str) -> Result<(), TestbedError> {
    host.add_tap(tap, None)?;
    host.ip(&format!("link set {tap} master {SWITCH}")).map(drop)
}
