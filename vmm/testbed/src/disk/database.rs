//! What SQLite has on the disk of a Linux guest: a table of which each row has the next number.

use super::file_system::FileSystem;
use crate::TestbedError;
use std::path::Path;
use std::process::Command;

/// The database, below the root of the file system, and its write-ahead log.
const DATABASE: &str = "numbers.db";
const LOG_SUFFIX: &str = "-wal";

/// Asks for the damages that SQLite finds ("ok" if there is none), the number of rows and the largest number.
const QUESTION: &str =
    "PRAGMA integrity_check; SELECT count(*), coalesce(max(rowid), 0) FROM numbers;";

/// Returns how many rows the database has. `None` if there is no database. Works in `folder`.
///
/// # Errors
///
/// If a program fails, the database is damaged, or a number is missing.
pub fn rows(files: &FileSystem<'_>, folder: &Path) -> Result<Option<u64>, TestbedError> {
    if !files.names("/")?.iter().any(|name| name == DATABASE) {
        return Ok(None);
    }
    let failed = || TestbedError::client("copying a database");
    let folder = tempfile::tempdir_in(folder).map_err(failed())?;
    let copy = folder.path().join(DATABASE);
    std::fs::write(&copy, files.read(&format!("/{DATABASE}"))?).map_err(failed())?;
    let log = format!("{DATABASE}{LOG_SUFFIX}");
    std::fs::write(folder.path().join(&log), files.read(&format!("/{log}"))?).map_err(failed())?;
    let output = Command::new("sqlite3").arg("-batch").arg(&copy).arg(QUESTION).output();
    let output = output.map_err(|source| TestbedError::Client {
        doing: String::from("running sqlite3 (package sqlite3)"),
        source,
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = rows_in(&text).filter(|_| output.status.success());
    number.map(Some).ok_or_else(|| {
        let said = [text.trim(), String::from_utf8_lossy(&output.stderr).trim()].join(" ");
        TestbedError::Wrong(format!(
            "the database in {} is damaged: sqlite3 says {said:?}",
            files.image().display()
        ))
    })
}

/// Returns the number of rows from the answer to [`QUESTION`]. `None` unless nothing is damaged and no number is missing.
fn rows_in(answer: &str) -> Option<u64> {
    let (rows, last) = answer.trim().strip_prefix("ok\n")?.split_once('|')?;
    (rows == last).then(|| rows.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_only_in_a_whole_table() {
        assert_eq!(rows_in("ok\n17|17\n"), Some(17));
        assert_eq!(rows_in("ok\n0|0\n"), Some(0));
        assert_eq!(rows_in("ok\n16|17\n"), None);
        assert_eq!(rows_in("*** in database main ***\nPage 3: never used\n17|17\n"), None);
        assert_eq!(rows_in(""), None);
    }
}
