//! `understudy list`: all VMs of this host, by their control sockets.

use super::control::{self, SOCKET_FOLDER};
use super::exit_code::{CliError, Code};
use super::{config_file, output};
use crate::limits::LISTED_MAX;
use crate::pair::Request;
use crate::stdio;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a VM may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Columns:
  NAME       of the VM's file in /etc/understudy/vms, or of its socket
  STATE      role of this host; 'stale' if the process of the socket is gone; 'does not answer' if it stands still or is
             overloaded
  PEER       MAC address of the other host's log interface; '-' while there is no channel to it
  PROTECTED  whether the other host could continue the VM
  HOLD       time that an output waited for its acknowledgement, median and 99th percentile, since the start
  LAG        log that the backup has not executed
  LOG        rate of the log
  SINCE      how long the process has been running

Exits with code 15 if a VM does not answer.";

/// Options of `list`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct ListArgs {
    /// Folder of the control sockets
    #[arg(value_name = "FOLDER", default_value = SOCKET_FOLDER)]
    folder: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is behind a socket.
#[derive(Debug)]
enum State {
    /// A process, with this status.
    Running(Map<String, Value>),
    /// Nobody listens: the process is gone.
    Stale,
    /// A process that listens and does not answer.
    Silent,
    /// It can't be asked.
    Failed(io::Error),
}

/// A control socket.
#[derive(Debug)]
struct Listed {
    name: String,
    /// The number of the VM, if the socket has the default name.
    vm_id: Option<u64>,
    socket: PathBuf,
    state: State,
}

/// The figures of a VM that runs.
#[derive(Debug, Serialize)]
struct Figures {
    role: String,
    term: u64,
    peer: Option<String>,
    protected: String,
    hold_p50_us: f64,
    hold_p99_us: f64,
    lag_bytes: u64,
    log_mbit_per_s: f64,
    uptime_s: f64,
}

impl Figures {
    fn of(status: &Map<String, Value>) -> Figures {
        let at = |names: &[&str]| {
            let (first, rest) = names.split_first()?;
            rest.iter().try_fold(status.get(*first)?, |value, name| value.get(*name))
        };
        let text = |names: &[&str]| at(names).and_then(Value::as_str).map(String::from);
        let number = |names: &[&str]| at(names).and_then(Value::as_f64).unwrap_or_default();
        let count = |name: &str| at(&[name]).and_then(Value::as_u64).unwrap_or_default();
        Figures {
            role: text(&["role"]).unwrap_or_default(),
            term: count("term"),
            peer: text(&["peer", "mac"]),
            protected: text(&["protected"]).unwrap_or_default(),
            hold_p50_us: number(&["hold", "p50_us"]),
            hold_p99_us: number(&["hold", "p99_us"]),
            lag_bytes: count("lag_bytes"),
            log_mbit_per_s: number(&["log", "mbit_per_s"]),
            uptime_s: number(&["uptime_s"]),
        }
    }
}

impl Listed {
    fn json(&self) -> Value {
        let Listed { name, vm_id, socket, state } = self;
        let (state, error, figures) = match state {
            State::Running(status) => ("running", None, Some(Figures::of(status))),
            State::Stale => ("stale", None, None),
            State::Silent => ("silent", None, None),
            State::Failed(error) => ("failed", Some(error.to_string()), None),
        };
        let mut object = json!({
            "name": name, "vm_id": vm_id, "socket": socket, "state": state, "error": error,
        });
        if let (Some(object), Ok(Value::Object(figures))) =
            (object.as_object_mut(), serde_json::to_value(figures))
        {
            // Of a VM that does not run there are none, and the value is null.
            object.extend(figures);
        }
        object
    }

    /// Returns the row of the table.
    fn row(&self) -> [String; COLUMNS] {
        let nothing = |state: String| {
            let mut row: [String; COLUMNS] = std::array::from_fn(|_| String::from("-"));
            (row[0], row[1]) = (self.name.clone(), state);
            row
        };
        match &self.state {
            State::Running(status) => {
                let figures = Figures::of(status);
                [
                    self.name.clone(),
                    figures.role,
                    figures.peer.unwrap_or_else(|| "-".into()),
                    figures.protected,
                    format!("{:.0}/{:.0} us", figures.hold_p50_us, figures.hold_p99_us),
                    format!("{} KiB", figures.lag_bytes.div_ceil(1024)),
                    format!("{:.2} Mbit/s", figures.log_mbit_per_s),
                    duration(figures.uptime_s),
                ]
            }
            State::Stale => nothing("stale".into()),
            State::Silent => nothing("does not answer".into()),
            State::Failed(error) => nothing(format!("can't be asked: {error}")),
        }
    }
}

/// Columns of the table.
const COLUMNS: usize = 8;
const HEADS: [&str; COLUMNS] =
    ["NAME", "STATE", "PEER", "PROTECTED", "HOLD", "LAG", "LOG", "SINCE"];

/// Returns a time in its largest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

fn table(listed: &[Listed]) -> String {
    let rows = [HEADS.map(String::from)].into_iter().chain(listed.iter().map(Listed::row));
    let rows: Vec<_> = rows.collect();
    let widths: Vec<_> = (0..COLUMNS)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// Runs `understudy list`.
///
/// # Errors
///
/// The folder can't be read, a VM does not answer, or standard output can't be written.
pub fn main(args: &ListArgs) -> Result<(), CliError> {
    let names = config_file::vm_names();
    let listed = list(&args.folder, |id| {
        let named = names.iter().find(|(_, of_file)| *of_file == id);
        named.map(|(name, _)| name.clone())
    })?;
    let printed = match args.json {
        true => {
            let vms = listed.iter().map(Listed::json).collect();
            let result = Map::from_iter([(String::from("vms"), Value::Array(vms))]);
            output::print(&result, true)
        }
        false if listed.is_empty() => {
            stdio::message(format_args!(
                "understudy: no VM has a control socket in {}",
                args.folder.display()
            ));
            Ok(())
        }
        false => output::write(&table(&listed)),
    };
    let answer = listed.iter().all(|vm| match vm.state {
        State::Running(_) | State::Stale => true,
        State::Silent | State::Failed(_) => false,
    });
    let missing = if answer { Ok(()) } else { Err(CliError::Silent(Code::NoAnswer)) };
    output::after_print(printed, missing)
}

/// Asks the process of each socket in `folder`. `name_of` returns the name of the VM with a number. A folder that does not
/// exist has none: no process has made it.
fn list(folder: &Path, name_of: impl Fn(u64) -> Option<String>) -> Result<Vec<Listed>, CliError> {
    let failed = |source: io::Error| CliError::File { path: folder.into(), source: source.into() };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let is_socket = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(is_socket);
    let mut sockets: Vec<_> = paths.take(LISTED_MAX).collect();
    sockets.sort_by_key(|path| (vm_id(path), path.clone()));
    // At the same time, so that those that do not answer cost no more than one of them.
    let states: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            sockets.iter().map(|socket| scope.spawn(move || state(socket))).collect();
        let joined = asking.into_iter().map(|thread| thread.join());
        joined.map(|state| state.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let listed = sockets.into_iter().zip(states).map(|(socket, state)| {
        let vm_id = vm_id(&socket);
        let stem = || socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // The name of a file is printed on a terminal.
        let name = vm_id.and_then(&name_of).unwrap_or_else(|| stem().escape_debug().to_string());
        Listed { name, vm_id, socket, state }
    });
    Ok(listed.collect())
}

/// Returns the number in the default name of a socket.
fn vm_id(socket: &Path) -> Option<u64> {
    let stem = socket.file_name()?.to_str()?.strip_suffix(".sock")?;
    stem.strip_prefix("vm-")?.parse().ok()
}

fn state(socket: &Path) -> State {
    match control::ask_within(socket, Request::Status, ANSWER_MAX) {
        Ok(status) => State::Running(status),
        Err(error) => match error.kind() {
            // The socket was removed just now, or the process is ending: it was killed before it answered.
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::NotFound => State::Stale,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => State::Silent,
            _other => State::Failed(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    const STATUS: &str = r#"{"role":"protected","term":3,"protected":"yes","uptime_s":3725.5,
        "peer":{"mac":"02:00:00:00:00:0b"},"lag_bytes":1025,"hold":{"p50_us":41.4,"p99_us":99.6},
        "log":{"mbit_per_s":1.234}}"#;

    fn state_of<'l>(listed: &'l [Listed], name: &str) -> &'l Listed {
        listed.iter().find(|vm| vm.name == name).unwrap_or_else(|| panic!("no {name}: {listed:?}"))
    }

    #[test]
    fn running_stale_and_silent_vms_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let answers = UnixListener::bind(at("vm-7.sock")).unwrap();
        drop(UnixListener::bind(at("vm-10.sock")).unwrap());
        let _silent = UnixListener::bind(at("by-hand.sock")).unwrap();
        fs::write(at("vm-8.sock"), "no socket").unwrap();
        let listed = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = answers.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                assert_eq!(line, "status\n");
                (&stream).write_all(STATUS.as_bytes()).unwrap();
            });
            list(folder.path(), |id| (id == 7).then(|| "web".into())).unwrap()
        });
        let names: Vec<_> = listed.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["by-hand", "web", "vm-10"], "by number, those without one first");
        let row = state_of(&listed, "web").row();
        let expected = [
            "web",
            "protected",
            "02:00:00:00:00:0b",
            "yes",
            "41/100 us",
            "2 KiB",
            "1.23 Mbit/s",
            "1 h 2 min",
        ];
        assert_eq!(row, expected);
        let json = state_of(&listed, "web").json();
        assert_eq!(
            (&json["vm_id"], &json["state"], &json["term"]),
            (&json!(7), &json!("running"), &json!(3))
        );
        assert_eq!(json["hold_p99_us"], 99.6);
        assert!(matches!(state_of(&listed, "vm-10").state, State::Stale));
        assert!(matches!(state_of(&listed, "by-hand").state, State::Silent));
        assert_eq!(state_of(&listed, "by-hand").json()["state"], "silent");
        let text = table(&listed);
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("does not answer") && text.contains("stale"), "{text}");
    }

    #[test]
    fn folder_without_sockets_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(folder.path(), |_| None).unwrap().is_empty());
        assert!(list(&folder.path().join("none"), |_| None).unwrap().is_empty());
        assert!(list(Path::new("/proc/version"), |_| None).is_err());
    }

    #[test]
    fn time_is_shown_in_its_largest_units() {
        for (seconds, expected) in [
            (0.9, "0 s"),
            (59.0, "59 s"),
            (60.0, "1 min"),
            (7260.0, "2 h 1 min"),
            (176_400.0, "2 d 1 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
