//! Measures the trade-off of the silence timeout: how long each stage of a failover takes, and how
//! often a living host is declared dead.
//!
//! - `kills`: the demonstration (`understudy demo --power-loss`) with all its clients; the primary and its
//!   supervisor are killed
//! - `alarms`, `watch`: a pair without clients and without kills, on idle and on loaded hosts
//!
//! Both hosts of the pair, the clients and the load share this machine's cores. Two physical hosts have
//! fewer false alarms.

mod alarms;
mod kills;
mod watch;

use crate::error::BenchError;
use crate::interleave::{Round, Rounds};
use crate::interrupt;
use crate::outcome::{Measurement, Outcome};
use alarms::{Alarms, Load};
use kills::Kills;
use serde_json::{Value, json};
use std::time::Duration;
use vmm::link::timing::SILENCE_MS_MIN;
use vmm::outln;

/// Longest silence timeout: with a longer one the clients of the demonstration give up.
const SILENCE_MS_MAX: u64 = 2000;

/// Options of `failover`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kills for each timeout
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Silence timeouts: time after which a silent host is declared dead, milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [10, 20, 50, 100, 200, 500],
          value_parser = clap::value_parser!(u64).range(SILENCE_MS_MIN..=SILENCE_MS_MAX))]
    silences: Vec<u64>,
    /// Seconds to watch a pair without kills for false alarms, on idle hosts and again on loaded hosts
    #[arg(long, default_value_t = 20.0)]
    watch_s: f64,
    /// Rounds that the kills and the watching are divided into
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seed of the moments of kills, of the load, and of the order of timeouts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A silence timeout and its measurements.
struct Subject {
    silence_ms: u64,
    kills: Kills,
    /// In the order of [`Load::ALL`].
    alarms: [Alarms; 2],
}

impl Subject {
    fn run_round(&mut self, args: &Args, round: Round) -> Result<(), BenchError> {
        let kills = round.share(u64::from(args.kills)) as u32;
        self.kills.run_round(kills, self.silence_ms, round.seed)?;
        let time = Duration::from_secs_f64(args.watch_s / f64::from(args.rounds));
        for (alarms, load) in self.alarms.iter_mut().zip(Load::ALL) {
            if !time.is_zero() {
                interrupt::check()?;
                alarms.run_round(self.silence_ms, load, time, round.seed)?;
            }
        }
        Ok(())
    }
}

impl Measurement for Args {
    const NAME: &'static str = "failover";
    const PRINT: fn(&Value) = table;

    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError> {
        if !(0.0..1e6).contains(&self.watch_s) {
            return Err(BenchError::Wrong(format!(
                "--watch-s {}: give a number of seconds from 0 to 1e6",
                self.watch_s
            )));
        }
        let mut subjects: Vec<Subject> = self
            .silences
            .iter()
            .map(|&silence_ms| Subject {
                silence_ms,
                kills: Kills::new(),
                alarms: Default::default(),
            })
            .collect();
        let rounds = Rounds { count: self.rounds, seed: self.seed };
        rounds.run("failovers", &mut subjects, |round, subject| subject.run_round(self, round))?;
        outcome.put("seed", self.seed);
        let mut silences = Vec::new();
        for Subject { silence_ms, kills, alarms } in subjects {
            let mut figures = kills.figures(outcome, &format!("silence-{silence_ms}"));
            figures.insert("silence_ms".into(), silence_ms.into());
            let alarms = Load::ALL.iter().zip(&alarms);
            let alarms = alarms.map(|(load, alarms)| (load.as_str().to_string(), alarms.figures()));
            figures.insert("false_alarms".into(), Value::Object(alarms.collect()));
            silences.push(json!(figures));
        }
        outcome.put("silences", silences);
        Ok(())
    }

    /// Options for `report --quick`: takes less than 45 seconds.
    fn quick() -> Args {
        Args { kills: 3, silences: vec![20, 100, 500], watch_s: 2.5, rounds: 1, ..Args::full() }
    }
}

fn table(figures: &Value) {
    outln!(
        "failover stages: p50 and max, ms\nfalse alarms: alarms per minute of protected time (alarms in \
                 protected seconds; longest scheduling delay of the watching thread, ms)"
    );
    outln!(
        "{:>7} {:>5} | {:>15} | {:>13} | {:>15} | {:>15} | {:>26} | {:>26}",
        "silence",
        "kills",
        "detection",
        "go live",
        "UDP outage",
        "TCP gap",
        "alarms, idle hosts",
        "alarms, loaded hosts"
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
            outln!("        the kills could not be completed: {why}");
        }
    }
}
