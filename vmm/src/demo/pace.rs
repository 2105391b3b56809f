//! How fast a guest answers on this host. Measured before a demonstration: what its clients ask, and how long
//! anybody waits, follow from that. Hosts differ: where KVM emulates kernel code, one takes ten times as long as
//! another, and a host that is itself emulated thirty times as long as a real one.

use super::clients::{self, Counter, Limit};
use super::guest::Guest;
use super::lan::Namespace;
use super::standalone::{GUEST_ADDRESS, TAP};
use super::vm_process::VmProcess;
use super::{DemoError, pair::figures::ms};
use crate::link::timing::SILENCE_MS_MAX;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How long is waited for what nothing is known of: it ends a hang, and measures nothing.
pub const HANG_MAX: Duration = Duration::from_secs(600);

/// How long everything that must happen is waited for, at least; as much longer as the host is slower than usual.
const PATIENCE: Duration = Duration::from_secs(120);

/// Answers of the guest that are waited for besides: nothing that is waited for takes it more work.
const ANSWERS_MAX: u32 = 1000;

/// Silence timeouts that are waited for besides. A takeover takes one, a client's TCP waits for two or four of
/// them (its timer doubles), and hosts that take each other for dead begin anew.
const SILENCES: u32 = 20;

/// A host on which a request takes longer shows nothing in any time that somebody would wait.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Requests that are timed, and those before them that are not.
const ANSWERS: usize = 20;
const WARM_UP: usize = 2;

/// After this long, those that were timed must do; but there are some.
const MEASURE_MAX: Duration = Duration::from_secs(3);
const ANSWERS_MIN: usize = 5;

/// From the start of a VM with the reference guest to its first answer, on a host that nothing else runs on, of 2
/// cores, without VMX and SVM (kvm_pvm).
const START_USUAL: Duration = Duration::from_millis(60);

/// What was measured of VMs that nobody protects and nobody else asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// From the start of a VM with the reference guest to its first answer: how fast the host is. Whatever the guest
    /// of the demonstration is: that one may have much to do before it answers.
    pub start: Duration,
    /// The median round trip of a request to the guest's counter service.
    pub answer: Duration,
    /// Of how many requests.
    pub answers: usize,
}

impl Measured {
    /// Starts VMs with `program` in namespace `host`, which has a tap for one, asks them from namespace `client`, and
    /// stops them. `interrupted` ends that early.
    ///
    /// # Errors
    ///
    /// What a VM or its client failed of.
    pub fn on(
        program: &Path,
        guest: &Guest,
        [host, client]: [&Namespace; 2],
        interrupted: &AtomicBool,
    ) -> Result<Measured, DemoError> {
        let start = |guest: &Guest| {
            let options = ["run", "--tap", TAP, "--quiet", "--json"].map(OsString::from);
            let options = [&options[..], &guest.options()].concat();
            let begun = Instant::now();
            let mut vm = host.enter(|| VmProcess::spawn(program, &options))?;
            let limit = Limit { time: HANG_MAX, interrupted: Some(interrupted) };
            let reply = || clients::first_ping_reply(&mut vm, GUEST_ADDRESS, begun, &limit);
            let first_answer = client.enter(reply)?;
            Ok((vm, first_answer))
        };
        let (mut vm, first_answer) = start(&Guest::Reference)?;
        if let Guest::Linux(_) = guest {
            stop(vm)?;
            (vm, _) = start(guest)?;
        }
        let measured = client.enter(|| Measured::of_answers(first_answer, guest, interrupted))?;
        stop(vm)?;
        Ok(measured)
    }

    /// Asks a running VM of `guest`, from the calling thread's namespace. `start` is as in the result.
    ///
    /// # Errors
    ///
    /// What the client failed of.
    pub fn of_answers(
        start: Duration,
        guest: &Guest,
        interrupted: &AtomicBool,
    ) -> Result<Measured, DemoError> {
        let mut counter = Counter::connect_to(guest.counter(), GUEST_ADDRESS, HANG_MAX)?;
        let begun = Instant::now();
        let mut times = Vec::with_capacity(ANSWERS);
        for number in 0..WARM_UP + ANSWERS {
            clients::go_on(interrupted)?;
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

fn stop(vm: VmProcess) -> Result<(), DemoError> {
    let (status, _result) = vm.stop()?;
    if status.success() {
        return Ok(());
    }
    Err(DemoError::Wrong(format!("the VM ended with {status}")))
}

/// What a demonstration on this host is fitted to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    measured: Measured,
    /// Its round trip on a usual host.
    answer_usual: Duration,
    silence_ms: u64,
}

impl Pace {
    /// The pace of `guest` where this was `measured`. `silence_ms` is what the user asked for; without, it is the
    /// guest's, and larger where the host as a whole is slow.
    ///
    /// # Errors
    ///
    /// When there is nothing to be shown on such a host.
    pub fn new(
        guest: &Guest,
        measured: Measured,
        silence_ms: Option<u64>,
    ) -> Result<Pace, DemoError> {
        let Measured { start, answer, answers } = measured;
        if answer > ANSWER_MAX {
            return Err(DemoError::TooSlow(format!(
                "a request to a VM that does nothing else takes {answer:.1?} (median of {answers}), more than \
                 {ANSWER_MAX:?}"
            )));
        }
        let fitted = guest.silence_ms() * host_factor(ratio(start, START_USUAL));
        if silence_ms.is_none() && fitted > SILENCE_MS_MAX {
            return Err(DemoError::TooSlow(format!(
                "a VM takes {start:.1?} until it answers, so that a silent host could be taken for dead \
                 after {fitted} ms only, more than {SILENCE_MS_MAX}"
            )));
        }
        let silence_ms = silence_ms.unwrap_or(fitted);
        Ok(Pace { measured, answer_usual: guest.answer_usual(), silence_ms })
    }

    /// After how long a silent host is taken for dead, milliseconds.
    pub fn silence_ms(&self) -> u64 {
        self.silence_ms
    }

    /// How many times longer things take here than usual, at least 1.
    pub fn slowness(&self) -> f64 {
        let answer = ratio(self.measured.answer, self.answer_usual);
        self.host_slowness().max(answer)
    }

    /// The same without the guest.
    fn host_slowness(&self) -> f64 {
        ratio(self.measured.start, START_USUAL).max(1.0)
    }

    /// How long everything is waited for that must happen. It ends a hang, and measures nothing.
    pub fn patience(&self) -> Duration {
        PATIENCE.mul_f64(self.host_slowness())
            + self.measured.answer * ANSWERS_MAX
            + Duration::from_millis(self.silence_ms) * SILENCES
    }

    /// How long a client pauses between two talks: the time in which the guest could give `answers` answers, and
    /// `least` at least. A guest that has no time for its own work shows nothing.
    pub fn pause(&self, least: Duration, answers: u32) -> Duration {
        least.max(self.measured.answer * answers)
    }

    /// In one line, for people.
    pub fn describe(&self) -> String {
        let Measured { start, answer, answers } = self.measured;
        format!(
            "this host: a VM answers {:.0} ms after its start, and {answers} requests of one client in {:.2} ms each \
             (median), {:.1} times as long as usual; so a silent host is dead after {} ms, and nobody waits longer \
             than {:.0} s",
            start.as_secs_f64() * 1e3,
            answer.as_secs_f64() * 1e3,
            self.slowness(),
            self.silence_ms,
            self.patience().as_secs_f64(),
        )
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({
            "start_ms": ms(self.measured.start.as_nanos() as u64),
            "answer_ms": ms(self.measured.answer.as_nanos() as u64),
            "answers": self.measured.answers,
            "slowness": self.slowness(),
            "silence_ms": self.silence_ms,
            "patience_s": self.patience().as_secs_f64(),
        })
    }
}

fn ratio(time: Duration, usual: Duration) -> f64 {
    time.as_secs_f64() / usual.as_secs_f64()
}

/// What silence timeouts are multiplied by where a VM takes `slowness` times as long as usual to start: a power of
/// two, and 1 on hosts that are merely busy.
fn host_factor(slowness: f64) -> u64 {
    if slowness < 2.0 { 1 } else { (slowness.ceil() as u64).next_power_of_two() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Guest = Guest::Reference;

    /// A host on which a VM takes `start` times as long as usual until it answers, and a request `answer` times.
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
    fn fast_host_has_the_guest_s_silence_and_no_less_patience_than_a_usual_one() {
        let (usual, fast) = (pace(1.0, 1.0), pace(0.1, 0.1));
        assert_eq!(usual.silence_ms(), GUEST.silence_ms());
        assert_eq!(fast.silence_ms(), usual.silence_ms());
        assert!(fast.patience() >= PATIENCE && fast.patience() <= usual.patience());
        assert_eq!((usual.slowness(), fast.slowness()), (1.0, 1.0));
        let least = Duration::from_millis(100);
        assert_eq!(usual.pause(least, 1), least);
    }

    #[test]
    fn slow_guest_is_asked_less_often_and_waited_for_longer() {
        let (usual, slow) = (pace(1.0, 1.0), pace(1.0, 1000.0));
        assert_eq!(slow.silence_ms(), usual.silence_ms(), "its host keeps its heartbeats");
        let answer = GUEST.answer_usual();
        assert!(slow.patience() > usual.patience() + answer * 1000 * (ANSWERS_MAX - 10));
        assert_eq!(slow.pause(answer, 2), answer * 2000);
    }

    #[test]
    fn slow_host_is_dead_after_longer_silence_unless_the_user_says_when() {
        let slow = pace(20.0, 1.0);
        assert_eq!(slow.silence_ms(), 32 * GUEST.silence_ms());
        let silences = Duration::from_millis(slow.silence_ms()) * SILENCES;
        assert!(slow.patience() > PATIENCE * 20 + silences);
        let told = Pace::new(&GUEST, measured(20.0, 1.0), Some(70)).unwrap();
        assert_eq!(told.silence_ms(), 70);
        assert_eq!(pace(1.9, 1.0).silence_ms(), GUEST.silence_ms(), "a busy host is no slow one");
    }

    #[test]
    fn host_that_can_show_nothing_is_told_from_one_that_can() {
        let answer = ANSWER_MAX.as_secs_f64() / GUEST.answer_usual().as_secs_f64();
        for (start, answer, is_fit) in [
            (1.0, answer * 0.9, true),
            (1.0, answer * 1.1, false),
            (500.0, 1.0, true),
            (2000.0, 1.0, false),
        ] {
            match Pace::new(&GUEST, measured(start, answer), None) {
                Ok(_) => assert!(is_fit, "{start} {answer}"),
                Err(DemoError::TooSlow(why)) => assert!(!is_fit && !why.contains('\n'), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn figures_are_told_in_one_line_and_as_numbers() {
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
