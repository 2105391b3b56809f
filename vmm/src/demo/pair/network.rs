//! The LAN of the demonstration: two hosts and a client on a switch, and a link between the two
//! hosts for the log. Each node is a network namespace.
//!
//! ```text
//!   host A:  tap0 - br0 - eth0 ------ to-a \
//!      log0                                 \
//!       |                           switch: br0 - to-client ------ eth0, 10.77.0.1: the client
//!      log0                                 /
//!   host B:  tap0 - br0 - eth0 ------ to-b /
//! ```

use crate::demo::DemoError;
use crate::demo::lan::Namespace;
use crate::demo::standalone::{HOST_CIDR, TAP};
use std::time::{Duration, Instant};

/// Interface of the log link on both hosts.
pub const LOG_LINK: &str = "log0";

/// Time limit for a carrier. The kernel takes up to a second to notice that the other end of a veth is up.
const CARRIER_MAX: Duration = Duration::from_secs(5);

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
    pub fn new() -> Result<Network, DemoError> {
        let switch = Namespace::new("switch")?;
        let client = Namespace::new("client")?;
        let hosts = [Namespace::new("a")?, Namespace::new("b")?];
        let network = Network { hosts, client, switch };
        add_bridge(&network.switch)?;
        network.plug_in("to-client", &network.client)?;
        ip(&network.client, &format!("addr add {HOST_CIDR} dev eth0"))?;
        for host in Host::ALL {
            let namespace = network.host(host);
            network.plug_in(host.port(), namespace)?;
            add_bridge(namespace)?;
            ip(namespace, "link set eth0 master br0")?;
            namespace.add_tap(TAP, None)?;
            ip(namespace, &format!("link set {TAP} master br0"))?;
        }
        let [a, b] = Host::ALL.map(|host| network.host(host));
        ip(a, &format!("link add {LOG_LINK} type veth peer name {LOG_LINK} netns {}", b.name()))?;
        for host in Host::ALL {
            let setting =
                format!("link set {LOG_LINK} address {} addrgenmode none up", host.log_mac());
            ip(network.host(host), &setting)?;
        }
        for (namespace, interface) in
            [(&network.client, "eth0"), (a, "eth0"), (b, "eth0"), (a, LOG_LINK), (b, LOG_LINK)]
        {
            wait_for_carrier(namespace, interface)?;
        }
        Ok(network)
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

    /// Connects `eth0` of a namespace to the switch's port `port`.
    fn plug_in(&self, port: &str, namespace: &Namespace) -> Result<(), DemoError> {
        let name = namespace.name();
        let switch = &self.switch;
        ip(switch, &format!("link add {port} type veth peer name eth0 netns {name}"))?;
        ip(switch, &format!("link set {port} addrgenmode none master br0 up"))?;
        ip(namespace, "link set eth0 addrgenmode none up")
    }
}

/// Adds a bridge that works as a plain switch: no spanning tree, no snooping, no address, and no frames of
/// its own.
fn add_bridge(namespace: &Namespace) -> Result<(), DemoError> {
    ip(namespace, "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    ip(namespace, "link set br0 addrgenmode none up")
}

fn ip(namespace: &Namespace, arguments: &str) -> Result<(), DemoError> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    namespace.ip(&arguments).map(drop)
}

fn wait_for_carrier(namespace: &Namespace, interface: &str) -> Result<(), DemoError> {
    let end = Instant::now() + CARRIER_MAX;
    while !namespace.ip(&["-o", "link", "show", interface])?.contains(" state UP ") {
        if Instant::now() > end {
            let name = namespace.name();
            return Err(DemoError::Wrong(format!("{interface} in {name} has no carrier")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
