//! Measurements. Every figure comes with its peer, measured in the same run, in turns, on the same
//! cores; this host's absolute times mean little elsewhere.

mod asking;
mod checkpoint;
mod error;
mod failover;
mod interleave;
mod interrupt;
mod lan;
mod log_rtt;
mod machine;
mod outcome;
mod peers;
mod record_cost;
mod seal_cost;
mod series;
mod vms;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Who does not answer for this long is taken for broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measurements, each with the peers it is compared with.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Round trips of the logging channel, of UDP, TCP and packet sockets, in turns on one LAN
    LogRtt(log_rtt::Args),
    /// What sealing a frame costs, by cipher and size
    SealCost(seal_cost::Args),
    /// What recording costs: counter requests per second, recorded and not, in turns
    RecordCost(record_cost::Args),
    /// Round trips of the same guest under QEMU/KVM and under ours, in turns
    Peers(peers::Args),
    /// Size and time of checkpoints by working set, deadline and rate of inputs
    Checkpoint(checkpoint::Args),
    /// Failovers stage by stage and false alarms, by silence timeout
    Failover(failover::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::LogRtt(args) => log_rtt::main(&args),
        Command::SealCost(args) => seal_cost::main(&args),
        Command::RecordCost(args) => record_cost::main(&args),
        Command::Peers(args) => peers::main(&args),
        Command::Checkpoint(args) => checkpoint::main(&args),
        Command::Failover(args) => failover::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
