//! What a silence timeout costs: how long a failover takes with it, stage by stage, and how often it
//! takes a living host for dead.
//!
//! - `kills`: the demonstration (`understudy demo`) with all its clients, whose primary is killed
//! - `alarms`: a pair without clients that nobody kills, on idle hosts and on loaded ones
//!
//! Both hosts of a pair and everything else run on this machine's cores: two hosts that have their own
//! have fewer false alarms.

mod alarms;
mod kills;

use crate::error::BenchError;
use crate::interleave::{Rounds, share};
use crate::interrupt;
use crate::outcome::{self, Outcome, OutputArgs};
use alarms::{Alarms, Load};
use kills::Kills;
use serde_json::{Value, json};
use std::time::Duration;
use vmm::link::timing::SILENCE_MS_MIN;
use vmm::outln;

/// Clients of the demonstration are not patient enough for more.
const SILENCE_MS_MAX: u64 = 2000;

/// Options of `failover`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kills with each timeout
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Timeouts: after how long a silent host is taken for dead, milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [10, 20, 50, 100, 200, 500],
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    silences: Vec<u64>,
    /// Seconds that a pair that nobody kills is watched for, on idle and again on loaded hosts
    #[arg(long, default_value_t = 20.0)]
    watch_s: f64,
    /// Turns that all of this is divided into
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Of the moments of kills, of load, and of the order of timeouts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    /// For a report in minutes: less than 45 seconds.
    pub(crate) fn quick() -> Args {
        Args { kills: 3, silences: vec![20, 100, 500], watch_s: 2.5, rounds: 1, ..Args::full() }
    }

    /// For figures that are kept.
    pub(crate) fn full() -> Args {
        outcome::defaults()
    }
}

/// A timeout, and what was seen of it.
struct Subject {
    silence_ms: u64,
    kills: Kills,
    /// In the order of [`Load::ALL`].
    alarms: [Alarms; 2],
}

impl Subject {
    fn turn(&mut self, args: &Args, round: u32) -> Result<(), BenchError> {
        let seed = args.seed + u64::from(round);
        let kills = share(u64::from(args.kills), args.rounds, round);
        self.kills.turn(kills as u32, self.silence_ms, seed)?;
        let time = Duration::from_secs_f64(args.watch_s / f64::from(args.rounds));
        for (alarms, load) in self.alarms.iter_mut().zip(Load::ALL) {
            if !time.is_zero() {
                interrupt::check()?;
                alarms.turn(self.silence_ms, load, time, seed)?;
            }
        }
        Ok(())
    }
}

/// Measures.
pub(crate) fn measure(args: &Args) -> Result<Outcome, BenchError> {
    let mut subjects: Vec<Subject> = args
        .silences
        .iter()
        .map(|&silence_ms| Subject { silence_ms, kills: Kills::new(), alarms: Default::default() })
        .collect();
    let rounds = Rounds { count: args.rounds, seed: args.seed };
    rounds.run("failovers", &mut subjects, |round, subject| subject.turn(args, round))?;
    let mut outcome = Outcome::new("failover");
    outcome.put("seed", args.seed);
    let mut silences = Vec::new();
    for Subject { silence_ms, kills, alarms } in subjects {
        let mut figures = kills.figures(&mut outcome, &format!("silence-{silence_ms}"));
        figures.insert("silence_ms".into(), silence_ms.into());
        let alarms = Load::ALL.iter().zip(&alarms);
        let alarms = alarms.map(|(load, alarms)| (load.as_str().to_string(), alarms.figures()));
        figures.insert("false_alarms".into(), Value::Object(alarms.collect()));
        silences.push(json!(figures));
    }
    outcome.put("silences", silences);
    Ok(outcome)
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<(), BenchError> {
    if !(0.0..1e6).contains(&args.watch_s) {
        return Err(BenchError::Wrong(format!("--watch-s {}: give some seconds", args.watch_s)));
    }
    outcome::run(&args.output, || measure(args), table)
}

fn table(figures: &Value) {
    outln!(
        "a failover, ms, median and longest; false alarms per minute of protected time, and how long at \
         most\nthis machine kept somebody waiting for a core meanwhile, ms"
    );
    outln!(
        "{:>7} {:>5} | {:>15} | {:>13} | {:>15} | {:>15} | {:>26} | {:>26}",
        "silence",
        "kills",
        "noticed after",
        "live after",
        "outage, UDP",
        "gap, TCP",
        "hosts idle",
        "hosts loaded"
    );
    for silence in figures["silences"].as_array().into_iter().flatten() {
        let number = |pointer: &str| silence.pointer(pointer).and_then(Value::as_f64);
        let stage = |name: &str| {
            let ms = |what| number(&format!("/{name}/{what}")).unwrap_or(f64::NAN) / 1e6;
            match number("/kills") {
                Some(1.0..) => format!("{:.1} {:.1}", ms("p50_ns"), ms("max_ns")),
                _ => "-".into(),
            }
        };
        let alarms = |load: &str| {
            let of = |what| number(&format!("/false_alarms/{load}/{what}")).unwrap_or(0.0);
            match number(&format!("/false_alarms/{load}/alarms_per_protected_minute")) {
                Some(rate) => {
                    let (alarms, seconds) = (of("alarms"), of("protected_s"));
                    let late_ms = of("host_late_ms_max");
                    format!("{rate:.1} ({alarms:.0} in {seconds:.1} s; {late_ms:.0})")
                }
                None => "never protected".into(),
            }
        };
        outln!(
            "{:>7} {:>5} | {:>15} | {:>13} | {:>15} | {:>15} | {:>26} | {:>26}",
            number("/silence_ms").unwrap_or(f64::NAN),
            number("/kills").unwrap_or(f64::NAN),
            stage("detect"),
            stage("golive"),
            stage("outage"),
            stage("tcp_gap"),
            alarms("idle"),
            alarms("loaded"),
        );
        if let Some(why) = silence["failure"].as_str() {
            outln!("        the kills could not go on: {why}");
        }
    }
}
