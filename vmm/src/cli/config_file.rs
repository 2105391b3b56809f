//! `--config FILE`: reads options of `primary`, `backup` and `up` from a TOML file. `up NAME` reads that of the VM `NAME`.
//!
//! The file can set every option under its name without the dashes: `silence-ms = 100`,
//! `insecure = true`. The command line overrides the file. A mistake is reported with the file, the line and the key.
//! `boot` is for `up` only. Each disk is a table, in the order of the disks, with `file` and what else `--disk` takes:
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
use clap::error::{ContextKind, ContextValue};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

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

/// How alike two names are at least, of 1, if one may have been meant by the other: clap's own limit.
const ALIKE_MIN: f64 = 0.7;

/// A command line, and where its options come from.
#[derive(Debug, Default, PartialEq)]
pub struct Expanded {
    /// The command line with the options of the file.
    pub arguments: Vec<OsString>,
    /// The file, and the line of each of its options that the command line does not have itself.
    origin: Option<(PathBuf, BTreeMap<String, usize>)>,
}

impl Expanded {
    /// Returns the place in the file that `error` is about; `None` if it is about the command line.
    pub fn place_of(&self, error: &clap::Error) -> Option<String> {
        let (path, lines) = self.origin.as_ref()?;
        let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        // Such as "--silence-ms <N>".
        let name = argument.strip_prefix("--")?.split([' ', '=']).next()?;
        let line = lines.get(name)?;
        Some(format!("{}: line {line}: ", path.display()))
    }
}

/// Inserts the options of the file after the command's name, if the command accepts `--config` and it is
/// given, or the name of a VM.
///
/// # Errors
///
/// If the file can't be read, or has a syntax error, a key that is no option of the command, or a value that can't be
/// an option.
pub fn expand(arguments: Vec<OsString>) -> Result<Expanded, CliError> {
    expand_from(arguments, Path::new(VMS))
}

/// Does it with the files of the VMs in the folder `vms`.
fn expand_from(arguments: Vec<OsString>, vms: &Path) -> Result<Expanded, CliError> {
    let command = arguments.get(1).and_then(|name| Command::of(name));
    let as_it_is = |arguments| Ok(Expanded { arguments, origin: None });
    let Some(command) = command else { return as_it_is(arguments) };
    let named = match command {
        Command::Part => None,
        Command::Up => arguments.get(2).map(|name| vm_file(name, vms)).transpose()?.flatten(),
    };
    let (path, mut options) = match (config_path(&arguments), named) {
        (None, None) => return as_it_is(arguments),
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
    let known = known_options(&arguments[1]);
    let of_file = read(&path, command, &known)?;
    let (command, rest) = arguments.split_at(2);
    let is_overridden = |name: &str| {
        let given = rest.iter().filter_map(|text| text.to_str()?.strip_prefix("--"));
        given.into_iter().any(|text| text.split('=').next() == Some(name))
    };
    let mut lines = BTreeMap::new();
    for FileOption { text, name, line } in of_file {
        options.push(text);
        if !is_overridden(&name) {
            lines.insert(name, line);
        }
    }
    let arguments = [command, &options, rest].concat();
    Ok(Expanded { arguments, origin: Some((path, lines)) })
}

/// Returns the long names of the options of the command `name`.
fn known_options(name: &OsStr) -> Vec<String> {
    let program = super::command();
    let Some(command) = name.to_str().and_then(|name| program.find_subcommand(name)) else {
        return Vec::new();
    };
    let options = command.get_arguments().chain(program.get_arguments());
    let names = options.filter_map(|option| option.get_long()).map(String::from);
    // The file itself can't name another one.
    names.filter(|name| name != "config").collect()
}

/// Returns the name of `known` that may have been meant by `name`.
fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    if name.len() > NAME_CHARS_MAX {
        return None;
    }
    let alike = known.iter().map(|other| (strsim::jaro_winkler(name, other), other.as_str()));
    let alike = alike.filter(|(alike, _)| *alike > ALIKE_MIN);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}

/// Returns the name and the number of each VM that has a file on this host. Files that can't be read have none.
pub fn vm_names() -> Vec<(String, u64)> {
    vm_names_in(Path::new(VMS))
}

fn vm_names_in(vms: &Path) -> Vec<(String, u64)> {
    let paths = fs::read_dir(vms).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_file = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".toml")?.to_owned();
        let text = String::from_utf8(input::read(&path, CONFIG_FILE_BYTES_MAX).ok()?).ok()?;
        let table: toml::Table = text.parse().ok()?;
        let number = table.get("vm-id").map_or(Some(0), toml::Value::as_integer);
        Some((name, number?.try_into().ok()?))
    };
    paths.filter_map(of_file).collect()
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

/// An option of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileOption {
    /// The option as an argument.
    text: OsString,
    /// Its name.
    name: String,
    /// The line of its key, or that of its table.
    line: usize,
}

fn read(path: &Path, command: Command, known: &[String]) -> Result<Vec<FileOption>, CliError> {
    let bytes = input::read(path, CONFIG_FILE_BYTES_MAX)
        .map_err(|source| CliError::File { path: path.to_path_buf(), source })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::Usage(format!("{}: is not UTF-8 text", path.display())))?;
    options(&text, command, known)
        .map_err(|what| CliError::Usage(format!("{}: {what}", path.display())))
}

/// Converts a file's text to command line options, of those that are `known`. The error is one line that says what is
/// wrong, and where.
fn options(text: &str, command: Command, known: &[String]) -> Result<Vec<FileOption>, String> {
    let line_at = |position: usize| 1 + text[..position].matches('\n').count();
    let syntax = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message().replace('\n', " "))
    };
    let places = DeTable::parse(text).map_err(syntax)?;
    let mut table: toml::Table = text.parse().map_err(syntax)?;
    match command {
        // One file serves all commands, and these have been told their part.
        Command::Part => drop(table.remove("boot")),
        Command::Up => {}
    }
    let mut options = Vec::new();
    for (key, place) in places.get_ref() {
        let name = key.get_ref().to_string();
        // Taken above, or there twice, which is a syntax error.
        let Some(value) = table.remove(&name) else { continue };
        let line = line_at(key.span().start);
        let wrong = |what: &str| format!("line {line}: {}: {what}", name.escape_debug());
        if !known.contains(&name) {
            let meant = nearest(&name, known).map(|other| format!(": did you mean {other}?"));
            return Err(wrong(&format!("there is no such option{}", meant.unwrap_or_default())));
        }
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(true) => {
                options.push(FileOption { text: format!("--{name}").into(), name, line });
                continue;
            }
            toml::Value::Boolean(false) => continue,
            toml::Value::Array(tables) if name == "disk" => {
                let places = match place.get_ref() {
                    DeValue::Array(places) => {
                        places.iter().map(|place| place.span().start).collect()
                    }
                    DeValue::String(_)
                    | DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Table(_) => Vec::new(),
                };
                for (number, table) in tables.iter().enumerate() {
                    let line = places.get(number).map_or(line, |&place| line_at(place));
                    let number = number + 1;
                    let disk = disk(table)
                        .map_err(|what| format!("line {line}: disk {number}: {what}"))?;
                    let text = format!("--disk={disk}").into();
                    options.push(FileOption { text, name: name.clone(), line });
                }
                continue;
            }
            toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                return Err(wrong("the value must be a string, a number, true or false"));
            }
        };
        // One argument, so that a value with leading dashes is not parsed as an option.
        options.push(FileOption { text: format!("--{name}={value}").into(), name, line });
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

    /// Converts a file's text as `options` does, for `primary`.
    fn options(text: &str) -> Result<Vec<OsString>, String> {
        let known = known_options(OsStr::new("primary"));
        let options = super::options(text, Command::Part, &known)?;
        Ok(options.into_iter().map(|option| option.text).collect())
    }

    #[test]
    fn every_kind_of_value_becomes_an_option() {
        let text =
            "interface = \"eth1\"\nsilence-ms = 50\ninsecure = true\nquiet = false\nfor = 1.5";
        let options = options(text).unwrap();
        let mut options = strings(&options);
        options.sort_unstable();
        assert_eq!(options, ["--for=1.5", "--insecure", "--interface=eth1", "--silence-ms=50"]);
    }

    #[test]
    fn invalid_value_or_syntax_error_is_named() {
        assert_eq!(options("tap = 1\nb = = 2").unwrap_err().split(':').next(), Some("line 2"));
        assert!(options("peer = [1]").unwrap_err().starts_with("line 1: peer: the value"));
        assert!(options("[key]\nx = 1").unwrap_err().starts_with("line 1: key: "));
    }

    #[test]
    fn unknown_key_is_named_with_its_line_and_the_nearest_one() {
        for (text, expected) in [
            (
                "tap = \"t\"\n\nsilense-ms = 1",
                "line 3: silense-ms: there is no such option: did you mean silence-ms?",
            ),
            (
                "inteface = \"a\"",
                "line 1: inteface: there is no such option: did you mean interface?",
            ),
            ("vm_id = 1", "line 1: vm_id: there is no such option: did you mean vm-id?"),
            ("xyz = 1", "line 1: xyz: there is no such option"),
            ("config = \"a\"", "line 1: config: there is no such option"),
        ] {
            let error = options(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let every = known_options(OsStr::new("up"));
        assert!(every.contains(&"boot".into()) && every.contains(&"dumpable".into()));
    }

    #[test]
    fn place_of_an_invalid_value_is_its_line_unless_the_command_line_has_it() {
        use clap::{Arg, value_parser};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.toml");
        std::fs::write(&path, "# One VM.\nsilence-ms = \"soon\"\n").unwrap();
        let place = |rest: &str| {
            let line = format!("understudy primary --config {} {rest}", path.display());
            let expanded = expand(line.split_whitespace().map(OsString::from).collect()).unwrap();
            let silence = Arg::new("ms").long("silence-ms").value_parser(value_parser!(u64));
            let command = clap::Command::new("x").arg(silence);
            let error = command.try_get_matches_from(["x", "--silence-ms=soon"]).unwrap_err();
            expanded.place_of(&error)
        };
        assert_eq!(place("--quiet"), Some(format!("{}: line 2: ", path.display())));
        assert_eq!(place("--silence-ms soon"), None);
        assert_eq!(place("--silence-ms=soon"), None);
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
        let options = options(text).unwrap();
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
            ("[[disk]]\nreadonly = true", "line 1: disk 1: it has no file"),
            ("[[disk]]\nfile = 1", "line 1: disk 1: file: the value must be a string"),
            ("disk = [\"a.img\"]", "line 1: disk 1: write it as a table"),
            ("[disk]\nfile = \"a\"", "line 1: disk: "),
            (
                "[[disk]]\nfile = \"a\"\n[[disk]]\nfile = \"b\"\nmode = \"x\"",
                "line 3: disk 2: mode",
            ),
            ("[[disk]]\nfile = \"a\"\nserial = 5", "line 1: disk 1: serial: the value"),
            (
                "[[disk]]\nfile = \"a\"\nreadonly = \"x,format=raw\"",
                "line 1: disk 1: readonly has no value",
            ),
            ("[[disk]]\nfile = \"a\"\nid = \"x,readonly\"", "line 1: disk 1: id=x,readonly"),
            ("[[disk]]\nfile = \"\"", "line 1: disk 1: the name of a file"),
        ] {
            let error = options(text).unwrap_err();
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
            assert_eq!(strings(&expanded.arguments)[..3], ["understudy", "backup", "--tap=tap0"]);
            assert_eq!(expanded.arguments.last().unwrap(), "--quiet");
        }
        let other = line(format!("understudy run --config {path}"));
        assert_eq!(expand(other.clone()).unwrap().arguments, other);
        let missing = expand(line("understudy primary --config /nowhere.toml".into()));
        assert!(missing.unwrap_err().to_string().contains("/nowhere.toml"));
    }

    #[test]
    fn vms_are_known_by_their_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("web.toml", "vm-id = 7"),
            ("only.toml", ""),
            ("bad.toml", "vm-id ="),
            ("negative.toml", "vm-id = -1"),
            ("note.txt", "vm-id = 8"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut names = vm_names_in(folder.path());
        names.sort();
        assert_eq!(names, [("only".to_owned(), 0), ("web".to_owned(), 7)]);
        assert!(vm_names_in(&folder.path().join("none")).is_empty());
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
        assert_eq!(strings(&expanded.arguments), expected);
        let expanded = expand(&format!("understudy primary {config}")).unwrap();
        assert_eq!(strings(&expanded.arguments), ["understudy", "primary", "--tap=tap0", &config]);
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
            assert_eq!(expand(other).unwrap().arguments, line(other));
        }
    }
}
