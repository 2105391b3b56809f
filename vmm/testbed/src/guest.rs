//! The guests, and how they differ: where they come from, which services they have, how
//! fast they usually are.

use crate::TestbedError;
use crate::clients::probe::Probe;
use crate::clients::{self, CounterService, redis};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Paths of the snapshots that `scripts/linux-guest.sh` makes, below the user's cache folder: without and with `--disk`.
const SNAPSHOT: &str = "understudy/linux-guest/guest.snap";
const SNAPSHOT_WITH_DISK: &str = "understudy/linux-guest-disk/guest.snap";
/// Name of the image of the disk, beside the snapshot.
const DISK_IMAGE: &str = "data.img";

/// The program's default silence timeout, in milliseconds.
pub const REFERENCE_SILENCE_MS: u64 = 100;

/// Default silence timeout with a Linux guest, in milliseconds. A core that emulates kernel code is busy for
/// long periods, and everything else on that core has to wait.
const LINUX_SILENCE_MS: u64 = 500;

/// A guest.
#[derive(Clone, Debug, Default)]
pub enum Guest {
    /// The reference guest that is built into this program.
    #[default]
    Reference,
    /// A Linux kernel with redis and busybox's httpd, started from this snapshot.
    Linux(PathBuf),
}

impl Guest {
    /// Returns the guest's name on the command line and in results.
    pub const fn name(&self) -> &'static str {
        match self {
            Guest::Reference => "reference",
            Guest::Linux(_) => "linux",
        }
    }

    /// Returns the options of `run`, `primary` and `backup` that select this guest.
    pub fn options(&self) -> Vec<OsString> {
        match self {
            Guest::Reference => Vec::new(),
            Guest::Linux(snapshot) => vec!["--restore".into(), snapshot.into()],
        }
    }

    /// Returns the guest's counter service.
    pub const fn counter(&self) -> &'static CounterService {
        match self {
            Guest::Reference => &clients::REFERENCE_COUNTER,
            Guest::Linux(_) => &redis::COUNTER,
        }
    }

    /// Returns the size of an echo transfer in bytes.
    pub const fn echo_bytes(&self) -> usize {
        match self {
            Guest::Reference => 64 << 10,
            Guest::Linux(_) => 16 << 10,
        }
    }

    /// Sends `bytes` to the guest's echo service on a new connection and compares the answer. Times out after
    /// `patience`.
    ///
    /// # Errors
    ///
    /// If the transfer fails or the answer differs.
    pub fn echo(
        &self,
        address: Ipv4Addr,
        bytes: &[u8],
        patience: Duration,
    ) -> Result<(), TestbedError> {
        match self {
            Guest::Reference => clients::echo_within(address, bytes, patience),
            Guest::Linux(_) => redis::echo(address, bytes, patience),
        }
    }

    /// Returns the kind of requests that the prober sends to this guest.
    pub const fn probe(&self) -> Probe {
        match self {
            Guest::Reference => Probe::Udp,
            Guest::Linux(_) => Probe::Icmp,
        }
    }

    /// Returns the paths of the pages that the guest serves.
    pub const fn pages(&self) -> &'static [&'static str] {
        match self {
            Guest::Reference => &["/", "/status"],
            Guest::Linux(_) => &["/index.html"],
        }
    }

    /// Returns the usual round trip of a request to the counter service: that of an otherwise idle host whose
    /// KVM emulates kernel code (kvm_pvm).
    pub const fn answer_usual(&self) -> Duration {
        match self {
            Guest::Reference => Duration::from_micros(250),
            Guest::Linux(_) => Duration::from_millis(15),
        }
    }

    /// Returns the default silence timeout in milliseconds.
    pub const fn silence_ms(&self) -> u64 {
        match self {
            Guest::Reference => REFERENCE_SILENCE_MS,
            Guest::Linux(_) => LINUX_SILENCE_MS,
        }
    }
}

/// Whether a VM has a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestDisk {
    /// It has none.
    #[default]
    None,
    /// It has one, with an image on each host.
    Mirrored,
}

/// Returns the path of the image that belongs to a snapshot of `scripts/linux-guest.sh --disk`.
pub fn disk_image(snapshot: &Path) -> PathBuf {
    snapshot.with_file_name(DISK_IMAGE)
}

/// Returns the default path of the snapshot that `scripts/linux-guest.sh` makes of a VM with this `disk`. `None` if
/// neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn default_snapshot(disk: GuestDisk) -> Option<PathBuf> {
    let of = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    let caches = of("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(of("HOME")?).join(".cache")))?;
    Some(caches.join(match disk {
        GuestDisk::None => SNAPSHOT,
        GuestDisk::Mirrored => SNAPSHOT_WITH_DISK,
    }))
}
