//! `understudy status`.

use super::exit_code::{CliError, Code};
use super::output;
use crate::limits::STATUS_BYTES_MAX;
use crate::stdio;
use clap::Args;
use serde_json::{Map, Value};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for data of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the default path of the status socket of VM `vm`.
pub fn default_socket(vm: u64) -> PathBuf {
    PathBuf::from(format!("/run/understudy/vm-{vm}.sock"))
}

/// Options of `status`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: understudy status --json\n\nExits with code 15 if no process answers."
)]
pub struct StatusArgs {
    /// Number of the VM
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u64,
    /// Status socket of the process, as given with its --status option
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
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
    let path = args.socket.clone().unwrap_or_else(|| default_socket(args.vm_id));
    match ask(&path) {
        Ok(status) if args.json => output::print(&status, true),
        Ok(status) => output::print(&flat(&status), false),
        Err(error) => {
            stdio::message(format_args!(
                "understudy: {}: {error}; check that 'understudy primary' or 'backup' of this VM runs here",
                path.display()
            ));
            Err(CliError::Silent(Code::NoAnswer))
        }
    }
}

/// Queries the status at the socket `path`.
///
/// # Errors
///
/// If the socket can't be connected or read, or the answer is not a JSON object.
pub fn ask(path: &Path) -> std::io::Result<Map<String, Value>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut text = String::new();
    stream.take(STATUS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
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
