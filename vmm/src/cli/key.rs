//! `understudy key`.

use super::exit_code::CliError;
use super::output;
use crate::link::key_file;
use clap::Args;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
The key protects the logging channel. Anyone who has it can read the log, and with it the VM's memory, and
can impersonate either host. Copy it to the two hosts and to no one else.

Example:
  understudy key /etc/understudy.key
  scp -p /etc/understudy.key other-host:/etc/understudy.key

Exits with code 12 if the file exists (a key is never overwritten) or can't be written.";

/// Options of `key`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct KeyArgs {
    /// File to create, with mode 0600
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `understudy key`: creates a key file.
///
/// # Errors
///
/// If the file exists or can't be written.
pub fn main(args: &KeyArgs) -> Result<(), CliError> {
    key_file::create(&args.file)?;
    let path = args.file.display();
    output::write(&format!(
        "created key {path}: copy it to the other host over a trusted channel, with mode 0600, and start \
         both sides with --key {path}\n"
    ))
}
