//! `understudy demo`.

use super::exit_code::CliError;
use super::output;
use crate::demo::standalone;
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Options of `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Needs root. Makes a network namespace, runs a VM in it, talks to it with ping, curl and TCP
clients, and removes everything again.")]
pub struct DemoArgs {
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
pub fn main(args: &DemoArgs) -> Result<(), CliError> {
    let os = |source| CliError::Os { doing: "setting up the demonstration", source };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(os)?;
    }
    let program = std::env::current_exe().map_err(os)?;
    let result = standalone::run(&program, &interrupted, |line| eprintln!("{line}"))?;
    output::print(&result, args.json)
}
