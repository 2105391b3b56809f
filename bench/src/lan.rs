//! A LAN of two hosts on this machine: one network namespace per host, joined by a bridge or by a plain
//! veth pair.

use crate::error::BenchError;
use crate::vms::pin;
use netpath::MacAddr;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use testbed::{Namespace, command};

/// Name of each host's interface.
pub(crate) const INTERFACE: &str = "lan0";

/// What connects the two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// A bridge, as on a real LAN.
    Bridge,
    /// A plain veth pair.
    Direct,
}

/// A host of the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The host that sends requests.
    Client,
    /// The host that answers.
    Server,
}

impl Host {
    const ALL: [Host; 2] = [Host::Client, Host::Server];

    /// Returns the MAC address of the host's interface.
    pub(crate) const fn mac(self) -> MacAddr {
        MacAddr(2, 0, 0, 0, 0, self.number())
    }

    /// Returns the host's IP address.
    pub(crate) const fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, self.number())
    }

    /// Returns the other host.
    pub(crate) const fn other(self) -> Host {
        match self {
            Host::Client => Host::Server,
            Host::Server => Host::Client,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Host::Client => 1,
            Host::Server => 2,
        }
    }
}

/// The LAN; removed on drop.
pub(crate) struct Lan {
    hosts: [Namespace; 2],
    cores: [usize; 2],
    _switch: Option<Namespace>,
}

impl Lan {
    /// Makes the LAN; `cores` are those that the client's and the server's thread run on.
    pub(crate) fn new(wire: Wire, cores: [usize; 2]) -> Result<Lan, BenchError> {
        let hosts = [Namespace::new("client")?, Namespace::new("server")?];
        let switch = match wire {
            Wire::Bridge => {
                let switch = Namespace::new("switch")?;
                switch.add_switch()?;
                for (port, host) in ["port1", "port2"].into_iter().zip(&hosts) {
                    switch.plug_in(port, host, INTERFACE)?;
                }
                Some(switch)
            }
            Wire::Direct => {
                hosts[0].add_cable(INTERFACE, &hosts[1], INTERFACE)?;
                None
            }
        };
        for (host, namespace) in Host::ALL.into_iter().zip(&hosts) {
            let other = host.other();
            namespace.set_up(INTERFACE, &format!("address {}", host.mac()))?;
            namespace.ip(&format!("addr add {}/24 dev {INTERFACE}", host.ip()))?;
            // A static entry: no ARP request during a measurement.
            let neighbour = format!("{} lladdr {} dev {INTERFACE}", other.ip(), other.mac());
            namespace.ip(&format!("neigh replace {neighbour} nud permanent"))?;
        }
        hosts.iter().try_for_each(|host| host.wait_for_carrier(INTERFACE))?;
        Ok(Lan { hosts, cores, _switch: switch })
    }

    /// Limits each host's sending rate to `rate` (in tc(8) syntax), with a queue as long as a NIC's
    /// default queue.
    pub(crate) fn shape(&self, rate: &str) -> Result<(), BenchError> {
        for host in &self.hosts {
            let tbf = ["tbf", "rate", rate, "burst", "16kb", "limit", "1500kb"];
            let qdisc = ["-n", host.name(), "qdisc", "replace", "dev", INTERFACE, "root"];
            command("tc", &[&qdisc[..], &tbf].concat())?;
        }
        Ok(())
    }

    /// Runs `client` and `server` on threads of their own, each on its host and its core, until both
    /// return. The client starts when the server calls the function that it is given.
    pub(crate) fn run<C: Send, S: Send>(
        &self,
        client: impl FnOnce() -> Result<C, BenchError> + Send,
        server: impl FnOnce(&dyn Fn()) -> Result<S, BenchError> + Send,
    ) -> Result<(C, S), BenchError> {
        let (ready, is_ready) = mpsc::channel();
        let (client, server) = thread::scope(|scope| {
            let server = scope.spawn(move || {
                self.enter(Host::Server)?;
                // The receiver is gone if the client could not enter its namespace.
                server(&|| _ = ready.send(()))
            });
            let client = scope.spawn(move || {
                self.enter(Host::Client)?;
                // The server failed before it was ready; its own error is reported.
                is_ready.recv().map_or(Ok(None), |()| client().map(Some))
            });
            (joined(client), joined(server))
        });
        match (client, server) {
            (Ok(Some(client)), Ok(server)) => Ok((client, server)),
            (Ok(None), Ok(_)) => unreachable!("a server that returns Ok has called ready"),
            (Err(client), Err(server)) => {
                Err(BenchError::Wrong(format!("client: {client}; server: {server}")))
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Moves the calling thread to a host's namespace and core, permanently.
    fn enter(&self, host: Host) -> Result<(), BenchError> {
        self.hosts[host as usize].join()?;
        pin(self.cores[host as usize])
    }
}

/// Joins a thread and returns its result; propagates its panic.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
