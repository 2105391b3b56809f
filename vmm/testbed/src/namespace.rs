//! Network namespaces, their links and taps. A namespace is removed when its value is dropped, and its
//! interfaces with it.

use crate::TestbedError;
use crate::pace::HANG_MAX;
use crate::standalone::{HOST_CIDR, TAP};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Name of the bridge that [`Namespace::add_switch`] makes.
pub const SWITCH: &str = "br0";

/// Runs a command to its end and returns its standard output.
///
/// # Errors
///
/// If the command can't be started or fails.
pub fn command(program: &str, args: &[&str]) -> Result<String, TestbedError> {
    let line = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|source| TestbedError::Spawn { command: line(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
    Err(TestbedError::Command { command: line(), output })
}

/// A network namespace with a unique name; removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace `understudy-<pid>-<n>-<role>` and sets its loopback interface up.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn new(role: &str) -> Result<Namespace, TestbedError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("understudy-{}-{count}-{role}", std::process::id());
        command("ip", &["netns", "add", &name])?;
        let namespace = Namespace { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Creates a namespace for a VM and its clients: with the tap [`TAP`], whose host's end has the address
    /// [`HOST_CIDR`].
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn with_tap(role: &str) -> Result<Namespace, TestbedError> {
        let namespace = Namespace::new(role)?;
        namespace.add_tap(TAP, Some(HOST_CIDR))?;
        Ok(namespace)
    }

    /// Returns the name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace with `arguments`, which are separated by spaces. Returns its standard
    /// output.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn ip(&self, arguments: &str) -> Result<String, TestbedError> {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        command("ip", &[&["-n", &self.name], &arguments[..]].concat())
    }

    /// Creates the tap device `tap` in the namespace, gives it the host's `address` (CIDR) if there is one,
    /// and sets it up.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn add_tap(&self, tap: &str, address: Option<&str>) -> Result<(), TestbedError> {
        self.ip(&format!("tuntap add dev {tap} mode tap"))?;
        if let Some(address) = address {
            self.ip(&format!("addr add {address} dev {tap}"))?;
        }
        self.set_up(tap, "")
    }

    /// Creates a cable: the interface `here` in this namespace, connected to the interface `there` in
    /// `other`. Both are down.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn add_cable(
        &self,
        here: &str,
        other: &Namespace,
        there: &str,
    ) -> Result<(), TestbedError> {
        let name = &other.name;
        self.ip(&format!("link add {here} type veth peer name {there} netns {name}")).map(drop)
    }

    /// Creates [`SWITCH`], a bridge that works as a plain switch: no spanning tree, no snooping, no packet
    /// filter, no address, and no frames of its own.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn add_switch(&self) -> Result<(), TestbedError> {
        let options = "stp_state 0 forward_delay 0 mcast_snooping 0";
        self.ip(&format!("link add {SWITCH} type bridge {options}"))?;
        self.enter(|| {
            // The files exist if the kernel's packet filter of bridges is loaded.
            for which in ["iptables", "ip6tables", "arptables"] {
                let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{which}"), "0");
            }
            Ok::<(), TestbedError>(())
        })?;
        self.set_up(SWITCH, "")
    }

    /// Connects `interface` of `other` to the new port `port` of this namespace's [`SWITCH`], and sets both
    /// up.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn plug_in(
        &self,
        port: &str,
        other: &Namespace,
        interface: &str,
    ) -> Result<(), TestbedError> {
        self.add_cable(port, other, interface)?;
        self.set_up(port, &format!("master {SWITCH}"))?;
        other.set_up(interface, "")
    }

    /// Sets an interface up, with other settings of `ip link set`. The host's kernel sends no IPv6 frames on
    /// it: otherwise its router solicitations would be the first frames that a peer receives.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn set_up(&self, interface: &str, settings: &str) -> Result<(), TestbedError> {
        let words = ["link set", interface, "addrgenmode none", settings, "up"];
        self.ip(&words.join(" ")).map(drop)
    }

    /// Waits until an interface can pass frames.
    ///
    /// # Errors
    ///
    /// If `ip` fails, or the interface gets no carrier.
    pub fn wait_for_carrier(&self, interface: &str) -> Result<(), TestbedError> {
        // The kernel takes up to a second to notice that the other end is up.
        let end = Instant::now() + HANG_MAX;
        while !self.ip(&format!("-o link show {interface}"))?.contains(" state UP ") {
            if Instant::now() > end {
                let name = &self.name;
                return Err(TestbedError::Wrong(format!("{interface} in {name} has no carrier")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Runs `work` on a thread in the namespace, so that its sockets and child processes belong to the
    /// namespace.
    ///
    /// # Errors
    ///
    /// If the namespace can't be entered, or `work` fails.
    pub fn enter<T: Send, E: From<TestbedError> + Send>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| self.join().map_err(E::from).and_then(|()| work()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace permanently.
    ///
    /// # Errors
    ///
    /// If the namespace can't be entered.
    pub fn join(&self) -> Result<(), TestbedError> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).map_err(TestbedError::client(format!("open {path}")))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| TestbedError::Client {
            doing: format!("entering namespace {}", self.name),
            source: errno.into(),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "del", &self.name]) {
            // Standard error may be closed or full; there is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "understudy: {error}");
        }
    }
}
