//! Results: a table for people, one JSON object for programs.

use super::exit_code::CliError;
use crate::stdio;
use serde_json::{Map, Value};

/// Prints `result` as one JSON object, or as lines of `name value`.
///
/// # Errors
///
/// When standard output can't be written; a reader that has gone is none.
pub fn print(result: &Map<String, Value>, json: bool) -> Result<(), CliError> {
    write(&text(result, json))
}

/// Writes to standard output; a reader that has gone is no error.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    stdio::result(text).map_err(CliError::Output)
}

/// What a command comes to whose result was `printed`, or not, and that then ends with `outcome`. A failure
/// of the command itself is the one that its exit code tells.
pub(super) fn after_print(
    printed: Result<(), CliError>,
    outcome: Result<(), CliError>,
) -> Result<(), CliError> {
    match (printed, outcome) {
        (Err(unwritten), Err(failure)) => {
            stdio::message(format_args!("understudy: {unwritten}"));
            Err(failure)
        }
        (printed, outcome) => outcome.and(printed),
    }
}

/// `result` as `print` prints it.
pub(super) fn text(result: &Map<String, Value>, json: bool) -> String {
    if json {
        return format!("{}\n", Value::Object(result.clone()));
    }
    table(result.iter())
}

/// Lines of `name value`.
pub(super) fn table<'a>(rows: impl Iterator<Item = (&'a String, &'a Value)> + Clone) -> String {
    let mut lines = String::new();
    let width = rows.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        match value {
            Value::String(text) => lines.push_str(&format!("{name:width$}  {text}\n")),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => lines.push_str(&format!("{name:width$}  {value}\n")),
        }
    }
    lines
}

/// A digest as results print it.
pub fn hex(digest: u64) -> Value {
    Value::String(format!("{digest:016x}"))
}
