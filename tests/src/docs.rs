//! The command lines of `understudy` in the documentation: in the fenced and the indented code of README.md and of every
//! page in `docs`, in the text between backquotes there, and in the examples of `--help`.
//!
//! A line of code is a command if its first word is `understudy` or ends in `/understudy`, after `sudo` or settings of the
//! environment. Fenced blocks of the language `text` have none. A page marks a block of code
//! with the line `<!-- runs -->` before it if a test may run its commands in an empty network namespace.

use clap::Command;
use clap::error::ErrorKind;
use std::fs;
use std::path::{Path, PathBuf};

/// The mark of a block whose commands a test runs.
const RUNS: &str = "<!-- runs -->";

/// Words that may precede the program in a command line; a word with `=` is a setting of the environment.
const BEFORE: [&str; 2] = ["$", "sudo"];

/// Where a shell command ends.
const END_OF_COMMAND: [&str; 7] = ["|", "||", "&&", ">", "2>", "&", ";"];

/// A command line and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The page and the line, or the command whose help has it.
    pub place: String,
    /// The words after the program's name.
    pub words: Vec<String>,
}

/// A block of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whether its commands are run by a test.
    pub runs: bool,
    /// Its lines with their numbers. A line that ends in a backslash is joined with the next one.
    pub lines: Vec<(usize, String)>,
}

/// Returns README.md and every page in `docs`, by their paths from the root of the repository.
///
/// # Panics
///
/// If a page can't be read.
pub fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut pages, mut folders) = (vec![root.join("README.md")], vec![root.join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("docs can be read") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    let page = |path: PathBuf| {
        let name = path.strip_prefix(&root).expect("it is below").display().to_string();
        (name, fs::read_to_string(&path).expect("a page can be read"))
    };
    pages.into_iter().map(page).collect()
}

/// Returns the blocks of code of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block { runs: false, lines: Vec::new() };
    let (mut fence, mut runs, mut joins) = (None, false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let language = line.trim_start().strip_prefix("```");
        let is_fence = language.is_some();
        let is_code = !is_fence
            && match fence {
                Some(language) => language != "text",
                None => line.starts_with("    "),
            };
        if let Some(language) = language {
            fence = fence.is_none().then_some(language);
        }
        if is_code {
            block.runs = runs;
            let code = line.trim();
            let (code, goes_on) = match code.strip_suffix('\\') {
                Some(code) => (code, true),
                None => (code, false),
            };
            match block.lines.last_mut().filter(|_| joins) {
                Some((_, last)) => last.push_str(code),
                None => block.lines.push((number, code.to_string())),
            }
            joins = goes_on;
        } else if !line.trim().is_empty() || is_fence {
            if !block.lines.is_empty() {
                let empty = Block { runs: false, lines: Vec::new() };
                blocks.push(std::mem::replace(&mut block, empty));
                runs = false;
            }
            runs |= line.trim() == RUNS;
        }
    }
    if !block.lines.is_empty() {
        blocks.push(block);
    }
    blocks
}

/// Returns the command lines in the code of all pages.
pub fn in_code() -> Vec<CommandLine> {
    let mut found = Vec::new();
    for (page, text) in pages() {
        for (number, line) in blocks(&text).into_iter().flat_map(|block| block.lines) {
            let words = command(&line);
            found.extend(
                words.map(|words| CommandLine { place: format!("{page}:{number}"), words }),
            );
        }
    }
    found
}

/// Returns what is between backquotes in the text of all pages and begins with the program's name.
pub fn in_text() -> Vec<CommandLine> {
    let mut found = Vec::new();
    for (page, text) in pages() {
        for (number, line) in (1..).zip(text.lines()) {
            for part in line.split('`').skip(1).step_by(2) {
                let words = part.strip_prefix("understudy ").map(words);
                let place = || format!("{page}:{number}");
                found.extend(words.map(|words| CommandLine { place: place(), words }));
            }
        }
    }
    found
}

/// Returns the examples in the help of `program` and its subcommands.
pub fn in_help(program: &Command) -> Vec<CommandLine> {
    let (mut found, mut commands) = (Vec::new(), vec![(String::new(), program)]);
    while let Some((path, command)) = commands.pop() {
        let name = format!("{path} {}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace("\\\n", " ");
        for line in help.lines() {
            let line = line.trim_start().trim_start_matches("Example: ");
            let lines = line.starts_with("understudy ").then(|| self::command(line)).flatten();
            let place = || format!("the help of{name}");
            found.extend(lines.map(|words| CommandLine { place: place(), words }));
        }
        commands.extend(command.get_subcommands().map(|below| (name.clone(), below)));
    }
    found
}

/// Returns the words after the program's name, if the line of code runs the program.
fn command(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let is_program = |word: &String| word == "understudy" || word.ends_with("/understudy");
    let at = words.iter().position(is_program)?;
    let may_precede = |word: &String| BEFORE.contains(&word.as_str()) || word.contains('=');
    words[..at].iter().all(may_precede).then(|| words[at + 1..].to_vec())
}

/// Splits a line at spaces, except between quotation marks, up to the end of the command or a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for character in line.chars().chain([' ']) {
        match character {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => {
                let ends = END_OF_COMMAND.contains(&word.as_str()) || word.starts_with('#');
                if ends {
                    return words;
                }
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    words
}

/// Parses a command line with the program's parser, as far as a document says what is on it.
///
/// - Brackets around options that may be left out are removed.
/// - Where a word in capitals stands for a value, its value is not checked.
/// - Where `...` stands for further options, or a file has them (`--config`, `up`), required ones may be missing.
///
/// # Errors
///
/// Says what is wrong.
pub fn parse(program: &Command, line: &CommandLine) -> Result<(), String> {
    // `understudy up NAME` reads the file of the VM.
    let mut is_part = line.words.first().is_some_and(|word| word == "up");
    let mut arguments = vec![String::from("understudy")];
    let mut words = line.words.iter();
    while let Some(word) = words.next() {
        if word == "..." {
            is_part = true;
        } else if word == "--config" {
            is_part = true;
            let _file = words.next();
        } else {
            arguments.push(without_brackets(word));
        }
    }
    let is_stand_in = |word: &String| {
        let value = word.rsplit('=').next().unwrap_or_default();
        !value.is_empty() && value.chars().all(|c| c.is_ascii_uppercase())
    };
    let has_stand_in = arguments.iter().any(is_stand_in);
    let parsed = program.clone().try_get_matches_from(&arguments);
    match parsed.map_err(|error| (error.kind(), error)) {
        Ok(_) | Err((ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _)) => Ok(()),
        Err((
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            _,
        )) if is_part => Ok(()),
        Err((ErrorKind::ValueValidation | ErrorKind::InvalidValue, _)) if has_stand_in => Ok(()),
        Err((_, error)) => Err(format!("{}: {}: {error}", line.place, arguments.join(" "))),
    }
}

/// Returns a word without what may be left out inside of it, and without brackets around it.
fn without_brackets(word: &str) -> String {
    match word.find('[') {
        Some(at) if at > 0 => word[..at].to_string(),
        Some(_) | None => word.trim_matches(['[', ']']).to_string(),
    }
}

/// Checks that the subcommand and the options that a text names exist.
///
/// # Errors
///
/// Says what does not.
pub fn check_names(program: &Command, line: &CommandLine) -> Result<(), String> {
    let mut command = program;
    for (index, word) in line.words.iter().enumerate() {
        let word = without_brackets(word);
        let option =
            word.strip_prefix("--").map(|option| option.split('=').next().unwrap_or(option));
        let is_known = match option {
            Some("help" | "version" | "config") => true,
            Some(option) => command.get_arguments().any(|known| known.get_long() == Some(option)),
            None => match command.find_subcommand(&word) {
                Some(below) => {
                    command = below;
                    true
                }
                // A value, if the command takes any, or that of an option.
                None => index > 0 && !command.has_subcommands(),
            },
        };
        if !is_known {
            let all = line.words.join(" ");
            return Err(format!("{}: {all:?}: {word} does not exist", line.place));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the program's parser, in which each subcommand has the options of all.
    fn program() -> Command {
        let mut program = vmm::cli::command();
        program.build();
        program
    }

    fn line(text: &str) -> CommandLine {
        CommandLine { place: String::from("here"), words: command(text).expect("a command") }
    }

    fn failures(
        lines: &[CommandLine],
        check: impl Fn(&CommandLine) -> Result<(), String>,
    ) -> String {
        let failures: Vec<String> = lines.iter().filter_map(|line| check(line).err()).collect();
        failures.join("\n")
    }

    #[test]
    fn every_command_line_of_the_documentation_is_accepted() {
        let (program, lines) = (program(), in_code());
        assert!(lines.len() > 50, "{}: the pages have more", lines.len());
        assert_eq!(failures(&lines, |line| parse(&program, line)), "");
    }

    #[test]
    fn every_example_of_the_help_is_accepted() {
        let program = program();
        let lines = in_help(&program);
        assert!(lines.len() > 15, "{}: the help has more", lines.len());
        assert_eq!(failures(&lines, |line| parse(&program, line)), "");
    }

    #[test]
    fn every_command_named_in_a_text_exists() {
        let (program, lines) = (program(), in_text());
        assert!(lines.len() > 60, "{}: the pages have more", lines.len());
        assert_eq!(failures(&lines, |line| check_names(&program, line)), "");
    }

    #[test]
    fn every_script_of_the_documentation_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let end = |c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c));
        for (page, text) in pages() {
            for part in text.split("scripts/").skip(1) {
                let name = part.split(end).next().unwrap_or_default().trim_end_matches('.');
                assert!(root.join("scripts").join(name).exists(), "{page}: scripts/{name}");
            }
        }
    }

    #[test]
    fn wrong_command_lines_are_found() {
        let program = program();
        for wrong in [
            "understudy rerun --tap tap0",
            "understudy run --tapp tap0",
            "understudy record --tap tap0",
            "understudy demo --kills many",
            "understudy demo --standalone --kills 3",
        ] {
            assert!(parse(&program, &line(wrong)).is_err(), "{wrong}");
        }
        for wrong in ["understudy log dumb FILE", "understudy status --jason", "understudy rerun"] {
            assert!(check_names(&program, &line(wrong)).is_err(), "{wrong}");
        }
        for right in [
            "sudo understudy demo --kills 3 --json # a comment",
            "understudy record --tap tap0 ...",
            "understudy save vm.snap [--when TEXT] 2> file",
            "UNDERSTUDY_LOG=debug target/release/understudy log dump FILE --skip N | less",
        ] {
            assert_eq!(parse(&program, &line(right)), Ok(()), "{right}");
        }
    }

    #[test]
    fn blocks_are_found_and_marked() {
        let text = "text\n\n<!-- runs -->\n\n    one \\\n      two\n\n    three\n\ntext\n\n```sh\nfour\n```\n\n```text\nfive\n```\n";
        let one = (5, String::from("one two"));
        let blocks = blocks(text);
        assert_eq!(blocks[0], Block { runs: true, lines: vec![one, (8, "three".into())] });
        assert_eq!(blocks[1], Block { runs: false, lines: vec![(13, "four".into())] });
        assert_eq!(blocks.len(), 2);
    }
}
