//! `understudy key`.

use super::exit_code::CliError;
use super::output;
use crate::link::key_file;
use clap::Args;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
The key protects the logging channel: whoever has it can read the log, and with it the VM's memory,
and can pose as either host. Give it to the two hosts and to nobody else.

Example:
  understudy key /etc/understudy.key
  scp -p /etc/understudy.key other-host:/etc/understudy.key

Exit code 12 when the file exists (a key is never overwritten) or can't be written.";

/// Options of `key`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct KeyArgs {
    /// File to make, with mode 0600
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes a key.
pub fn main(args: &KeyArgs) -> Result<(), CliError> {
    key_file::create(&args.file)?;
    let path = args.file.display();
    output::write(&format!(
        "{path}: a new key; copy it to the other host over a channel you trust, mode 0600, and start \
         both sides with --key {path}\n"
    ))
}
