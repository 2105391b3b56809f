//! The prober: a knock at the VM's door in every period, and when which answer came.

use super::figures::Times;
use super::probe::Probe;
use crate::demo::DemoError;
use crate::demo::pace::Pace;
use crate::kvm::clock::boottime_ns;
use socket2::Socket;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a wait for an answer lasts before the stop flag is seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// In front of each knock's number.
const MAGIC: [u8; 8] = *b"probe\0\0\0";

const PAYLOAD_BYTES: usize = 16;

/// Longer than any answer with its headers.
const ANSWER_BYTES_MAX: usize = 128;

/// A sender that wakes this much too late was kept from running by more than the kernel's timers.
const LATE_MIN: Duration = Duration::from_millis(3);

/// What the prober saw.
#[derive(Debug)]
pub struct Prober {
    probe: Probe,
    period: Duration,
    sent: AtomicU64,
    seen: Mutex<Seen>,
    lates: Mutex<Lates>,
}

/// Times when the sender woke too late, and by how much, nanoseconds: what of an outage may be the
/// machine's, on which everybody runs together.
#[derive(Debug, Default)]
pub struct Lates(Vec<(u64, u64)>);

impl Lates {
    /// By how much at most, among the wakes in `from_ns..=to_ns`.
    pub fn most_in(&self, from_ns: u64, to_ns: u64) -> u64 {
        let within = self.0.iter().filter(|(at_ns, _)| (from_ns..=to_ns).contains(at_ns));
        within.map(|&(_, late_ns)| late_ns).max().unwrap_or(0)
    }
}

/// Answers.
#[derive(Debug, Default)]
pub struct Seen {
    /// When each came.
    pub times: Times,
    /// Those that were none of ours.
    pub wrong: u64,
}

impl Prober {
    /// One that knocks in this way, at this pace.
    pub fn new(probe: Probe, pace: &Pace) -> Prober {
        Prober {
            probe,
            period: probe.period(pace),
            sent: AtomicU64::new(0),
            seen: Mutex::default(),
            lates: Mutex::default(),
        }
    }

    /// Sends and listens until `stop`, in the namespace of the calling thread.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), DemoError> {
        let doing = || DemoError::client(format!("{} echo", self.probe.name()));
        let socket = self.probe.connect().map_err(doing())?;
        socket.set_read_timeout(Some(LOOK_EVERY)).map_err(doing())?;
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
            // Nobody there, or nobody yet: that is what is measured.
            let _ = socket.send(&self.probe.knock(number, &payload));
            // A sender that was kept from running goes on from there: no burst.
            due = (due + self.period).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = due.elapsed();
            if late >= LATE_MIN {
                self.lates().0.push((boottime_ns(), late.as_nanos() as u64));
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
                    // ICMP errors of before the VM was there.
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

    /// From one knock to the next.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Knocks so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// When the sender woke too late.
    pub fn lates(&self) -> MutexGuard<'_, Lates> {
        self.lates.lock().expect("nobody panics with it")
    }

    /// The answers.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with it")
    }
}
