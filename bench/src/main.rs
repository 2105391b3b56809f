//! Benchmarks. Every figure is measured together with its reference, in the same run, in interleaved
//! rounds and on the same cores, because this host's absolute times say little about other hosts.

mod checkpoint;
mod counter_client;
mod disk;
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
mod qemu;
mod record_cost;
mod refusal_cost;
mod report;
mod seal_cost;
mod series;
mod stage_trace;
mod throughput;
mod vms;

use clap::{Parser, Subcommand};
use outcome::Run;
use std::process::ExitCode;
use std::time::Duration;
use testbed::pace::HANG_MAX;
use vmm::stdio;

/// Longest wait for an answer. A peer that takes longer is treated as broken.
const PATIENCE: Duration = HANG_MAX;

/// Benchmarks, each measured together with what it is compared with
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Round trips of the logging channel compared with UDP, TCP and packet sockets on one LAN
    LogRtt(Run<log_rtt::Args>),
    /// Time to refuse a frame of somebody without the key, by kind of frame
    RefusalCost(refusal_cost::Args),
    /// Time to seal and to open a frame, by cipher and frame size
    SealCost(seal_cost::Args),
    /// Time from sending a frame until the guest's interrupt handler acknowledges it
    IrqDelivery(Run<irq_delivery::Args>),
    /// Time that a protected VM's outputs are held until the backup acknowledges the log, by load
    OutputHold(Run<output_hold::Args>),
    /// Cost of protection: requests per second, CPU time and log bytes, protected and unprotected
    Throughput(Run<throughput::Args>),
    /// Runs the benchmarks and writes one HTML page with tables and plots
    Report(report::Args),
    /// Cost of recording: counter requests per second, recorded and not recorded
    RecordCost(Run<record_cost::Args>),
    /// Round trips of the same guest under QEMU/KVM and under understudy
    Peers(Run<peers::Args>),
    /// Requests to a disk by the same guest on the same image, under QEMU/KVM and under understudy
    Disk(Run<disk::Args>),
    /// Size and duration of checkpoints, by working set, input deadline and input rate
    Checkpoint(Run<checkpoint::Args>),
    /// Cost of protecting a Linux guest: redis INCR, protected and unprotected
    LinuxGuest(Run<linux_guest::Args>),
    /// Failover stages and false alarms, by silence timeout
    Failover(Run<failover::Args>),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::LogRtt(run) => run.main(),
        Command::RefusalCost(args) => refusal_cost::main(&args),
        Command::SealCost(args) => seal_cost::main(&args),
        Command::IrqDelivery(run) => run.main(),
        Command::OutputHold(run) => run.main(),
        Command::Throughput(run) => run.main(),
        Command::Report(args) => report::main(&args),
        Command::RecordCost(run) => run.main(),
        Command::Peers(run) => run.main(),
        Command::Disk(run) => run.main(),
        Command::Checkpoint(run) => run.main(),
        Command::LinuxGuest(run) => run.main(),
        Command::Failover(run) => run.main(),
    };
    match result {
        Ok(()) => stdio::finish("bench"),
        Err(error) => {
            stdio::message(format_args!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}
