//! A client of the reference guest's disk service.

use crate::PATIENCE;
use crate::error::BenchError;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use testbed::GUEST_ADDRESS;

/// TCP port of the service (`vmm/guest/src/services/disk.rs`).
const PORT: u16 = 7001;

/// One connection to the disk service.
pub(super) struct DiskClient {
    stream: BufReader<TcpStream>,
}

impl DiskClient {
    /// Connects to the guest in the namespace of the calling thread.
    pub(super) fn connect() -> Result<DiskClient, BenchError> {
        let target = SocketAddr::from((GUEST_ADDRESS, PORT));
        let doing = || BenchError::os(format!("connecting to {target}"));
        let stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(doing())?;
        stream.set_nodelay(true).map_err(doing())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(doing())?;
        Ok(DiskClient { stream: BufReader::new(stream) })
    }

    /// Sends a command and returns the answer.
    fn ask(&mut self, command: &str) -> Result<String, BenchError> {
        let doing = || BenchError::os(format!("asking the guest's disk service to {command}"));
        let mut answer = String::new();
        self.stream.get_mut().write_all(format!("{command}\n").as_bytes()).map_err(doing())?;
        self.stream.read_line(&mut answer).map_err(doing())?;
        Ok(answer.trim_end().to_owned())
    }

    /// Makes the guest do `count` requests as `work` says: kind, order and number in flight. Returns when all are done.
    pub(super) fn io(&mut self, work: &str, count: u64, seed: u64) -> Result<(), BenchError> {
        let command = format!("io {work} {count} {seed}");
        let answer = self.ask(&command)?;
        if answer == format!("done {count}") {
            return Ok(());
        }
        let wrong = format!("the disk service answered {command:?} with {answer:?}");
        Err(BenchError::Wrong(wrong))
    }
}
