//! Measurements. Every figure comes with its peer, measured in the same run, in turns, on the same
//! cores; this host's absolute times mean little elsewhere.

mod asking;
mod checkpoint;
mod error;
mod failover;
mod interleave;
mod interrupt;
mod irq_delivery;
mod lan;
mod linux_guest;
mod log_rtt;
mod log_share;
mod machine;
mod outcome;
mod output_hold;
mod peers;
mod record_cost;
mod report;
mod seal_cost;
mod series;
mod stage_trace;
mod throughput;
mod vms;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;
use vmm::demo::pace::HANG_MAX;
use vmm::stdio;

/// Who does not answer for this long is taken for broken.
const PATIENCE: Duration = HANG_MAX;

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
    /// How long a frame takes until the guest's interrupt handler has seen it
    IrqDelivery(irq_delivery::Args),
    /// How long a protected VM's answers wait for the backup, by load
    OutputHold(output_hold::Args),
    /// What protection costs: requests a second, processor time, log
    Throughput(throughput::Args),
    /// Everything that a reader wants, as one page with pictures
    Report(report::Args),
    /// What recording costs: counter requests per second, recorded and not, in turns
    RecordCost(record_cost::Args),
    /// Round trips of the same guest under QEMU/KVM and under ours, in turns
    Peers(peers::Args),
    /// Size and time of checkpoints by working set, deadline and rate of inputs
    Checkpoint(checkpoint::Args),
    /// What protection costs a Linux guest: redis INCR, protected and not, in turns
    LinuxGuest(linux_guest::Args),
    /// Failovers stage by stage and false alarms, by silence timeout
    Failover(failover::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::LogRtt(args) => log_rtt::main(&args),
        Command::SealCost(args) => seal_cost::main(&args),
        Command::IrqDelivery(args) => irq_delivery::main(&args),
        Command::OutputHold(args) => output_hold::main(&args),
        Command::Throughput(args) => throughput::main(&args),
        Command::Report(args) => report::main(&args),
        Command::RecordCost(args) => record_cost::main(&args),
        Command::Peers(args) => peers::main(&args),
        Command::Checkpoint(args) => checkpoint::main(&args),
        Command::LinuxGuest(args) => linux_guest::main(&args),
        Command::Failover(args) => failover::main(&args),
    };
    match result {
        Ok(()) => stdio::finish("bench"),
        Err(error) => {
            stdio::message(format_args!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}
