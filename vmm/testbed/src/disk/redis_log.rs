//! What redis has on the disk of a Linux guest: its append-only file.

use super::Counts;
use super::file_system::FileSystem;
use crate::TestbedError;

/// The folder with the append-only file, below the root of the file system.
const FOLDER: &str = "/appendonlydir";
/// How the name of its part with the commands ends.
const SUFFIX: &str = ".incr.aof";

/// Returns how often each key was incremented by the append-only file.
///
/// # Errors
///
/// If a program fails, or the append-only file is missing or damaged.
pub fn read(files: &FileSystem<'_>) -> Result<Counts, TestbedError> {
    let wrong = |what: &str| TestbedError::Wrong(format!("{what} in {}", files.image().display()));
    let names = files.names(FOLDER)?;
    let name = names.iter().find(|name| name.ends_with(SUFFIX));
    let name = name.ok_or_else(|| wrong("there is no append-only file"))?;
    increments(&files.read(&format!("{FOLDER}/{name}"))?)
        .ok_or_else(|| wrong("the append-only file is damaged"))
}

/// Counts the increments in an append-only file (RESP2: redis.io/docs/reference/protocol-spec), whose last command may be
/// cut off. `None` if it is malformed.
fn increments(log: &[u8]) -> Option<Counts> {
    let mut counts = Counts::new();
    let mut rest = log;
    while !rest.is_empty() {
        let Some(words) = command_words(&mut rest)? else { break };
        if let [name, key] = words[..]
            && name.eq_ignore_ascii_case(b"INCR")
        {
            *counts.entry(String::from_utf8_lossy(key).into_owned()).or_default() += 1;
        }
    }
    Some(counts)
}

/// Takes a command off the front. `Some(None)` if it is cut off.
fn command_words<'l>(rest: &mut &'l [u8]) -> Option<Option<Vec<&'l [u8]>>> {
    let count = match number(rest, b'*')? {
        Some(count) => count,
        None => return Some(None),
    };
    let mut words = Vec::new();
    for _word in 0..count {
        let Some(length) = number(rest, b'$')? else { return Some(None) };
        if rest.len() < length + 2 {
            return Some(None);
        }
        let (word, behind) = rest.split_at(length);
        *rest = behind.strip_prefix(b"\r\n")?;
        words.push(word);
    }
    Some(Some(words))
}

/// Takes a line off the front that consists of `kind` and a number. `Some(None)` if it is cut off.
fn number(rest: &mut &[u8], kind: u8) -> Option<Option<usize>> {
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
        let is_cut_off = rest.first().is_none_or(|&first| first == kind);
        return is_cut_off.then_some(None);
    };
    let text = std::str::from_utf8(rest[..end].strip_prefix(&[kind])?).ok()?;
    let number = text.parse().ok()?;
    *rest = &rest[end + 2..];
    Some(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n\
        *2\r\n$4\r\nINCR\r\n$10\r\nunderstudy\r\n\
        *3\r\n$3\r\nSET\r\n$4\r\nINCR\r\n$2\r\n\r\n\r\n\
        *2\r\n$4\r\nincr\r\n$10\r\nunderstudy\r\n\
        *2\r\n$4\r\nINCR\r\n$9\r\nredis-cli\r\n";

    fn counts(log: &[u8]) -> Option<[u64; 2]> {
        let counts = increments(log)?;
        Some(["understudy", "redis-cli"].map(|key| counts.get(key).copied().unwrap_or(0)))
    }

    #[test]
    fn increments_are_counted_by_key() {
        assert_eq!(counts(LOG), Some([2, 1]));
        assert_eq!(counts(b""), Some([0, 0]));
    }

    #[test]
    fn log_may_be_cut_off_in_its_last_command_only() {
        let last = LOG.len() - b"*2\r\n$4\r\nINCR\r\n$9\r\nredis-cli\r\n".len();
        for length in last..LOG.len() {
            assert_eq!(counts(&LOG[..length]), Some([2, 0]), "{length}");
        }
        let mut damaged = LOG.to_vec();
        damaged[27] ^= 1;
        assert_eq!(counts(&damaged), None);
        assert_eq!(counts(&[LOG, &[0; 512]].concat()), None);
    }
}
