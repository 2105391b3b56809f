//! The chain on the disk of the reference guest: a client that appends to it, and what an image has of it. The guest's disk
//! service (`vmm/guest/src/services/disk.rs`) describes its form.

use crate::clients::connect;
use crate::clients::traffic::sleep_unless_stopped;
use crate::pace::Pace;
use crate::{GUEST_ADDRESS, TestbedError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// TCP port of the guest's disk service.
pub const PORT: u16 = 7001;

const SECTOR_BYTES: usize = 512;
/// First bytes of sector 0 of a disk with a chain.
const MAGIC: [u8; 8] = *b"USTDYCHN";
/// Where a link has its text: behind the hash before and the length.
const TEXT: usize = 16;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Pause between two links: a minimum, and a number of the guest's answers (see [`Pace::pause`]). Each link is two
/// writes and two flushes.
const PAUSE: (Duration, u32) = (Duration::from_millis(2), 4);

/// A chain, or its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Number of links.
    pub links: u64,
    /// Hash of the last one, which covers all.
    pub hash: u64,
}

impl Chain {
    /// Returns the chain with one more link.
    pub fn with(self, text: &[u8]) -> Chain {
        let before = self.hash.to_le_bytes();
        let bytes = before.iter().chain(text);
        let hash =
            bytes.fold(FNV_OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        Chain { links: self.links + 1, hash }
    }
}

/// The client: appends to the chain, and compares each answer with what it must be.
#[derive(Debug)]
pub struct Chaining {
    pace: Pace,
    /// Links for which the disk has room.
    links_max: u64,
    answered: Mutex<Chain>,
}

impl Chaining {
    /// Creates a client for a VM with this pace, and with an empty disk of `bytes` bytes.
    pub fn new(pace: Pace, bytes: u64) -> Chaining {
        let links_max = bytes / SECTOR_BYTES as u64 - 1;
        Chaining { pace, links_max, answered: Mutex::default() }
    }

    /// Appends links until `stop`, or until the disk is full, in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the connection ends, or an answer is wrong.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), TestbedError> {
        let stream = connect(GUEST_ADDRESS, PORT, self.pace.patience())?;
        let mut stream = BufReader::new(stream);
        let (least, answers) = PAUSE;
        while !stop.load(Ordering::Relaxed) && self.answered().links < self.links_max {
            let before = *self.answered();
            let text = format!("link {}", before.links + 1);
            let after = before.with(text.as_bytes());
            let answer = ask(&mut stream, &format!("append {text}"))
                .map_err(TestbedError::client("appending to the chain on the disk"))?;
            let Chain { links, hash } = after;
            if answer != format!("{links} {hash:016x}") {
                return Err(TestbedError::Wrong(format!(
                    "link {links} of the chain on the disk was answered with {answer:?}"
                )));
            }
            *self.answered() = after;
            sleep_unless_stopped(self.pace.pause(least, answers), stop);
        }
        Ok(())
    }

    /// Returns what was answered so far: this much is stable on the disk.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn answered(&self) -> MutexGuard<'_, Chain> {
        self.answered.lock().expect("no thread panics while it holds the lock")
    }
}

/// Sends a command, and returns its answer.
fn ask(stream: &mut BufReader<TcpStream>, command: &str) -> io::Result<String> {
    stream.get_mut().write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    match stream.read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _bytes => Ok(answer.trim_end().to_owned()),
    }
}

/// Reads the chain on the disk whose raw image is `image`, link by link.
///
/// # Errors
///
/// If the image can't be read, or the chain is broken.
pub fn read(image: &Path) -> Result<Chain, TestbedError> {
    let failed = || TestbedError::client(format!("reading {}", image.display()));
    let file = File::open(image).map_err(failed())?;
    let mut sector = [0; SECTOR_BYTES];
    file.read_exact_at(&mut sector, 0).map_err(failed())?;
    if sector[..8] != MAGIC {
        return Ok(Chain::default());
    }
    let end = Chain { links: word(&sector, 8), hash: word(&sector, 16) };
    let mut chain = Chain::default();
    while chain.links < end.links {
        file.read_exact_at(&mut sector, (chain.links + 1) * SECTOR_BYTES as u64)
            .map_err(failed())?;
        let text = usize::try_from(word(&sector, 8)).ok();
        let text = text.and_then(|length| sector[TEXT..].get(..length));
        chain = match text {
            Some(text) if word(&sector, 0) == chain.hash => chain.with(text),
            Some(_) | None => return Err(broken(image, chain.links + 1)),
        };
    }
    if chain == end { Ok(chain) } else { Err(broken(image, chain.links)) }
}

fn broken(image: &Path, link: u64) -> TestbedError {
    TestbedError::Wrong(format!("link {link} of the chain in {} is broken", image.display()))
}

fn word(sector: &[u8; SECTOR_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| sector[at + i]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes a chain of `links` links to a raw image, as the guest does.
    pub(in crate::disk) fn write(image: &Path, links: u64) -> Chain {
        let file = File::options().write(true).open(image).unwrap();
        let mut chain = Chain::default();
        for link in 1..=links {
            let text = format!("link {link}");
            let mut sector = [0; SECTOR_BYTES];
            sector[..8].copy_from_slice(&chain.hash.to_le_bytes());
            sector[8..16].copy_from_slice(&(text.len() as u64).to_le_bytes());
            sector[TEXT..][..text.len()].copy_from_slice(text.as_bytes());
            file.write_all_at(&sector, link * SECTOR_BYTES as u64).unwrap();
            chain = chain.with(text.as_bytes());
        }
        let mut sector = [0; SECTOR_BYTES];
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..16].copy_from_slice(&chain.links.to_le_bytes());
        sector[16..24].copy_from_slice(&chain.hash.to_le_bytes());
        file.write_all_at(&sector, 0).unwrap();
        chain
    }

    fn image() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 10).unwrap();
        file
    }

    #[test]
    fn chain_is_read_as_it_was_written() {
        let file = image();
        assert_eq!(read(file.path()).unwrap(), Chain::default());
        let chain = write(file.path(), 5);
        assert_eq!(read(file.path()).unwrap(), chain);
        assert_eq!(chain.links, 5);
    }

    #[test]
    fn changed_link_breaks_the_chain() {
        for (at, link) in [(512, 2), (3 * 512 + TEXT as u64, 4), (5 * 512 + 8, 5)] {
            let file = image();
            write(file.path(), 5);
            file.as_file().write_all_at(&[0xff; 8], at).unwrap();
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains(" is broken"), "{link}: {error}");
        }
    }
}
