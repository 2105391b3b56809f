//! `understudy status`.

use super::control::{self, ControlArgs};
use super::exit_code::CliError;
use super::output;
use crate::pair::Request;
use clap::Args;
use serde_json::{Map, Value};
use std::path::Path;

/// Options of `status`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: understudy status --json\n\nExits with code 15 if no process answers."
)]
pub struct StatusArgs {
    #[command(flatten)]
    process: ControlArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `understudy status`: queries the process of a VM on this host and prints its status.
///
/// # Errors
///
/// If no process answers, or standard output can't be written.
pub fn main(args: &StatusArgs) -> Result<(), CliError> {
    let mut status = args.process.ask(Request::Status)?;
    match args.json {
        true => output::print(&status, true),
        false => {
            status.remove("schema");
            output::print(&flat(&status), false)
        }
    }
}

/// Queries the status at the socket `path`.
///
/// # Errors
///
/// If the socket can't be connected or read, or the answer is not a JSON object.
pub fn ask(path: &Path) -> std::io::Result<Map<String, Value>> {
    control::ask(path, Request::Status)
}

/// Flattens nested objects into rows named `outer.inner`, and rounds floating-point numbers to three digits.
fn flat(status: &Map<String, Value>) -> Map<String, Value> {
    let mut rows = Map::new();
    for (name, value) in status {
        match value {
            Value::Object(inner) => {
                for (inner_name, value) in flat(inner) {
                    rows.insert(format!("{name}.{inner_name}"), value);
                }
            }
            Value::Number(number) if number.is_f64() => {
                let rounded = format!("{:.3}", number.as_f64().unwrap_or_default());
                rows.insert(name.clone(), Value::String(rounded));
            }
            Value::Null => {
                rows.insert(name.clone(), Value::String("-".into()));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                rows.insert(name.clone(), value.clone());
            }
        }
    }
    rows
}
