//! A LAN of two hosts on this machine: one network namespace per host, joined by a bridge or by a plain
//! veth pair.
//!
//! The namespaces have no names. They, their interfaces and the bridge disappear with the last thread
//! inside and the last open file, so nothing is left behind however this process ends.

use crate::PATIENCE;
use crate::error::BenchError;
use crate::vms::pin;
use netpath::MacAddr;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use vmm::demo::lan::command;

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

    /// Returns the bridge's port towards this host.
    const fn bridge_port(self) -> &'static str {
        match self {
            Host::Client => "port1",
            Host::Server => "port2",
        }
    }
}

/// The LAN.
pub(crate) struct Lan {
    namespaces: [File; 2],
    cores: [usize; 2],
    /// Keeps the bridge.
    _bridge: Option<File>,
}

impl Lan {
    /// Makes the LAN; `cores` are those that the client's and the server's thread run on.
    pub(crate) fn new(wire: Wire, cores: [usize; 2]) -> Result<Lan, BenchError> {
        let namespaces = [new_namespace()?, new_namespace()?];
        let bridge = match wire {
            Wire::Bridge => Some(new_namespace()?),
            Wire::Direct => None,
        };
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let [client, server] = namespaces.each_ref().map(path);
        match &bridge {
            Some(bridge) => inside(bridge, || {
                // As a switch: no spanning tree, no snooping, no packet filter on the way.
                ip("link add br0 type bridge stp_state 0 mcast_snooping 0")?;
                for which in ["iptables", "ip6tables", "arptables"] {
                    let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{which}"), "0");
                }
                ip("link set br0 up")?;
                for (host, there) in Host::ALL.into_iter().zip([&client, &server]) {
                    let port = host.bridge_port();
                    ip(&format!("link add {port} type veth peer name {INTERFACE} netns {there}"))?;
                    ip(&format!("link set {port} master br0 up"))?;
                }
                Ok(())
            })?,
            None => inside(&namespaces[0], || {
                ip(&format!("link add {INTERFACE} type veth peer name {INTERFACE} netns {server}"))
            })?,
        }
        let lan = Lan { namespaces, cores, _bridge: bridge };
        for host in Host::ALL {
            lan.inside(host, || set_up(host))?;
        }
        for host in Host::ALL {
            lan.inside(host, wait_for_carrier)?;
        }
        Ok(lan)
    }

    /// Limits each host's sending rate to `rate` (in tc(8) syntax), with a queue as long as a NIC's
    /// default queue.
    pub(crate) fn shape(&self, rate: &str) -> Result<(), BenchError> {
        let tbf =
            format!("qdisc replace dev {INTERFACE} root tbf rate {rate} burst 16kb limit 1500kb");
        for host in Host::ALL {
            self.inside(host, || run("tc", &tbf))?;
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

    /// Runs `work` on a thread in one host's namespace.
    fn inside<T: Send>(
        &self,
        host: Host,
        work: impl FnOnce() -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        inside(&self.namespaces[host as usize], work)
    }

    /// Moves the calling thread to a host's namespace and core, permanently.
    fn enter(&self, host: Host) -> Result<(), BenchError> {
        enter(&self.namespaces[host as usize])?;
        pin(self.cores[host as usize])
    }
}

fn new_namespace() -> Result<File, BenchError> {
    let doing = "creating a network namespace (needs root)";
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(BenchError::os(doing))?;
        // Without this the kernel's IPv6 traffic would appear on the wire. If the file does not exist,
        // the kernel has no IPv6.
        for which in ["all", "default"] {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
        }
        File::open("/proc/thread-self/ns/net").map_err(BenchError::os(doing))
    })
}

fn enter(namespace: &File) -> Result<(), BenchError> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(BenchError::os("entering a namespace"))
}

fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    on_a_thread(|| {
        enter(namespace)?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| joined(scope.spawn(work)))
}

/// Joins a thread and returns its result; propagates its panic.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sets the addresses of the interface of `host` and a static neighbour entry for the other host. Must
/// run in the namespace of `host`.
fn set_up(host: Host) -> Result<(), BenchError> {
    let other = host.other();
    ip(&format!("link set {INTERFACE} address {} up", host.mac()))?;
    ip(&format!("addr add {}/24 dev {INTERFACE}", host.ip()))?;
    // A static entry: no ARP request during a measurement.
    let neighbour = format!("{} lladdr {} dev {INTERFACE}", other.ip(), other.mac());
    ip(&format!("neigh replace {neighbour} nud permanent"))
}

/// Waits for the carrier: the kernel takes up to a second to notice that the other end is up. Must run
/// in the host's namespace.
fn wait_for_carrier() -> Result<(), BenchError> {
    let end = Instant::now() + PATIENCE;
    while !command("ip", &["-o", "link", "show", INTERFACE])?.contains(" state UP ") {
        if Instant::now() > end {
            return Err(BenchError::Wrong(format!("{INTERFACE} has no carrier")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs ip(8) in the calling thread's namespace.
fn ip(arguments: &str) -> Result<(), BenchError> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> Result<(), BenchError> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    command(program, &arguments)?;
    Ok(())
}
