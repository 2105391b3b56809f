//! `understudy up`: asks the witness for this host's part in the VM, and then does what `primary` or `backup` does.
//!
//! | the witness says of the VM's newest term | `boot = "first"` | without it |
//! |---|---|---|
//! | it has an owner | backup | backup |
//! | it has none: the VM never ran, or was ended in order | primary | backup: it waits for a primary |
//! | nothing | asks again | asks again |
//!
//! What the witness said may be wrong when this host acts on it. That is safe: a primary first asks the witness to boot
//! the VM ([`Question::Boot`](replication::witness::Question)), and of all hosts that ask at the same time, one wins. The
//! others end with exit code 14, and are backups when they are started again.

use super::PairArgs;
use crate::cli::exit_code::CliError;
use crate::link::now;
use crate::notify::ServiceManager;
use crate::stdio;
use clap::{Args, ValueEnum};
use logchan::ids::Term;
use replication::replica::Start;
use replication::witness::{Ending, LastClaim};
use std::fmt;
use std::time::Duration;

/// How long to wait before a witness that has not answered is asked again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "\
Example: understudy up web

What 'understudy@web.service' runs, with the options in /etc/understudy/vms/web.toml. The witness
decides: while the VM's newest term has an owner, this host becomes the backup. Otherwise the VM was
ended or never ran: a host with boot = \"first\" becomes the primary, and another one the backup,
which waits for a primary.

When both hosts have lost power, the newest term keeps its owner, and both wait. Check that no host
runs the VM, run 'understudy forget', and start the host with boot = \"first\" again.

Exit codes, and what systemd does then:
  0       stopped in an orderly way: nothing
  14      the VM runs on the other host, or can't continue: starts it again, as the backup
  2, 5, 6, 7, 9, 12, 18
          an operator has to look at it: nothing
  others  and signals: starts it again";

/// Options of `up`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct UpArgs {
    /// Name of the VM, before all options: these are in /etc/understudy/vms/NAME.toml
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    pub(super) pair: PairArgs,
    /// Whether this host boots the VM if no host runs it
    #[arg(long, value_name = "WHEN", default_value = "never")]
    boot: BootPolicy,
}

/// Whether a host boots a VM that nobody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BootPolicy {
    /// Another host does
    Never,
    /// This host does: the VM never ran, or was ended in order
    First,
}

/// The part of a host in its VM, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Boots the VM: no host runs it.
    Primary,
    /// Follows a host that may run the VM.
    BackupOf { term: Term },
    /// Waits: no host runs the VM, and this one may not boot it.
    Waiting,
}

/// Returns the part of a host, if `last` is the newest claim that has an owner.
fn part(last: Option<LastClaim>, boot: BootPolicy) -> Part {
    let ending = last.map(|claim| (claim.ending, claim.generation.term));
    match (ending, boot) {
        (Some((Ending::None, term)), BootPolicy::Never | BootPolicy::First) => {
            Part::BackupOf { term }
        }
        (None | Some((Ending::Released, _)), BootPolicy::First) => Part::Primary,
        (None | Some((Ending::Released, _)), BootPolicy::Never) => Part::Waiting,
    }
}

impl Part {
    fn start(self) -> Start {
        match self {
            Part::Primary => Start::Primary,
            Part::BackupOf { .. } | Part::Waiting => Start::Backup,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Primary => f.write_str("no host runs the VM: this host boots it"),
            Part::BackupOf { term } => write!(
                f,
                "the VM was live in term {term}: this host is the backup; if no host runs the VM any more, run \
                 'understudy forget'"
            ),
            Part::Waiting => f.write_str(
                "no host runs the VM, and boot = \"first\" is not set on this host: waiting for a host that boots it",
            ),
        }
    }
}

impl UpArgs {
    /// Checks what clap can't check, and the key: nobody waits for a file that only an operator can make.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if let (Some(name), false) = (&self.name, self.pair.has_config()) {
            return Err(CliError::Usage(format!("{name}: the name comes before all options")));
        }
        self.pair.check()?;
        self.pair.security_in_silence().map(drop)
    }

    /// Asks the witness for the part of this host, until it answers.
    pub(super) fn decide(&self, service: &mut ServiceManager) -> Start {
        let mut told = String::new();
        loop {
            let why = match self.pair.last_claim() {
                Ok(last) => {
                    let part = part(last, self.boot);
                    stdio::message(format_args!("understudy: {part}"));
                    service.show(&part.to_string());
                    return part.start();
                }
                Err(error) => format!("waiting for the witness: {error}"),
            };
            // The start of the host must not wait for a witness that is down.
            service.prove_alive(now());
            service.show(&why);
            if told != why {
                stdio::warning(format_args!("understudy: {why}"));
                told = why;
            }
            std::thread::sleep(ASK_INTERVAL);
        }
    }
}

impl PairArgs {
    /// Returns the newest claim of the VM that has an owner.
    ///
    /// # Errors
    ///
    /// The witness can't be used, or does not answer.
    fn last_claim(&self) -> Result<Option<LastClaim>, CliError> {
        let witness = self.witness_for_question()?;
        let seen = witness.look().map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(seen.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::disk_copy::Generation;
    use logchan::ids::Claimant;

    #[test]
    fn part_follows_from_the_newest_claim_and_the_policy() {
        let claim = |ending| {
            let generation = Generation { term: Term(7), owner: Claimant(1) };
            Some(LastClaim { generation, ending })
        };
        let backup = Part::BackupOf { term: Term(7) };
        for (last, boot, expected) in [
            (None, BootPolicy::First, Part::Primary),
            (None, BootPolicy::Never, Part::Waiting),
            (claim(Ending::Released), BootPolicy::First, Part::Primary),
            (claim(Ending::Released), BootPolicy::Never, Part::Waiting),
            (claim(Ending::None), BootPolicy::First, backup),
            (claim(Ending::None), BootPolicy::Never, backup),
        ] {
            assert_eq!(part(last, boot), expected, "{last:?}, {boot:?}");
        }
    }

    #[test]
    fn only_a_primary_boots_and_each_part_says_what_follows() {
        for (part, start, text) in [
            (Part::Primary, Start::Primary, "boots it"),
            (Part::BackupOf { term: Term(7) }, Start::Backup, "live in term 7"),
            (Part::Waiting, Start::Backup, "waiting for a host that boots it"),
        ] {
            assert_eq!(part.start(), start);
            assert!(part.to_string().contains(text), "{part}");
        }
    }
}
