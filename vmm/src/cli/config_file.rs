//! `--config FILE`: reads options of `primary`, `backup` and `up` from a TOML file. `up NAME` reads that of the VM `NAME`.
//!
//! The file can set every option under its name without the dashes: `silence-ms = 100`,
//! `insecure = true`. The command line overrides the file. `boot` is for `up` only. Each disk is a table, in the order of
//! the disks, with `file` and what else `--disk` takes:
//!
//! ```toml
//! [[disk]]
//! file = "/images/root.img"
//! readonly = true
//! ```

use super::exit_code::CliError;
use crate::disk::DiskOptions;
use crate::files::input;
use crate::limits::CONFIG_FILE_BYTES_MAX;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The folder with a file for each VM, `NAME.toml`.
const VMS: &str = "/etc/understudy/vms";

/// Most characters of the name of a VM.
const NAME_CHARS_MAX: usize = 64;

/// A command that accepts `--config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// `primary` or `backup`.
    Part,
    /// `up`, which also takes the name of a VM.
    Up,
}

impl Command {
    fn of(name: &OsStr) -> Option<Command> {
        match name.to_str()? {
            "primary" | "backup" => Some(Command::Part),
            "up" => Some(Command::Up),
            _other => None,
        }
    }
}

/// Inserts the options of the file after the command's name, if the command accepts `--config` and it is
/// given, or the name of a VM.
///
/// # Errors
///
/// If the file can't be read, or has a syntax error or a value that can't be an option.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, CliError> {
    expand_from(arguments, Path::new(VMS))
}

/// Does it with the files of the VMs in the folder `vms`.
fn expand_from(arguments: Vec<OsString>, vms: &Path) -> Result<Vec<OsString>, CliError> {
    let command = arguments.get(1).and_then(|name| Command::of(name));
    let Some(command) = command else { return Ok(arguments) };
    let named = match command {
        Command::Part => None,
        Command::Up => arguments.get(2).map(|name| vm_file(name, vms)).transpose()?.flatten(),
    };
    let (path, mut options) = match (config_path(&arguments), named) {
        (None, None) => return Ok(arguments),
        (Some(_), Some(_)) => {
            return Err(CliError::Usage("give a NAME or --config, not both".into()));
        }
        (Some(path), None) => (path, Vec::new()),
        (None, Some(path)) => {
            // So that the command knows that the file was read.
            let mut option = OsString::from("--config=");
            option.push(&path);
            (path, vec![option])
        }
    };
    options.extend(read(&path, command)?);
    let (command, rest) = arguments.split_at(2);
    Ok([command, &options, rest].concat())
}

/// Returns the file of the VM `name` in the folder `vms`; `None` if it is an option and no name.
fn vm_file(name: &OsStr, vms: &Path) -> Result<Option<PathBuf>, CliError> {
    let text = name.to_string_lossy();
    if text.starts_with('-') {
        return Ok(None);
    }
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_of_name)
        && text.len() <= NAME_CHARS_MAX;
    match is_name {
        true => Ok(Some(vms.join(format!("{text}.toml")))),
        false => Err(CliError::Usage(format!(
            "{text:?} is no name of a VM: use at most {NAME_CHARS_MAX} letters, digits, '-', '_' and '.'"
        ))),
    }
}

/// Returns the file named by `--config FILE` or `--config=FILE`.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn read(path: &Path, command: Command) -> Result<Vec<OsString>, CliError> {
    let bytes = input::read(path, CONFIG_FILE_BYTES_MAX)
        .map_err(|source| CliError::File { path: path.to_path_buf(), source })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::Usage(format!("{}: is not UTF-8 text", path.display())))?;
    options(&text, command).map_err(|what| CliError::Usage(format!("{}: {what}", path.display())))
}

/// Converts a file's text to command line options. The error is one line that says what is wrong.
fn options(text: &str, command: Command) -> Result<Vec<OsString>, String> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    match command {
        // One file serves all commands, and these have been told their part.
        Command::Part => drop(table.remove("boot")),
        Command::Up => {}
    }
    let mut options = Vec::new();
    for (name, value) in table {
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(true) => {
                options.push(format!("--{name}").into());
                continue;
            }
            toml::Value::Boolean(false) => continue,
            toml::Value::Array(tables) if name == "disk" => {
                for (number, table) in (1..).zip(tables) {
                    let disk = disk(&table).map_err(|what| format!("disk {number}: {what}"))?;
                    options.push(format!("--disk={disk}").into());
                }
                continue;
            }
            toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                return Err(format!("{name}: the value must be a string, a number, true or false"));
            }
        };
        // One argument, so that a value with leading dashes is not parsed as an option.
        options.push(format!("--{name}={value}").into());
    }
    Ok(options)
}

/// Converts a table `[[disk]]` to the value of `--disk`, and checks it.
fn disk(value: &toml::Value) -> Result<String, String> {
    let table = value.as_table().ok_or("write it as a table: [[disk]]")?;
    let file = table.get("file").ok_or("it has no file")?;
    let file = file.as_str().ok_or("file: the value must be a string")?;
    let doubled = |text: &str| text.replace(',', ",,");
    let mut text = doubled(file);
    for (name, value) in table.iter().filter(|(name, _)| *name != "file") {
        match value {
            toml::Value::String(value) => {
                text += &format!(",{}={}", doubled(name), doubled(value));
            }
            toml::Value::Boolean(true) => text += &format!(",{}", doubled(name)),
            toml::Value::Boolean(false) if name == "readonly" => {}
            toml::Value::Boolean(false)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => {
                return Err(format!("{name}: the value must be a string, or true"));
            }
        }
    }
    text.parse::<DiskOptions>().map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskAccess, ImageFormat};

    fn strings(options: &[OsString]) -> Vec<&str> {
        options.iter().map(|option| option.to_str().unwrap()).collect()
    }

    #[test]
    fn every_kind_of_value_becomes_an_option() {
        let text =
            "interface = \"eth1\"\nsilence-ms = 50\ninsecure = true\nquiet = false\nfor = 1.5";
        let options = options(text, Command::Part).unwrap();
        let mut options = strings(&options);
        options.sort_unstable();
        assert_eq!(options, ["--for=1.5", "--insecure", "--interface=eth1", "--silence-ms=50"]);
    }

    #[test]
    fn invalid_value_or_syntax_error_is_named() {
        assert_eq!(
            options("a = 1\nb = = 2", Command::Part).unwrap_err().split(':').next(),
            Some("line 2")
        );
        assert!(options("peers = [1]", Command::Part).unwrap_err().starts_with("peers: "));
        assert!(options("[log]\nx = 1", Command::Part).unwrap_err().starts_with("log: "));
    }

    #[test]
    fn disks_are_tables_in_their_order() {
        let text = r#"
            tap = "tap0"
            [[disk]]
            file = "/images/a,b.img"
            [[disk]]
            file = "data"
            format = "qcow2"
            readonly = true
            serial = "S,1"
            id = "data"
            [[disk]]
            file = "last.qcow2"
            readonly = false
        "#;
        let options = options(text, Command::Part).unwrap();
        let values = strings(&options).into_iter().filter_map(|text| text.strip_prefix("--disk="));
        let disks: Vec<DiskOptions> = values.map(|value| value.parse().unwrap()).collect();
        assert_eq!(disks[0], DiskOptions::new("/images/a,b.img"));
        let expected = DiskOptions {
            format: Some(ImageFormat::Qcow2),
            access: DiskAccess::ReadOnly,
            serial: *b"S,1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            id: Some("data".into()),
            ..DiskOptions::new("data")
        };
        assert_eq!(disks[1], expected);
        assert_eq!(disks[2], DiskOptions::new("last.qcow2"));
        assert_eq!(disks.len(), 3);
    }

    #[test]
    fn invalid_disk_is_named() {
        for (text, expected) in [
            ("[[disk]]\nreadonly = true", "disk 1: it has no file"),
            ("[[disk]]\nfile = 1", "disk 1: file: the value must be a string"),
            ("disk = [\"a.img\"]", "disk 1: write it as a table"),
            ("[disk]\nfile = \"a\"", "disk: "),
            ("[[disk]]\nfile = \"a\"\n[[disk]]\nfile = \"b\"\nmode = \"x\"", "disk 2: mode"),
            ("[[disk]]\nfile = \"a\"\nserial = 5", "disk 1: serial: the value"),
            (
                "[[disk]]\nfile = \"a\"\nreadonly = \"x,format=raw\"",
                "disk 1: readonly has no value",
            ),
            ("[[disk]]\nfile = \"a\"\nid = \"x,readonly\"", "disk 1: id=x,readonly"),
            ("[[disk]]\nfile = \"\"", "disk 1: the name of a file"),
        ] {
            let error = options(text, Command::Part).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn file_is_read_only_for_commands_that_accept_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.toml");
        std::fs::write(&path, "tap = \"tap0\"").unwrap();
        let line = |text: String| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let path = path.to_str().unwrap();
        for option in [format!("--config {path}"), format!("--config={path}")] {
            let expanded = expand(line(format!("understudy backup {option} --quiet"))).unwrap();
            assert_eq!(strings(&expanded)[..3], ["understudy", "backup", "--tap=tap0"]);
            assert_eq!(expanded.last().unwrap(), "--quiet");
        }
        let other = line(format!("understudy run --config {path}"));
        assert_eq!(expand(other.clone()).unwrap(), other);
        let missing = expand(line("understudy primary --config /nowhere.toml".into()));
        assert!(missing.unwrap_err().to_string().contains("/nowhere.toml"));
    }

    #[test]
    fn name_of_a_vm_is_its_file_and_only_up_has_a_boot_policy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web-1.toml");
        std::fs::write(&path, "boot = \"first\"\ntap = \"tap0\"").unwrap();
        let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let expand = |text: &str| expand_from(line(text), folder.path());
        let config = format!("--config={}", path.display());
        let expanded = expand("understudy up web-1 --quiet").unwrap();
        let expected =
            ["understudy", "up", &config, "--boot=first", "--tap=tap0", "web-1", "--quiet"];
        assert_eq!(strings(&expanded), expected);
        let expanded = expand(&format!("understudy primary {config}")).unwrap();
        assert_eq!(strings(&expanded), ["understudy", "primary", "--tap=tap0", &config]);
        for (wrong, text) in [
            ("understudy up ../web", "is no name of a VM"),
            ("understudy up .web", "is no name of a VM"),
            ("understudy up mail", "mail.toml"),
            ("understudy up web-1 --config x", "not both"),
        ] {
            let error = expand(wrong).unwrap_err().to_string();
            assert!(error.contains(text), "{wrong}: {error}");
        }
        for other in ["understudy up --help", "understudy up"] {
            assert_eq!(expand(other).unwrap(), line(other));
        }
    }
}
