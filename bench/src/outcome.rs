//! The result of a benchmark: its figures as one JSON object, and the series that they are computed
//! from.

use crate::error::BenchError;
use crate::machine;
use crate::series::Series;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use vmm::outln;

/// Output options that all benchmarks share.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OutputArgs {
    /// Print the result as one JSON object on the last line
    #[arg(long)]
    pub(crate) json: bool,
    /// Save every series to this folder as .hgrm and .hlog
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Returns a benchmark's default options. They are parsed from an empty command line, so that each
/// default value is stated only in its `arg` attribute.
pub(crate) fn defaults<A: clap::Args>() -> A {
    let command = A::augment_args(clap::Command::new("defaults").no_binary_name(true));
    let matches = command.try_get_matches_from(std::iter::empty::<&str>());
    matches.and_then(|matches| A::from_arg_matches(&matches)).expect("every option has a default")
}

/// The result of a finished benchmark.
pub(crate) struct Outcome {
    /// Name of the subcommand.
    pub(crate) name: &'static str,
    /// The figures, by name.
    pub(crate) figures: Map<String, Value>,
    /// The series behind the figures, by name, for example `irq-delivery.computing`.
    pub(crate) series: Vec<(String, Series)>,
}

impl Outcome {
    /// Creates an empty result.
    pub(crate) fn new(name: &'static str) -> Outcome {
        Outcome { name, figures: Map::new(), series: Vec::new() }
    }

    /// Adds a figure.
    pub(crate) fn put(&mut self, name: &str, figure: impl Into<Value>) {
        self.figures.insert(name.into(), figure.into());
    }

    /// Adds a series as `BENCHMARK.name` and returns its percentiles.
    pub(crate) fn keep(&mut self, name: &str, series: Series) -> Value {
        let figures = series.json();
        self.series.push((format!("{}.{name}", self.name), series));
        figures
    }

    /// Saves every series to `folder`.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), BenchError> {
        make_folder(folder)?;
        self.series.iter().try_for_each(|(name, series)| series.save(folder, name))
    }

    /// Returns the figures as one object, with a description of the machine.
    pub(crate) fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("benchmark".into(), self.name.into());
        object.insert("machine".into(), machine::describe());
        object.extend(self.figures.clone());
        object.into()
    }
}

/// Runs `measure`, saves the series and prints the result as `args` request: as JSON, or with `table`.
/// Creates the output folder first, so that a wrong path fails before the measurement.
pub(crate) fn run(
    args: &OutputArgs,
    measure: impl FnOnce() -> Result<Outcome, BenchError>,
    table: impl FnOnce(&Value),
) -> Result<(), BenchError> {
    if let Some(folder) = &args.out {
        make_folder(folder)?;
    }
    let outcome = measure()?;
    if let Some(folder) = &args.out {
        outcome.save(folder)?;
    }
    if args.json {
        outln!("{}", outcome.object());
    } else {
        table(&outcome.figures.into());
    }
    Ok(())
}

/// Creates a folder for results, unless it exists.
pub(crate) fn make_folder(folder: &Path) -> Result<(), BenchError> {
    let doing = format!("creating the folder {}", folder.display());
    fs::create_dir_all(folder).map_err(BenchError::os(doing))
}
