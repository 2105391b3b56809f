//! The marked commands of the documentation, as a reader runs them: those that need one host.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use testbed::{Namespace, TestbedError};
use tests::docs::{blocks, pages};
use tests::program::understudy;

/// Paths of the pages, and what stands for them in the folder of the test.
const PATHS: [(&str, &str); 2] = [("/etc/understudy", "./understudy"), ("/mnt/shared", "./shared")];

/// Fewest commands that are run.
const COMMANDS_MIN: usize = 10;

#[test]
fn marked_commands_succeed() {
    let mut count = 0;
    for (page, text) in pages() {
        let lines = blocks(&text).into_iter().filter(|block| block.runs);
        let lines: Vec<_> = lines.flat_map(|block| block.lines).collect();
        if !lines.is_empty() {
            count += run_page(&page, &lines);
        }
    }
    assert!(count >= COMMANDS_MIN, "{count}");
}

/// Runs the lines in order, in a folder and a network namespace of their own. Returns their number.
fn run_page(page: &str, lines: &[(usize, String)]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("target/release");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir_all(folder.path().join("shared/understudy")).unwrap();
    symlink(understudy(), programs.join("understudy")).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let namespace = Namespace::new("docs").unwrap();
    let mut count = 0;
    for (number, line) in lines.iter().filter(|(_, line)| !line.is_empty()) {
        let line = here(line);
        let run = || -> Result<_, TestbedError> {
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", &line]).current_dir(folder.path()).env("PATH", &path);
            Ok(shell.output().unwrap())
        };
        let output = namespace.enter(run).unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{page}:{number}: {line}: {}: {text}", output.status);
        count += 1;
    }
    count
}

/// Returns a line with paths in the folder of the test. A VM that would run for long runs for a second.
fn here(line: &str) -> String {
    let mut line = line.split(" #").next().unwrap_or_default().trim_end().to_string();
    for (path, stands_in) in PATHS {
        line = line.replace(path, stands_in);
    }
    if ["understudy run ", "understudy record "].iter().any(|command| line.contains(command)) {
        let mut words: Vec<&str> = line.split(' ').collect();
        if let Some(at) = words.iter().position(|&word| word == "--for") {
            words.drain(at..at + 2);
        }
        line = words.join(" ") + " --for 1";
    }
    line
}
