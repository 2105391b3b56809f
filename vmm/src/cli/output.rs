//! Printing of results: as a table, or as one JSON object.

use super::exit_code::CliError;
use crate::stdio;
use serde_json::{Map, Value};

/// Version of the JSON objects that commands print as their results. It moves when a field changes its meaning or its
/// type, or disappears; a new field does not move it. `docs/schema/` has the schemas.
pub const RESULT_SCHEMA: u32 = 1;

/// Prints `result` as one JSON object, or as lines of `name value`.
///
/// # Errors
///
/// If standard output can't be written. A reader that has closed the pipe is not an error.
pub fn print(result: &Map<String, Value>, json: bool) -> Result<(), CliError> {
    write(&text(result, json))
}

/// Writes to standard output. A reader that has closed the pipe is not an error.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    stdio::result(text).map_err(CliError::Output)
}

/// Combines the outcome of printing a result (`printed`) with the outcome of the command itself. If both
/// failed, reports the printing failure on standard error and returns the failure of the command, which
/// determines the exit code.
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

/// Formats `result` as [`print()`] prints it.
pub(super) fn text(result: &Map<String, Value>, json: bool) -> String {
    if json {
        return json_line(result.clone());
    }
    table(result.iter())
}

/// Formats `result` as a line of JSON, with the version of its schema unless it has one.
pub(super) fn json_line(mut result: Map<String, Value>) -> String {
    result.entry("schema").or_insert_with(|| RESULT_SCHEMA.into());
    format!("{}\n", Value::Object(result))
}

/// Formats rows as lines of `name value`, with aligned values.
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

/// Formats a digest for a result.
pub fn hex(digest: u64) -> Value {
    Value::String(format!("{digest:016x}"))
}
