//! What a measurement gives, the same for all of them: figures as one JSON object, and the series they
//! are taken from.

use crate::error::BenchError;
use crate::machine;
use crate::series::Series;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use vmm::outln;

/// Options of every measurement: where its result goes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OutputArgs {
    /// Print one JSON object as the last line
    #[arg(long)]
    pub(crate) json: bool,
    /// Save every series to this folder, as .hgrm and .hlog
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// A measurement's options as they are when none is given: what stands at each of them is the one place
/// that says so.
pub(crate) fn defaults<A: clap::Args>() -> A {
    let command = A::augment_args(clap::Command::new("defaults").no_binary_name(true));
    let matches = command.try_get_matches_from(std::iter::empty::<&str>());
    matches.and_then(|matches| A::from_arg_matches(&matches)).expect("every option has a default")
}

/// A finished measurement.
pub(crate) struct Outcome {
    /// What the command is called.
    pub(crate) name: &'static str,
    /// The figures.
    pub(crate) figures: Map<String, Value>,
    /// What they were taken from, by name: `irq-delivery.computing`.
    pub(crate) series: Vec<(String, Series)>,
}

impl Outcome {
    /// An empty one.
    pub(crate) fn new(name: &'static str) -> Outcome {
        Outcome { name, figures: Map::new(), series: Vec::new() }
    }

    /// Adds a figure.
    pub(crate) fn put(&mut self, name: &str, figure: impl Into<Value>) {
        self.figures.insert(name.into(), figure.into());
    }

    /// Adds a series under the measurement's name and `name`; its percentiles.
    pub(crate) fn keep(&mut self, name: &str, series: Series) -> Value {
        let figures = series.json();
        self.series.push((format!("{}.{name}", self.name), series));
        figures
    }

    /// Saves every series into `folder`.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), BenchError> {
        make_folder(folder)?;
        self.series.iter().try_for_each(|(name, series)| series.save(folder, name))
    }

    /// The figures as one object, with where they were measured.
    pub(crate) fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("benchmark".into(), self.name.into());
        object.insert("machine".into(), machine::describe());
        object.extend(self.figures.clone());
        object.into()
    }
}

/// Measures, saves and prints as `args` want; for people by `table`. A folder that can't be made is told
/// before anything is measured.
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

/// Makes a folder for results, if it is not there.
pub(crate) fn make_folder(folder: &Path) -> Result<(), BenchError> {
    let doing = format!("making the folder {}", folder.display());
    fs::create_dir_all(folder).map_err(BenchError::os(doing))
}
