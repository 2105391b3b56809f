//! Runs the benchmarks and writes the series as .hgrm and .hlog, all figures as `report.json`, and
//! `report.html`, a self-contained page.
//!
//! - `plot`: plots as SVG
//! - `html`: the page of text, tables and plots
//! - `sections`: the page's section for each benchmark
//! - `figures`: formatting of figures

mod figures;
mod html;
mod plot;
mod sections;

use crate::error::BenchError;
use crate::outcome::{Measurement, Outcome, make_folder};
use crate::{checkpoint, failover, irq_delivery, log_rtt, output_hold, peers, throughput};
use crate::{interrupt, machine};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use vmm::{outln, stdio};

/// A benchmark that the report can include.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// Round trips of the logging channel and of sockets
    LogRtt,
    /// Interrupt delivery
    IrqDelivery,
    /// Output hold
    OutputHold,
    /// Cost of protection
    Throughput,
    /// Failovers and false alarms
    Failover,
    /// Checkpoints
    Checkpoint,
    /// The same guest under QEMU/KVM
    Peers,
}

/// Options of `report`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder to write the page, the figures and the series to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Take about three minutes: enough for an overview, not for published figures
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Take about half an hour
    #[arg(long, required_unless_present = "quick")]
    full: bool,
    /// Benchmarks to run
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Topic::value_variants().to_vec())]
    only: Vec<Topic>,
}

/// Runs the benchmarks and writes the report.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    make_folder(&args.out)?;
    let begun = Instant::now();
    // Described before the benchmarks run: afterwards the load average is their own.
    let machine = machine::describe();
    let mut outcomes = Vec::new();
    for (number, topic) in args.only.iter().enumerate() {
        interrupt::check()?;
        let (name, total) = (topic.to_possible_value().expect("none is skipped"), args.only.len());
        let seconds = begun.elapsed().as_secs();
        stdio::message(format_args!(
            "{:>3} s  {} of {total}: {}",
            seconds,
            number + 1,
            name.get_name()
        ));
        let outcome = measure(*topic, args.quick)?;
        outcome.save(&args.out)?;
        outcomes.push((*topic, outcome));
    }
    let took = begun.elapsed();
    let page = html::page(&machine, &setting(args, took), &outcomes);
    write(args, "report.html", &page)?;
    let figures = object(&machine, took, &outcomes);
    write(args, "report.json", &format!("{figures:#}\n"))?;
    outln!(
        "{}: wrote report.html, report.json and {} series after {:.0} s",
        args.out.display(),
        outcomes.iter().map(|(_, outcome)| outcome.series.len()).sum::<usize>(),
        took.as_secs_f64()
    );
    Ok(())
}

fn measure(topic: Topic, quick: bool) -> Result<Outcome, BenchError> {
    match topic {
        Topic::LogRtt => outcome::<log_rtt::Args>(quick),
        Topic::IrqDelivery => outcome::<irq_delivery::Args>(quick),
        Topic::OutputHold => outcome::<output_hold::Args>(quick),
        Topic::Throughput => outcome::<throughput::Args>(quick),
        Topic::Failover => outcome::<failover::Args>(quick),
        Topic::Checkpoint => outcome::<checkpoint::Args>(quick),
        Topic::Peers => outcome::<peers::Args>(quick),
    }
}

fn outcome<M: Measurement>(quick: bool) -> Result<Outcome, BenchError> {
    if quick { M::quick() } else { M::full() }.outcome()
}

fn setting(args: &Args, took: Duration) -> String {
    let length = if args.quick {
        "A quick run: its tail percentiles rest on few values"
    } else {
        "A full run"
    };
    format!("{length}; it took {:.0} s.", took.as_secs_f64())
}

fn object(machine: &Value, took: Duration, outcomes: &[(Topic, Outcome)]) -> Value {
    let unix_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut all = Map::new();
    for (_, outcome) in outcomes {
        all.insert(outcome.name.into(), outcome.figures.clone().into());
    }
    json!({
        "machine": machine,
        "written_at_unix_s": unix_s.unwrap_or_default().as_secs(),
        "took_s": took.as_secs_f64(),
        "measurements": all,
    })
}

fn write(args: &Args, name: &str, text: &str) -> Result<(), BenchError> {
    let path = args.out.join(name);
    std::fs::write(&path, text).map_err(BenchError::os(format!("writing {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_default_options() {
        macro_rules! made {
            ($($module:ident),*) => {
                [$({
                    let (_full, _quick) = ($module::Args::full(), $module::Args::quick());
                    stringify!($module)
                }),*]
            };
        }
        let made =
            made!(log_rtt, irq_delivery, output_hold, throughput, failover, checkpoint, peers);
        assert_eq!(made.len(), Topic::value_variants().len());
    }
}
