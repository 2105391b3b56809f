//! The guests that a demonstration can be of, and what differs between them: where they come from,
//! which services they have, how fast they usually are.

use super::DemoError;
use super::clients::{self, CounterService};
use super::pair::probe::Probe;
use super::redis;
use crate::link::timing::SILENCE_MS_DEFAULT;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// Where `scripts/linux-guest.sh` leaves its snapshot, below the user's folder for caches.
const SNAPSHOT: &str = "understudy/linux-guest/guest.snap";

/// After how long a silent host is taken for dead when the VM is a Linux guest, milliseconds. A core that
/// emulates kernel code is busy for long, and whatever else runs on it has to wait.
const LINUX_SILENCE_MS: u64 = 500;

/// A guest.
#[derive(Clone, Debug, Default)]
pub enum Guest {
    /// The one that is built with this program.
    #[default]
    Reference,
    /// A Linux kernel with redis and busybox's httpd, which goes on from this snapshot.
    Linux(PathBuf),
}

impl Guest {
    /// As it is called on the command line and in results.
    pub const fn name(&self) -> &'static str {
        match self {
            Guest::Reference => "reference",
            Guest::Linux(_) => "linux",
        }
    }

    /// The options of `run`, `primary` and `backup` that make it.
    pub fn options(&self) -> Vec<OsString> {
        match self {
            Guest::Reference => Vec::new(),
            Guest::Linux(snapshot) => vec!["--restore".into(), snapshot.into()],
        }
    }

    /// The service that counts.
    pub const fn counter(&self) -> &'static CounterService {
        match self {
            Guest::Reference => &clients::REFERENCE_COUNTER,
            Guest::Linux(_) => &redis::COUNTER,
        }
    }

    /// Bytes of a client's echo.
    pub const fn echo_bytes(&self) -> usize {
        match self {
            Guest::Reference => 64 << 10,
            Guest::Linux(_) => 16 << 10,
        }
    }

    /// Sends `bytes` on a connection of their own and compares what comes back.
    /// Whoever waits for an answer gives up after `patience`.
    pub fn echo(
        &self,
        address: Ipv4Addr,
        bytes: &[u8],
        patience: Duration,
    ) -> Result<(), DemoError> {
        match self {
            Guest::Reference => clients::echo_within(address, bytes, patience),
            Guest::Linux(_) => redis::echo(address, bytes, patience),
        }
    }

    /// How it is found out whether it answers.
    pub const fn probe(&self) -> Probe {
        match self {
            Guest::Reference => Probe::Udp,
            Guest::Linux(_) => Probe::Icmp,
        }
    }

    /// Pages that it serves.
    pub const fn pages(&self) -> &'static [&'static str] {
        match self {
            Guest::Reference => &["/", "/status"],
            Guest::Linux(_) => &["/index.html"],
        }
    }

    /// The round trip of a request to the service that counts, on a host that nothing else runs on, and whose KVM
    /// emulates kernel code (kvm_pvm).
    pub const fn answer_usual(&self) -> Duration {
        match self {
            Guest::Reference => Duration::from_micros(250),
            Guest::Linux(_) => Duration::from_millis(15),
        }
    }

    /// After how long a silent host is taken for dead unless told otherwise, milliseconds.
    pub const fn silence_ms(&self) -> u64 {
        match self {
            Guest::Reference => SILENCE_MS_DEFAULT,
            Guest::Linux(_) => LINUX_SILENCE_MS,
        }
    }
}

/// Where `scripts/linux-guest.sh` puts its snapshot unless told otherwise; `None` for a user without a
/// folder of their own.
pub fn default_snapshot() -> Option<PathBuf> {
    let of = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    let caches = of("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(of("HOME")?).join(".cache")))?;
    Some(caches.join(SNAPSHOT))
}
