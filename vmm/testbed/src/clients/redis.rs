//! Clients of a redis server, in its own protocol (RESP2: redis.io/docs/reference/protocol-spec).

use super::{CounterService, compare_echo, connect};
use crate::TestbedError;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

/// TCP port of the server.
pub const PORT: u16 = 6379;

/// The key of the counter service.
pub const COUNTER_KEY: &str = "understudy";

/// The counter service: `INCR` of a key answers with the next number.
pub const COUNTER: CounterService = CounterService {
    port: PORT,
    request: b"*2\r\n$4\r\nINCR\r\n$10\r\nunderstudy\r\n",
    answer_prefix: ":",
};

/// Sends `bytes` with `ECHO` on a new connection and compares the answer. Times out after `patience`.
///
/// # Errors
///
/// If the transfer fails or the answer differs.
pub fn echo(address: Ipv4Addr, bytes: &[u8], patience: Duration) -> Result<(), TestbedError> {
    let failed = || TestbedError::client("redis ECHO");
    let mut stream = BufReader::new(connect(address, PORT, patience)?);
    let length = format!("${}\r\n", bytes.len());
    let request = [b"*2\r\n$4\r\nECHO\r\n", length.as_bytes(), bytes, b"\r\n"].concat();
    stream.get_mut().write_all(&request).map_err(failed())?;
    let mut announced = String::new();
    stream.read_line(&mut announced).map_err(failed())?;
    if announced != length {
        return Err(TestbedError::Wrong(format!("redis ECHO was answered with {announced:?}")));
    }
    let mut back = vec![0; bytes.len() + 2];
    stream.read_exact(&mut back).map_err(failed())?;
    compare_echo(bytes, back.strip_suffix(b"\r\n").unwrap_or(&back))
}
