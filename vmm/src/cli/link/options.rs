//! Command line options of `understudy link`.

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

The primary sends entries and prints how long their acknowledgements took. Then it closes the channel, and
the backup prints what it received. Ctrl-C ends either side cleanly and notifies the other one.

Exit codes:
  0   measured, or ended by a signal or by the peer
  2   wrong usage, or --peer is this host's own address
  4   the interface can't be used, or was deleted
  12  the key file can't be used, or no matching peer was found
  13  the peer fell silent, or sent something else";

/// Digest that `understudy link` sends in place of the digests of CPU model and guest: "ulinkrtt". It keeps
/// the primary or the backup of a VM from accepting a `link` as their peer.
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
    /// Role of this side; the other host takes the other role
    #[arg(long)]
    role: RoleName,
    /// File with the pre-shared key, made by 'understudy key'
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Do not encrypt or authenticate; for inspecting the traffic on a private network
    #[arg(long)]
    pub(super) insecure: bool,
    /// Number of the VM, the same on both hosts
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u64,
    /// Declare the peer dead after receiving nothing from it for this long, milliseconds; the same on both
    /// hosts
    #[arg(long, value_name = "N", default_value_t = SILENCE_MS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    pub(super) silence_ms: u64,
    /// How long to poll for the next frame before blocking, microseconds
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    spin_us: u64,
    /// Core to pin this process to
    #[arg(long, value_name = "N")]
    pub(super) core: Option<usize>,
    /// Primary: number of entries to send; 0: until Ctrl-C [default: 10000]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Primary: interval between entries, microseconds; 0: send each entry when the one before is
    /// acknowledged [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=60_000_000))]
    interval_us: Option<u64>,
    /// Primary: size of an entry, 16 to 4096 [default: 64]
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// How long to wait for the other host
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(super) wait: f64,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    pub(super) json: bool,
    /// Print only results and errors
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
    /// Checks the options that clap can't check.
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
                return usage(format!("{option} is the primary's option: remove it on the backup"));
            }
        }
        match self.size {
            Some(bytes) if !(16..=CONSOLE_BYTES_MAX).contains(&bytes) => {
                usage(format!("--size {bytes}: give 16 to {CONSOLE_BYTES_MAX} bytes"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads the key, unless `--insecure` is given.
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

    /// Returns the name of the peer's role.
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
            vm: self.vm(),
            wait: WaitPolicy { spin, ..WaitPolicy::default() },
            receive: ReceivePath::Auto,
        }
    }

    pub(super) fn settings(&self) -> Settings {
        let role = self.role();
        // There is only one term, because no side goes live.
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

    /// Returns what the primary sends.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            count: self.count.unwrap_or(COUNT),
            interval: Duration::from_micros(self.interval_us.unwrap_or(INTERVAL_US)),
            bytes: self.size.unwrap_or(ENTRY_BYTES),
        }
    }

    /// Describes this side in one line.
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

    /// Prints a message on standard error, unless `--quiet` is given.
    pub(super) fn message(&self, text: impl FnOnce() -> String) {
        if !self.quiet {
            stdio::message(text());
        }
    }
}
