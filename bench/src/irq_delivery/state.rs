//! The states of the guest while frames arrive.
//!
//! The device interrupts a guest for the first frame that the guest has not read from its queue, and
//! not again before the guest reads it (virtio 1.2, 2.7.7.2: `used_event`). A guest that computes does
//! not read its queue, so each computation gets one frame.

use super::prober::{self, Sent};
use crate::counter_client::CounterClient;
use crate::error::BenchError;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::GUEST_ADDRESS;

/// TCP port of the guest's web server.
const HTTP_PORT: u16 = 80;

/// Length of one computation.
const BURN: Duration = Duration::from_millis(20);

/// Time from the start of a computation to its frame, microseconds: long enough for the computation to
/// have begun, and never a multiple of a tick.
const INTO_BURN_US: RangeInclusive<u64> = 2_000..=13_000;

/// Time between frames in state [`GuestState::Mix`], microseconds.
const GAP_US: RangeInclusive<u64> = 25_000..=45_000;

/// Time between frames to an idle guest, microseconds.
const IDLE_GAP_US: RangeInclusive<u64> = 5_000..=15_000;

/// Counter requests between two burns in state [`GuestState::Mix`].
const REQUESTS_BETWEEN: u64 = 50;

/// What the guest does while frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuestState {
    /// Halts.
    Idle,
    /// Computes at CPL3, without an exit.
    Computing,
    /// Alternately answers 50 requests and computes for 20 ms.
    Mix,
}

impl GuestState {
    /// All states.
    pub(super) const ALL: [GuestState; 3] =
        [GuestState::Idle, GuestState::Computing, GuestState::Mix];

    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            GuestState::Idle => "idle",
            GuestState::Computing => "computing",
            GuestState::Mix => "mix",
        }
    }

    /// Brings the guest into this state and sends it `frames` frames. Must be called in the client's
    /// namespace.
    pub(super) fn send(self, frames: u64, seed: u64) -> Result<Sent, BenchError> {
        let (nothing, idle) = (|| Ok(()), || Ok(false));
        match self {
            GuestState::Idle => prober::send(frames, IDLE_GAP_US, seed, idle, nothing),
            GuestState::Computing => {
                let burning = RefCell::new(None);
                let begin = || {
                    burning.replace(Some(Burning::begin(BURN)?));
                    Ok(true)
                };
                let end = || burning.take().map_or(Ok(()), Burning::end);
                prober::send(frames, INTO_BURN_US, seed, begin, end)
            }
            GuestState::Mix => {
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let mixing = scope.spawn(|| mix(&stop));
                    let sent = prober::send(frames, GAP_US, seed, idle, nothing);
                    stop.store(true, Ordering::Relaxed);
                    mixing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                    sent
                })
            }
        }
    }
}

/// Makes the guest answer and compute alternately until `stop` is set.
fn mix(stop: &AtomicBool) -> Result<(), BenchError> {
    let mut client = CounterClient::connect(0)?;
    while !stop.load(Ordering::Relaxed) {
        client.run(REQUESTS_BETWEEN, None)?;
        Burning::begin(BURN)?.end()?;
    }
    Ok(())
}

/// A computation in progress, requested on its own connection.
struct Burning(TcpStream);

impl Burning {
    /// Requests a computation of length `time`.
    fn begin(time: Duration) -> Result<Burning, BenchError> {
        let begin = || -> std::io::Result<TcpStream> {
            let target = SocketAddr::from((GUEST_ADDRESS, HTTP_PORT));
            let mut stream = TcpStream::connect_timeout(&target, crate::PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(time + crate::PATIENCE))?;
            let ms = time.as_millis();
            let request =
                format!("GET /burn?ms={ms} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            Ok(stream)
        };
        begin().map(Burning).map_err(BenchError::os("requesting a computation from the guest"))
    }

    /// Waits until the computation is done.
    fn end(mut self) -> Result<(), BenchError> {
        let mut answer = String::new();
        let read = self.0.read_to_string(&mut answer);
        read.map_err(BenchError::os("waiting for the guest's computation to end"))?;
        match answer.starts_with("HTTP/1.1 200 ") {
            true => Ok(()),
            false => {
                let line = answer.lines().next().unwrap_or_default();
                Err(BenchError::Wrong(format!(
                    "the guest answered a computation request with {line:?}"
                )))
            }
        }
    }
}
