//! [`FileSystem`]: the ext4 file system on the disk of a Linux guest, read on the host with the programs of e2fsprogs.

use crate::{TestbedError, command};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::NamedTempFile;

/// A copy of an image with an ext4 file system, as it is found after a loss of power: its journal is applied, and it has
/// no damage.
#[derive(Debug)]
pub struct FileSystem<'a> {
    image: &'a Path,
    copy: NamedTempFile,
}

impl<'a> FileSystem<'a> {
    /// Copies the raw image `image` to `folder`, and checks the copy.
    ///
    /// # Errors
    ///
    /// If a program fails, or the file system is damaged.
    pub fn check(image: &'a Path, folder: &Path) -> Result<FileSystem<'a>, TestbedError> {
        let copy = NamedTempFile::new_in(folder)
            .map_err(TestbedError::client("making a copy of an image"))?;
        let [from, to] = [image, copy.path()].map(|path| path.to_string_lossy().into_owned());
        command("cp", &["--sparse=always", "--reflink=auto", "--", &from, &to])?;
        // Applies the journal. It repairs nothing that the journal does not explain, and ends with another code then.
        let applied = run("e2fsck", &["-p", &to])?;
        if !matches!(applied.status.code(), Some(0 | 1)) {
            return Err(damaged(image, &applied));
        }
        let checked = run("e2fsck", &["-f", "-n", &to])?;
        if checked.status.code() != Some(0) {
            return Err(damaged(image, &checked));
        }
        Ok(FileSystem { image, copy })
    }

    /// Returns the path of the image.
    pub fn image(&self) -> &'a Path {
        self.image
    }

    /// Returns the names in a folder; none if there is no such folder.
    ///
    /// # Errors
    ///
    /// If debugfs can't be run.
    pub fn names(&self, folder: &str) -> Result<Vec<String>, TestbedError> {
        let listed = self.debugfs(&format!("ls -p {folder}"))?;
        // "/12/100644/0/0/appendonly.aof.1.incr.aof/1234/"
        let names = String::from_utf8_lossy(&listed).into_owned();
        Ok(names.lines().filter_map(|line| line.split('/').nth(5)).map(String::from).collect())
    }

    /// Returns the contents of a file; none if there is no such file.
    ///
    /// # Errors
    ///
    /// If debugfs can't be run.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, TestbedError> {
        self.debugfs(&format!("cat {path}"))
    }

    fn debugfs(&self, request: &str) -> Result<Vec<u8>, TestbedError> {
        let copy = self.copy.path().to_string_lossy();
        Ok(run("debugfs", &["-R", request, &copy])?.stdout)
    }
}

fn run(program: &str, args: &[&str]) -> Result<Output, TestbedError> {
    let output = Command::new(program).args(args).output();
    output.map_err(|source| TestbedError::Client {
        doing: format!("running {program} (package e2fsprogs)"),
        source,
    })
}

fn damaged(image: &Path, output: &Output) -> TestbedError {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.collect::<Vec<_>>().join("; ");
    let image = image.display();
    TestbedError::Wrong(format!(
        "the file system in {image} is damaged: e2fsck ended with {}: {said}",
        output.status
    ))
}
