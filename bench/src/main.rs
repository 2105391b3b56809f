//! Measurements. Every figure comes with its peer, measured in the same run, in turns, on the same
//! cores; this host's absolute times mean little elsewhere.

mod record_cost;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measurements, each with the peers it is compared with.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What recording costs: counter requests per second, recorded and not, in turns
    RecordCost(record_cost::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::RecordCost(args) => record_cost::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
