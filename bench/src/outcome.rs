//! What all benchmarks have in common: their output options, how they run, and their result: figures as
//! one JSON object, and the series that these are computed from.

use crate::error::BenchError;
use crate::machine;
use crate::series::Series;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use vmm::outln;

/// A benchmark. The value has its options.
pub(crate) trait Measurement: clap::Args {
    /// Name of the subcommand.
    const NAME: &'static str;
    /// Prints the figures as a table.
    const PRINT: fn(&Value);

    /// Measures, and adds figures and series to `outcome`.
    fn measure(&self, outcome: &mut Outcome) -> Result<(), BenchError>;

    /// Returns the options for `report --full`.
    fn full() -> Self {
        defaults()
    }

    /// Returns the options for `report --quick`.
    fn quick() -> Self {
        Self::full()
    }

    /// Measures and returns the result.
    fn outcome(&self) -> Result<Outcome, BenchError> {
        let mut outcome = Outcome { name: Self::NAME, figures: Map::new(), series: Vec::new() };
        self.measure(&mut outcome)?;
        Ok(outcome)
    }
}

/// Returns a benchmark's default options. They are parsed from an empty command line, so that each
/// default value is stated only in its `arg` attribute.
pub(crate) fn defaults<A: clap::Args>() -> A {
    let command = A::augment_args(clap::Command::new("defaults").no_binary_name(true));
    let matches = command.try_get_matches_from(std::iter::empty::<&str>());
    matches.and_then(|matches| A::from_arg_matches(&matches)).expect("every option has a default")
}

/// The command line of a benchmark.
#[derive(clap::Args)]
pub(crate) struct Run<M: Measurement> {
    #[command(flatten)]
    measurement: M,
    /// Print the result as one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// Save every series to this folder as .hgrm and .hlog
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl<M: Measurement> Run<M> {
    /// Measures, saves the series and prints the result as the options request. Creates the output folder
    /// first, so that a wrong path fails before the measurement.
    pub(crate) fn main(&self) -> Result<(), BenchError> {
        if let Some(folder) = &self.out {
            make_folder(folder)?;
        }
        let outcome = self.measurement.outcome()?;
        if let Some(folder) = &self.out {
            outcome.save(folder)?;
        }
        if self.json {
            outln!("{}", outcome.object());
        } else {
            M::PRINT(&outcome.figures.into());
        }
        Ok(())
    }
}

/// Returns a figure as a number, for a table; NaN if there is none.
pub(crate) fn number(figure: &Value) -> f64 {
    figure.as_f64().unwrap_or(f64::NAN)
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

/// Creates a folder for results, unless it exists.
pub(crate) fn make_folder(folder: &Path) -> Result<(), BenchError> {
    let doing = format!("creating the folder {}", folder.display());
    fs::create_dir_all(folder).map_err(BenchError::os(doing))
}
