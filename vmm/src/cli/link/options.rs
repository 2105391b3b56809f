//! Options of `link`.

use super::primary::Plan;
use crate::cli::exit_code::CliError;
use crate::cli::options::{check_core, check_seconds};
use crate::link::timing::{SILENCE_MS_DEFAULT, SILENCE_MS_MAX, SILENCE_MS_MIN, timing};
use crate::link::{LinkOptions, key_file};
use crate::stdio;
use clap::{ArgGroup, Args, ValueEnum};
use logchan::endpoint::Settings;
use logchan::handshake::Security;
use logchan::ids::{Role, Term, VmId};
use logchan::limits::CONSOLE_BYTES_MAX;
use logchan::time::Duration;
use netpath::{MacAddr, ReceivePath, WaitPolicy};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Start one on each host, in any order, with the same key and the other host's MAC address:
  understudy key /etc/understudy.key       # once; copy it to the other host
  understudy link --interface eth1 --peer 52:54:00:00:00:0b --role primary --key /etc/understudy.key
  understudy link --interface eth1 --peer 52:54:00:00:00:0a --role backup --key /etc/understudy.key

The primary sends entries and prints how long their acknowledgements took; then it says Bye, and the
backup prints what it saw. Ctrl-C ends either side in good order; the other one is told.

Exit codes:
  0   measured, or ended by a signal or by the peer's Bye
  2   wrong usage; the peer's address is our own
  4   the interface can't be used, or was deleted
  12  key file, or nobody was met who fits
  13  the peer fell silent, or sent something else";

/// Tells a `link` from the primary or the backup of a VM, which must not take it for their peer. It
/// stands where those have the digests of CPU model and guest: "ulinkrtt".
pub(super) const NO_MACHINE: u64 = u64::from_be_bytes(*b"ulinkrtt");

const COUNT: u64 = 10_000;
const INTERVAL_US: u64 = 1_000;
const ENTRY_BYTES: usize = 64;

/// Options of `link`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP, group(ArgGroup::new("protection").args(["key", "insecure"]).required(true)))]
pub struct LinkArgs {
    /// Network interface of the logging channel
    #[arg(long, value_name = "NAME")]
    pub(super) interface: String,
    /// MAC address of the other host's interface
    #[arg(long, value_name = "MAC", value_parser = netpath::mac::parse_station)]
    pub(super) peer: MacAddr,
    /// Which end this is; the other host is the other one
    #[arg(long)]
    role: RoleName,
    /// File with the pre-shared key, made by 'understudy key'
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Neither encrypt nor authenticate: for looking at the wire on a network that is yours alone
    #[arg(long)]
    pub(super) insecure: bool,
    /// Number of the VM, as on the other host
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u64,
    /// Take the peer for dead when it was not heard for this long, milliseconds; as on the other host
    #[arg(long, value_name = "N", default_value_t = SILENCE_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    pub(super) silence_ms: u64,
    /// How long to look for the next frame before blocking, microseconds
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    spin_us: u64,
    /// Core to run on
    #[arg(long, value_name = "N")]
    pub(super) core: Option<usize>,
    /// Primary: entries to send; 0 goes on until Ctrl-C [default: 10000]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Primary: from one entry to the next, microseconds; 0 sends the next when the one before is
    /// acknowledged [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=60_000_000))]
    interval_us: Option<u64>,
    /// Primary: bytes in an entry, 16 to 4096 [default: 64]
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Wait this long for the other host
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(super) wait: f64,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,
    /// Say nothing but results and errors
    #[arg(long, short)]
    quiet: bool,
}

/// A role on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Sends entries and measures
    Primary,
    /// Acknowledges them
    Backup,
}

impl LinkArgs {
    /// Checks what clap can't.
    pub(super) fn check(&self) -> Result<(), CliError> {
        check_core(self.core)?;
        check_seconds("--wait", self.wait)?;
        let usage = |text: String| Err(CliError::Usage(text));
        let for_the_primary = [
            ("--count", self.count.is_some()),
            ("--interval-us", self.interval_us.is_some()),
            ("--size", self.size.is_some()),
        ];
        for (option, given) in for_the_primary {
            if given && self.role() == Role::Backup {
                return usage(format!("{option} is the primary's: leave it away here"));
            }
        }
        match self.size {
            Some(bytes) if !(16..=CONSOLE_BYTES_MAX).contains(&bytes) => {
                usage(format!("--size {bytes}: give 16 to {CONSOLE_BYTES_MAX} bytes"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads the key, if there shall be one.
    pub(super) fn security(&self) -> Result<Security, CliError> {
        match &self.key {
            Some(path) => Ok(Security::Sealed(key_file::read(path)?)),
            None => Ok(Security::Insecure),
        }
    }

    pub(super) fn role(&self) -> Role {
        match self.role {
            RoleName::Primary => Role::Primary,
            RoleName::Backup => Role::Backup,
        }
    }

    /// What the other end is called.
    pub(super) fn peer_name(&self) -> &'static str {
        match self.role {
            RoleName::Primary => "backup",
            RoleName::Backup => "primary",
        }
    }

    pub(super) fn vm(&self) -> VmId {
        VmId(self.vm_id)
    }

    pub(super) fn protection(&self) -> &'static str {
        if self.insecure { "insecure" } else { "sealed" }
    }

    pub(super) fn link_options(&self) -> LinkOptions {
        let spin = std::time::Duration::from_micros(self.spin_us);
        LinkOptions {
            interface: self.interface.clone(),
            peer: self.peer,
            wait: WaitPolicy { spin, ..WaitPolicy::default() },
            receive: ReceivePath::Auto,
        }
    }

    pub(super) fn settings(&self) -> Settings {
        let role = self.role();
        // There is one term and nobody goes live.
        let term = match role {
            Role::Primary => Term(1),
            Role::Backup => Term(0),
        };
        Settings {
            cpu_digest: NO_MACHINE,
            guest_digest: NO_MACHINE,
            timing: timing(self.silence_ms),
            ..Settings::new(role, self.vm(), term)
        }
    }

    /// What the primary is to send.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            count: self.count.unwrap_or(COUNT),
            interval: Duration::from_micros(self.interval_us.unwrap_or(INTERVAL_US)),
            bytes: self.size.unwrap_or(ENTRY_BYTES),
        }
    }

    /// One line that says what this end is.
    pub(super) fn describe(&self) -> String {
        let role = match self.role {
            RoleName::Primary => "primary",
            RoleName::Backup => "backup",
        };
        let protection = match &self.key {
            Some(path) => format!("sealed with AEGIS-128L, key {}", path.display()),
            None => "NOT PROTECTED (--insecure)".into(),
        };
        let silence = self.silence_ms;
        format!(
            "{role} of VM {}, peer {}; {protection}; silence {silence} ms",
            self.vm_id, self.peer
        )
    }

    /// Says something on standard error, unless told to be quiet.
    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if !self.quiet {
            stdio::message(text());
        }
    }
}
