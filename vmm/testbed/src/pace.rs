//! How fast a guest answers on this host. The load of the clients and all time limits of a demonstration
//! follow from this measurement. Hosts differ a lot: among hosts whose KVM emulates kernel code, one takes
//! ten times as long as another, and a host that is itself emulated takes thirty times as long as a real one.

use crate::clients::{self, Counter, Limit};
use crate::figures::ms;
use crate::standalone::Launch;
use crate::{GUEST_ADDRESS, Guest, Namespace, TestbedError};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Time limit where nothing is known about the host's speed. It only ends a hang.
pub const HANG_MAX: Duration = Duration::from_secs(600);

/// Longest silence timeout that the program accepts, in milliseconds.
pub const SILENCE_MS_MAX: u64 = 60_000;

/// Minimum time limit for everything that must happen. It grows with the slowness of the host.
const PATIENCE: Duration = Duration::from_secs(120);

/// Added to the time limit: the time of this many answers of the guest. Nothing that is waited for is more
/// work for the guest.
const ANSWERS_MAX: u32 = 1000;

/// Added to the time limit: this many silence timeouts. A takeover takes one, a client's TCP waits for two or
/// four of them (its timer doubles), and hosts that declared each other dead by mistake start over.
const SILENCES: u32 = 20;

/// Longest round trip of a request with which a demonstration ends in acceptable time.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Number of requests that are timed, and of those before them that are not.
const ANSWERS: usize = 20;
const WARM_UP: usize = 2;

/// The measurement ends early after this time if at least this many requests were timed.
const MEASURE_MAX: Duration = Duration::from_secs(3);
const ANSWERS_MIN: usize = 5;

/// Usual time from the start of a VM with the reference guest to its first answer: that of an otherwise idle
/// host with 2 cores, without VMX and SVM (kvm_pvm).
const START_USUAL: Duration = Duration::from_millis(60);

/// Measurements of unprotected VMs without other clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Time from the start of a VM with the reference guest to its first answer, which shows how fast the
    /// host is. It is measured with the reference guest for every demonstration, because another guest may
    /// have much to do before it answers.
    pub start: Duration,
    /// Median round trip of a request to the guest's counter service.
    pub answer: Duration,
    /// Number of requests in the median.
    pub answers: usize,
}

impl Measured {
    /// Starts VMs with `program` in namespace `host`, which has a tap for one VM, measures them from
    /// namespace `client`, and stops them. `command` is `run`, and the options that `guest` needs if it is not the
    /// reference guest. `interrupted` ends that early.
    ///
    /// # Errors
    ///
    /// If a VM or a client fails.
    pub fn on(
        program: &Path,
        (guest, command): (&Guest, &[&str]),
        [host, client]: [&Namespace; 2],
        interrupted: &AtomicBool,
    ) -> Result<Measured, TestbedError> {
        let limit = Limit { time: HANG_MAX, interrupted: Some(interrupted) };
        let start = |guest: &Guest, command: &[&str]| {
            Launch { program, guest, command }.start([host, client], &limit)
        };
        let (mut vm, first_answer) = start(&Guest::Reference, &["run"])?;
        if let Guest::Linux(_) = guest {
            vm.finish()?;
            (vm, _) = start(guest, command)?;
        }
        let measured = client.enter(|| Measured::of_answers(first_answer, guest, interrupted))?;
        vm.finish()?;
        Ok(measured)
    }

    /// Measures a running VM of `guest` from the calling thread's namespace. `start` is copied into the
    /// result.
    ///
    /// # Errors
    ///
    /// If the client fails.
    pub fn of_answers(
        start: Duration,
        guest: &Guest,
        interrupted: &AtomicBool,
    ) -> Result<Measured, TestbedError> {
        let mut counter = Counter::connect_to(guest.counter(), GUEST_ADDRESS, HANG_MAX)?;
        let begun = Instant::now();
        let mut times = Vec::with_capacity(ANSWERS);
        for number in 0..WARM_UP + ANSWERS {
            clients::check_interrupted(interrupted)?;
            let asked = Instant::now();
            counter.ask()?;
            if number >= WARM_UP {
                times.push(asked.elapsed());
            }
            if begun.elapsed() > MEASURE_MAX && times.len() >= ANSWERS_MIN {
                break;
            }
        }
        times.sort_unstable();
        Ok(Measured { start, answer: times[times.len() / 2], answers: times.len() })
    }
}

/// The measured speed of this host, and the load and time limits that follow from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    measured: Measured,
    /// Round trip on a usual host.
    answer_usual: Duration,
    silence_ms: u64,
    /// Processes of VMs for each processor; at least 1.
    share: u32,
}

impl Pace {
    /// Creates the pace of `guest` on a host with these measurements. `silence_ms` is the user's choice;
    /// without it the guest's default is used, increased on a slow host.
    ///
    /// # Errors
    ///
    /// [`TestbedError::TooSlow`] if the host is too slow for a demonstration.
    pub fn new(
        guest: &Guest,
        measured: Measured,
        silence_ms: Option<u64>,
    ) -> Result<Pace, TestbedError> {
        let Measured { start, answer, answers } = measured;
        if answer > ANSWER_MAX {
            return Err(TestbedError::TooSlow(format!(
                "a request to an otherwise idle VM takes {answer:.1?} (median of {answers}), more than \
                 {ANSWER_MAX:?}"
            )));
        }
        let fitted = guest.silence_ms() * silence_factor(ratio(start, START_USUAL));
        if silence_ms.is_none() && fitted > SILENCE_MS_MAX {
            return Err(TestbedError::TooSlow(format!(
                "a VM takes {start:.1?} until its first answer, which requires a silence timeout of {fitted} ms, \
                 more than the maximum of {SILENCE_MS_MAX} ms"
            )));
        }
        let silence_ms = silence_ms.unwrap_or(fitted);
        Ok(Pace { measured, answer_usual: guest.answer_usual(), silence_ms, share: 1 })
    }

    /// Returns the pace of each of `vms` protected VMs on a machine with `cores` processors, all of whose processes run
    /// there. `silence_ms` is the user's choice; without it the silence timeout grows with the number of processes for
    /// each processor, because each waits for the others.
    #[must_use]
    pub fn shared_by(self, vms: u32, cores: usize, silence_ms: Option<u64>) -> Pace {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        let share = (2 * vms).div_ceil(cores).max(1);
        let fitted = self.silence_ms * u64::from(share.next_power_of_two());
        let silence_ms = silence_ms.unwrap_or(fitted.min(SILENCE_MS_MAX));
        Pace { share, silence_ms, ..self }
    }

    /// Returns the silence timeout in milliseconds.
    pub fn silence_ms(&self) -> u64 {
        self.silence_ms
    }

    /// Returns how many times slower than usual this host is, including the guest; at least 1.
    pub fn slowness(&self) -> f64 {
        let answer = ratio(self.measured.answer, self.answer_usual);
        self.host_slowness().max(answer)
    }

    /// Returns how many times slower than usual this host is, without the guest; at least 1.
    fn host_slowness(&self) -> f64 {
        ratio(self.measured.start, START_USUAL).max(1.0)
    }

    /// Returns the time limit for everything that must happen. It only ends a hang.
    pub fn patience(&self) -> Duration {
        PATIENCE.mul_f64(self.host_slowness()) * self.share
            + self.measured.answer * ANSWERS_MAX * self.share
            + Duration::from_millis(self.silence_ms) * SILENCES
    }

    /// Returns how long a client pauses between two exchanges: the time in which the guest could give
    /// `answers` answers, but at least `least`. This keeps the clients from saturating a slow guest.
    pub fn pause(&self, least: Duration, answers: u32) -> Duration {
        least.max(self.measured.answer * answers * self.share)
    }

    /// Describes the pace in one line.
    pub fn describe(&self) -> String {
        let Measured { start, answer, answers } = self.measured;
        format!(
            "this host: first answer {:.0} ms after the start of a VM, {:.2} ms for a request (median of {answers}), \
             {:.1} times as long as usual; silence timeout {} ms, time limit {:.0} s",
            start.as_secs_f64() * 1e3,
            answer.as_secs_f64() * 1e3,
            self.slowness(),
            self.silence_ms,
            self.patience().as_secs_f64(),
        )
    }

    /// Returns the pace as a JSON object.
    pub fn json(&self) -> Value {
        json!({
            "start_ms": ms(self.measured.start.as_nanos() as u64),
            "answer_ms": ms(self.measured.answer.as_nanos() as u64),
            "answers": self.measured.answers,
            "slowness": self.slowness(),
            "processes_per_core": self.share,
            "silence_ms": self.silence_ms,
            "patience_s": self.patience().as_secs_f64(),
        })
    }
}

fn ratio(time: Duration, usual: Duration) -> f64 {
    time.as_secs_f64() / usual.as_secs_f64()
}

/// Returns the factor for silence timeouts on a host where a VM takes `slowness` times as long as usual to
/// start: a power of two, and 1 on hosts that are merely busy.
fn silence_factor(slowness: f64) -> u64 {
    if slowness < 2.0 { 1 } else { (slowness.ceil() as u64).next_power_of_two() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Guest = Guest::Reference;

    /// Measurements of a host on which the first answer takes `start` times as long as usual, and a request
    /// `answer` times as long.
    fn measured(start: f64, answer: f64) -> Measured {
        Measured {
            start: START_USUAL.mul_f64(start),
            answer: GUEST.answer_usual().mul_f64(answer),
            answers: ANSWERS,
        }
    }

    fn pace(start: f64, answer: f64) -> Pace {
        Pace::new(&GUEST, measured(start, answer), None).unwrap()
    }

    #[test]
    fn fast_host_has_default_silence_timeout_and_minimum_patience() {
        let (usual, fast) = (pace(1.0, 1.0), pace(0.1, 0.1));
        assert_eq!(usual.silence_ms(), GUEST.silence_ms());
        assert_eq!(fast.silence_ms(), usual.silence_ms());
        assert!(fast.patience() >= PATIENCE && fast.patience() <= usual.patience());
        assert_eq!((usual.slowness(), fast.slowness()), (1.0, 1.0));
        let least = Duration::from_millis(100);
        assert_eq!(usual.pause(least, 1), least);
    }

    #[test]
    fn slow_guest_gets_fewer_requests_and_more_patience() {
        let (usual, slow) = (pace(1.0, 1.0), pace(1.0, 1000.0));
        assert_eq!(slow.silence_ms(), usual.silence_ms(), "the host itself is not slow");
        let answer = GUEST.answer_usual();
        assert!(slow.patience() > usual.patience() + answer * 1000 * (ANSWERS_MAX - 10));
        assert_eq!(slow.pause(answer, 2), answer * 2000);
    }

    #[test]
    fn slow_host_has_longer_silence_timeout_unless_the_user_sets_one() {
        let slow = pace(20.0, 1.0);
        assert_eq!(slow.silence_ms(), 32 * GUEST.silence_ms());
        let silences = Duration::from_millis(slow.silence_ms()) * SILENCES;
        assert!(slow.patience() > PATIENCE * 20 + silences);
        let chosen = Pace::new(&GUEST, measured(20.0, 1.0), Some(70)).unwrap();
        assert_eq!(chosen.silence_ms(), 70);
        assert_eq!(
            pace(1.9, 1.0).silence_ms(),
            GUEST.silence_ms(),
            "a busy host does not count as slow"
        );
    }

    #[test]
    fn vms_that_share_processors_get_less_load_and_more_time() {
        let alone = pace(1.0, 1.0);
        let shared = |vms, cores| alone.shared_by(vms, cores, None);
        assert_eq!(shared(1, 2), alone);
        assert_eq!(shared(1, 64), alone);
        let eight = shared(8, 2);
        assert_eq!(eight.silence_ms(), 8 * alone.silence_ms());
        let answer = GUEST.answer_usual();
        assert_eq!(eight.pause(Duration::ZERO, 1), 8 * answer);
        assert!(eight.patience() >= 8 * PATIENCE);
        assert_eq!(alone.shared_by(8, 2, Some(70)).silence_ms(), 70);
        assert_eq!(shared(32, 1).silence_ms(), 64 * alone.silence_ms());
    }

    #[test]
    fn host_that_is_too_slow_is_refused() {
        let answer = ANSWER_MAX.as_secs_f64() / GUEST.answer_usual().as_secs_f64();
        for (start, answer, is_fit) in [
            (1.0, answer * 0.9, true),
            (1.0, answer * 1.1, false),
            (500.0, 1.0, true),
            (2000.0, 1.0, false),
        ] {
            match Pace::new(&GUEST, measured(start, answer), None) {
                Ok(_) => assert!(is_fit, "{start} {answer}"),
                Err(TestbedError::TooSlow(why)) => assert!(!is_fit && !why.contains('\n'), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn pace_is_described_in_one_line_and_as_json() {
        let pace = pace(3.0, 2.0);
        let line = pace.describe();
        assert!(
            !line.contains('\n') && line.contains(&format!("{} ms,", pace.silence_ms())),
            "{line}"
        );
        let json = pace.json();
        assert_eq!(json["silence_ms"], pace.silence_ms());
        assert_eq!(json["slowness"], 3.0);
    }
}
