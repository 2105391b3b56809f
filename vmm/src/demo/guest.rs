//! The guests that a demonstration can be of, and what differs between them: where they come from,
//! which services they have, how long one waits for them.

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

/// How much longer a Linux guest may take than the reference guest: where KVM emulates kernel code, an
/// answer takes a hundred times as long, but what is waited for is made of few of them.
const LINUX_PATIENCE: u32 = 4;

/// How much longer clients of a Linux guest pause: it works as much longer for each request, and is to be
/// idle now and then.
const LINUX_PAUSE: u32 = 20;

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
    pub fn echo(&self, address: Ipv4Addr, bytes: &[u8]) -> Result<(), DemoError> {
        match self {
            Guest::Reference => clients::echo(address, bytes),
            Guest::Linux(_) => redis::echo(address, bytes),
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

    /// From one ping(8) to the next, seconds.
    pub const fn ping_interval_s(&self) -> &'static str {
        match self {
            Guest::Reference => "0.05",
            Guest::Linux(_) => "1",
        }
    }

    /// How long a client pauses that pauses for `time` between its talks with the reference guest. One that
    /// has no time for its own work shows nothing.
    pub fn pause(&self, time: Duration) -> Duration {
        match self {
            Guest::Reference => time,
            Guest::Linux(_) => time * LINUX_PAUSE,
        }
    }

    /// How long to wait for what the reference guest has `time` for.
    pub fn patience(&self, time: Duration) -> Duration {
        match self {
            Guest::Reference => time,
            Guest::Linux(_) => time * LINUX_PATIENCE,
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
