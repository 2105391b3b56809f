//! `--config FILE`: reads options of `primary` and `backup` from a TOML file.
//!
//! The file can set every option under its name without the dashes: `silence-ms = 100`,
//! `insecure = true`. The command line overrides the file.

use super::exit_code::CliError;
use crate::files::input;
use crate::limits::CONFIG_FILE_BYTES_MAX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The commands that accept `--config`.
const COMMANDS: [&str; 2] = ["primary", "backup"];

/// Inserts the options of the file after the command's name, if the command accepts `--config` and it is
/// given.
///
/// # Errors
///
/// If the file can't be read, or has a syntax error or a value that can't be an option.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, CliError> {
    let is_pair = |name: &OsString| COMMANDS.iter().any(|command| name == command);
    if !arguments.get(1).is_some_and(is_pair) {
        return Ok(arguments);
    }
    let Some(path) = config_path(&arguments) else { return Ok(arguments) };
    let options = read(&path)?;
    let (command, rest) = arguments.split_at(2);
    Ok([command, &options, rest].concat())
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

fn read(path: &Path) -> Result<Vec<OsString>, CliError> {
    let bytes = input::read(path, CONFIG_FILE_BYTES_MAX)
        .map_err(|source| CliError::File { path: path.to_path_buf(), source })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::Usage(format!("{}: is not UTF-8 text", path.display())))?;
    options(&text).map_err(|what| CliError::Usage(format!("{}: {what}", path.display())))
}

/// Converts a file's text to command line options. The error is one line that says what is wrong.
fn options(text: &str) -> Result<Vec<OsString>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
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
            toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                return Err(format!("{name}: the value must be a string, a number, true or false"));
            }
        };
        // One argument, so that a value with leading dashes is not parsed as an option.
        options.push(format!("--{name}={value}").into());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(options: &[OsString]) -> Vec<&str> {
        options.iter().map(|option| option.to_str().unwrap()).collect()
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
        assert_eq!(options("a = 1\nb = = 2").unwrap_err().split(':').next(), Some("line 2"));
        assert!(options("peers = [1]").unwrap_err().starts_with("peers: "));
        assert!(options("[log]\nx = 1").unwrap_err().starts_with("log: "));
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
}
