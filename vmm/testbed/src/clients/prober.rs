//! The prober: sends a request to the VM in every period and records the times of the answers.

use super::probe::Probe;
use crate::TestbedError;
use crate::clock::boottime_ns;
use crate::figures::Times;
use crate::pace::Pace;
use socket2::Socket;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Interval at which a wait for an answer checks the stop flag.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Precedes the number in each request's payload.
const MAGIC: [u8; 8] = *b"probe\0\0\0";

const PAYLOAD_BYTES: usize = 16;

/// Buffer size for an answer with its headers.
const ANSWER_BYTES_MAX: usize = 128;

/// A sender that wakes this much too late was delayed by more than the kernel's timer slack.
const LATE_MIN: Duration = Duration::from_millis(3);

/// The prober and its results.
#[derive(Debug)]
pub struct Prober {
    probe: Probe,
    vm: Ipv4Addr,
    period: Duration,
    sent: AtomicU64,
    seen: Mutex<Seen>,
    send_delays: Mutex<SendDelays>,
}

/// When the sender woke too late, and by how much, in nanoseconds. It shows how much of an outage may be due
/// to this machine, on which all hosts and clients run together.
#[derive(Debug, Default)]
pub struct SendDelays(Vec<(u64, u64)>);

impl SendDelays {
    /// Returns the largest delay in `from_ns..=to_ns`, in nanoseconds; 0 without one.
    pub fn max_in(&self, from_ns: u64, to_ns: u64) -> u64 {
        let within = self.0.iter().filter(|(at_ns, _)| (from_ns..=to_ns).contains(at_ns));
        within.map(|&(_, late_ns)| late_ns).max().unwrap_or(0)
    }
}

/// The answers that the prober received.
#[derive(Debug, Default)]
pub struct Seen {
    /// Times of the correct answers.
    pub times: Times,
    /// Answers with a wrong payload.
    pub wrong: u64,
}

impl Prober {
    /// Creates a prober of the VM with the address `vm`, with this kind of request and this pace.
    pub fn new(vm: Ipv4Addr, probe: Probe, pace: &Pace) -> Prober {
        Prober {
            probe,
            vm,
            period: probe.period(pace),
            sent: AtomicU64::new(0),
            seen: Mutex::default(),
            send_delays: Mutex::default(),
        }
    }

    /// Sends requests and receives answers until `stop`, in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the socket can't be opened or receiving fails.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), TestbedError> {
        let doing = || TestbedError::client(format!("{} echo", self.probe.name()));
        let socket = self.probe.connect(self.vm).map_err(doing())?;
        socket.set_read_timeout(Some(POLL_INTERVAL)).map_err(doing())?;
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(&socket, stop));
            let received = self.receive(&socket, stop);
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            received.map_err(doing())
        })
    }

    fn send(&self, socket: &Socket, stop: &AtomicBool) {
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let mut payload = [0; PAYLOAD_BYTES];
            payload[..8].copy_from_slice(&MAGIC);
            payload[8..].copy_from_slice(&number.to_le_bytes());
            // Errors are expected while no host is live; the missing answer is what is measured.
            let _ = socket.send(&self.probe.request(number, &payload));
            // A sender that was delayed continues from now on, without a burst.
            due = (due + self.period).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = due.elapsed();
            if late >= LATE_MIN {
                self.send_delays().0.push((boottime_ns(), late.as_nanos() as u64));
            }
        }
    }

    fn receive(&self, mut socket: &Socket, stop: &AtomicBool) -> io::Result<()> {
        let mut answer = [0; ANSWER_BYTES_MAX];
        while !stop.load(Ordering::Relaxed) {
            match socket.read(&mut answer) {
                Ok(length) => {
                    let now_ns = boottime_ns();
                    let Some(payload) = self.probe.answer(&answer[..length]) else { continue };
                    let sound = self.is_ours(&payload);
                    let mut seen = self.seen();
                    if sound {
                        seen.times.push(now_ns);
                    } else {
                        seen.wrong += 1;
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted
                    // ICMP errors from before the VM was live.
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn is_ours(&self, payload: &[u8]) -> bool {
        let Some((magic, number)) = payload.split_first_chunk::<8>() else { return false };
        let Ok(number) = number.try_into().map(u64::from_le_bytes) else { return false };
        *magic == MAGIC && number < self.sent.load(Ordering::Relaxed)
    }

    /// Returns the interval between requests.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Returns the number of requests sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the delays of the sender.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn send_delays(&self) -> MutexGuard<'_, SendDelays> {
        self.send_delays.lock().expect("no thread panics while it holds the lock")
    }

    /// Returns the answers so far.
    ///
    /// # Panics
    ///
    /// If a thread panicked while it held the lock.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no thread panics while it holds the lock")
    }
}
