//! `manual FOLDER`: writes the man pages and the shell completions of understudy, made from its command line.
//!
//! | file | is |
//! |---|---|
//! | `man/understudy.1`, `man/understudy-COMMAND.1` | a page for the program and one for each command |
//! | `completions/understudy` | for bash |
//! | `completions/_understudy` | for zsh |
//! | `completions/understudy.fish` | for fish |
//!
//! A program of its own, and no build script: only a package needs these files.

mod page;

use clap::Command;
use clap_complete::Shell;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use vmm::stdio;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        stdio::message("usage: manual FOLDER");
        return ExitCode::from(2);
    };
    match write_all(vmm::cli::command(), Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stdio::message(format_args!("manual: {}: {error}", folder.display()));
            ExitCode::FAILURE
        }
    }
}

/// Writes the pages and the completions of `program` to `folder`, which is made.
fn write_all(program: Command, folder: &Path) -> io::Result<()> {
    let (pages, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&pages, &completions] {
        fs::create_dir_all(folder)?;
    }
    let mut program = program.disable_help_subcommand(true);
    program.build();
    page::write_all(&program, &pages)?;
    for (shell, name) in
        [(Shell::Bash, "understudy"), (Shell::Zsh, "_understudy"), (Shell::Fish, "understudy.fish")]
    {
        let mut file = File::create(completions.join(name))?;
        clap_complete::generate(shell, &mut program, "understudy", &mut file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        write_all(vmm::cli::command(), folder.path()).unwrap();
        let list = |name: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(folder.path().join(name)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let pages = list("man");
        let program = vmm::cli::command();
        let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<_> = shown.map(Command::get_name).collect();
        assert!(names.contains(&"primary"), "{names:?}");
        for name in &names {
            assert!(pages.contains(&format!("understudy-{name}.1")), "{name}: {pages:?}");
        }
        for name in ["understudy.1", "understudy-log-dump.1", "understudy-witness-check.1"] {
            assert!(pages.contains(name), "{name}: {pages:?}");
        }
        assert!(!pages.contains("understudy-supervise.1"), "nobody starts it by hand");
        for name in list("completions") {
            let text = fs::read_to_string(folder.path().join("completions").join(&name)).unwrap();
            for command in &names {
                assert!(text.contains(command), "{name} lacks {command}");
            }
        }
        assert_eq!(list("completions").len(), 3);
    }
}
