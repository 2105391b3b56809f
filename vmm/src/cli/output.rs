//! Results: a table for people, one JSON object for programs.

use super::exit_code::CliError;
use serde_json::{Map, Value};
use std::io::{ErrorKind, Write};

/// Prints `result` as one JSON object, or as lines of `name value`.
///
/// # Errors
///
/// When standard output can't be written; a reader that has gone is none.
pub fn print(result: &Map<String, Value>, json: bool) -> Result<(), CliError> {
    write(&text(result, json))
        .map_err(|source| CliError::Os { doing: "writing to standard output", source })
}

/// Writes to standard output; a reader that has gone is no error.
pub(super) fn write(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
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
