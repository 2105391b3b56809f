//! The chain on a disk of the reference guest: a client of its disk service, and what the chain must be.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use testbed::GUEST_ADDRESS;
use testbed::pace::HANG_MAX;

/// Port of the guest's disk service.
const PORT: u16 = 7001;

/// A client of the guest's disk service.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects to the guest in the calling thread's namespace.
    ///
    /// # Panics
    ///
    /// If the guest can't be reached.
    pub fn connect() -> Client {
        let stream = TcpStream::connect((GUEST_ADDRESS, PORT)).expect("the guest is there");
        stream.set_read_timeout(Some(HANG_MAX)).expect("the timeout is not zero");
        Client(BufReader::new(stream))
    }

    /// Returns its connection, with which another thread can end it.
    ///
    /// # Panics
    ///
    /// If the process has too many open files.
    pub fn connection(&self) -> TcpStream {
        self.0.get_ref().try_clone().expect("a file can be opened")
    }

    /// Sends a command, and does not wait for the answer.
    ///
    /// # Panics
    ///
    /// If it can't be sent.
    pub fn tell(&mut self, command: &str) {
        let sent = self.0.get_mut().write_all(format!("{command}\n").as_bytes());
        sent.unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// Sends a command, and returns its answer.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap_or_else(|error| panic!("{command}: {error}"));
        answer.trim_end().to_owned()
    }
}

/// FNV-1a of the hash before and the text, as the guest computes it.
fn link_hash(before: u64, text: &str) -> u64 {
    let bytes = before.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Appends `count` links behind link number `links`, whose hash is `hash`. Returns the hash of the last one.
///
/// # Panics
///
/// If the guest's answer is another one.
pub fn append(client: &mut Client, links: u64, mut hash: u64, count: u64) -> u64 {
    for link in links + 1..=links + count {
        let text = format!("link {link}");
        hash = link_hash(hash, &text);
        assert_eq!(client.ask(&format!("append {text}")), format!("{link} {hash:016x}"));
    }
    hash
}

/// Appends link number `links + 1` behind the link with `hash`. Returns its hash; `None` if there was no answer.
///
/// # Panics
///
/// If the guest's answer is another one.
pub fn try_append(client: &mut Client, links: u64, hash: u64) -> Option<u64> {
    let (link, stream) = (links + 1, client.0.get_mut());
    let text = format!("link {link}");
    stream.write_all(format!("append {text}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    client.0.read_line(&mut answer).ok()?;
    let hash = link_hash(hash, &text);
    let answer = answer.strip_suffix('\n')?;
    assert_eq!(answer.trim_end(), format!("{link} {hash:016x}"));
    Some(hash)
}

/// Lets the guest read and compare all links. Returns their number, and the hash of the last one.
///
/// # Panics
///
/// If the chain is broken.
pub fn chain(client: &mut Client) -> (u64, u64) {
    let answer = client.ask("chain");
    let parsed = answer
        .split_once(' ')
        .and_then(|(links, hash)| Some((links.parse().ok()?, u64::from_str_radix(hash, 16).ok()?)));
    parsed.unwrap_or_else(|| panic!("{answer}"))
}
