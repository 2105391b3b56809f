//! [`Fence`]: the operator's command that stops the lost host before this one takes the VM over.
//!
//! The witness and the lease keep a primary that executes this program from sending after it was replaced. They
//! can't stop a host whose kernel or hardware no longer does what it should. A site that can switch a host off, or
//! cut it off from the LAN, has that done here: after the claim is won, and before this host goes live.
//!
//! ```text
//!   claim won ---> the command runs ---exit code 0---> the claim's answer is passed on: this host goes live
//!                    ^        |
//!                    |        | any other end, or the limit
//!                    |        v
//!                    +---- no answer: the engine asks again
//!                  a pause
//! ```
//!
//! A command that fails does not give the term back. Terms are never used again, and the lost host must not win this
//! one. So no host runs the VM before the command has succeeded.
//!
//! The command runs only for a takeover from a silent primary: not after a handover, not at a boot, and not when a
//! primary has lost its backup, which sends nothing for the VM. It runs on the thread of the claims, and no longer than
//! its limit.

use super::one_line;
use crate::limits::{FENCE_OUTPUT_BYTES_MAX, FENCE_READS_MAX};
use logchan::ids::{Term, VmId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use replication::witness::{Answer, ClaimCause, Question};
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time between two runs of a command that fails. The engine asks much more often.
const PAUSE: Duration = Duration::from_secs(5);

/// How often a running command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long to wait for a command that was killed. One that the kernel does not let end is left behind.
const KILLED_MAX: Duration = Duration::from_secs(1);

/// The command, and what it is told.
#[derive(Debug)]
pub struct FenceConfig {
    /// For `sh -c`. No message contains it, because it may contain a password.
    pub command: String,
    /// The command is killed after this time.
    pub limit: Duration,
    /// The VM.
    pub vm: VmId,
    /// Address of the other host's interface of the logging channel.
    pub lost_host: String,
}

/// Runs the command when this host takes the VM over.
pub struct Fence {
    config: FenceConfig,
    pause: Duration,
    /// Is called with whether the command runs, when that changes.
    on_run: Box<dyn Fn(bool) + Send>,
    /// The term for which the command has succeeded.
    fenced: Option<Term>,
    /// When the command has failed last, and why.
    failed: Option<(Instant, String)>,
}

/// Why the lost host counts as not fenced.
#[derive(Debug, thiserror::Error)]
enum FenceError {
    /// The command can't be started or waited for.
    #[error("--fence can't be run: {0}")]
    Io(#[from] io::Error),
    /// It has failed.
    #[error(
        "--fence failed: {status}{output}: this host does not take over before the command succeeds"
    )]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// `: ` and the last line of its output, or nothing.
        output: String,
    },
    /// It was killed.
    #[error(
        "--fence did not end in {} s and was killed{output}: this host does not take over before the command succeeds",
        limit.as_secs()
    )]
    Killed {
        /// Its limit.
        limit: Duration,
        /// `: ` and the last line of its output, or nothing.
        output: String,
    },
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("limit", &self.config.limit).finish_non_exhaustive()
    }
}

impl Fence {
    /// Creates a fence.
    pub fn new(config: FenceConfig) -> Fence {
        Fence { config, pause: PAUSE, on_run: Box::new(|_| {}), fenced: None, failed: None }
    }

    /// Calls `on_run` with whether the command runs, when that changes.
    pub(super) fn report_runs(&mut self, on_run: Box<dyn Fn(bool) + Send>) {
        self.on_run = on_run;
    }

    /// Fences the lost host if `answer` to `question` lets this host take the VM over from it.
    ///
    /// # Errors
    ///
    /// The lost host is not fenced, so the answer must not be passed on. The reason is one line.
    pub(super) fn require(&mut self, question: Question, answer: Answer) -> Result<(), String> {
        let Some(term) = term_taken_over(question, answer) else { return Ok(()) };
        if self.fenced == Some(term) {
            return Ok(());
        }
        if let Some((at, reason)) = &self.failed
            && at.elapsed() < self.pause
        {
            return Err(reason.clone());
        }
        tracing::warn!("fencing the lost host before this one takes the VM over in term {term}");
        (self.on_run)(true);
        let result = run(&self.config, term);
        (self.on_run)(false);
        result.map(|()| self.fenced = Some(term)).map_err(|error| {
            let reason = error.to_string();
            self.failed = Some((Instant::now(), reason.clone()));
            reason
        })
    }
}

/// Returns the term in which this host takes the VM over from a primary that may still run.
fn term_taken_over(question: Question, answer: Answer) -> Option<Term> {
    let is_takeover = match question {
        Question::Claim { cause: ClaimCause::PrimarySilent, .. } => true,
        Question::Claim { cause: ClaimCause::BackupLost | ClaimCause::HandedOver, .. }
        | Question::Boot { .. }
        | Question::Confirm { .. }
        | Question::Release { .. } => false,
    };
    match answer {
        Answer::Won { term } => is_takeover.then_some(term),
        Answer::Lost { .. } | Answer::Unreachable => None,
    }
}

/// Runs the command for `term` to its end.
fn run(config: &FenceConfig, term: Term) -> Result<(), FenceError> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new("sh");
    command.arg("-c").arg(&config.command);
    command.env("UNDERSTUDY_VM", config.vm.to_string());
    command.env("UNDERSTUDY_TERM", term.to_string());
    command.env("UNDERSTUDY_LOST_HOST", &config.lost_host);
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    // A group of its own, so that its children are killed with it.
    let mut child = command.process_group(0).spawn()?;
    let mut output = Output { reader, bytes: Vec::new() };
    let status = wait(&mut child, Instant::now() + config.limit, || output.read_some());
    match status? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(FenceError::Failed { status, output: output.last_line() }),
        None => {
            kill(&mut child);
            Err(FenceError::Killed { limit: config.limit, output: output.last_line() })
        }
    }
}

/// Waits until `child` has ended; returns `None` at the time `until`. Calls `meanwhile` again and again.
fn wait(
    child: &mut Child,
    until: Instant,
    mut meanwhile: impl FnMut(),
) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        meanwhile();
        if status.is_some() || Instant::now() >= until {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Kills the process group of `child`, which has not been waited for: its ID is still its own.
fn kill(child: &mut Child) {
    // It may have ended by itself.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = wait(child, Instant::now() + KILLED_MAX, || {});
}

/// The end of what a command has written.
struct Output {
    reader: PipeReader,
    bytes: Vec<u8>,
}

impl Output {
    /// Reads what is there, but not without end: a command may write faster than this reads.
    fn read_some(&mut self) {
        let mut piece = [0; FENCE_OUTPUT_BYTES_MAX];
        for _ in 0..FENCE_READS_MAX {
            let mut fds = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
            let is_ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
            let Some(count @ 1..) = is_ready.then(|| self.reader.read(&mut piece).unwrap_or(0))
            else {
                return;
            };
            self.bytes.extend_from_slice(&piece[..count]);
            let surplus = self.bytes.len().saturating_sub(FENCE_OUTPUT_BYTES_MAX);
            self.bytes.drain(..surplus);
        }
    }

    /// Returns `: ` and the last line that is not empty; nothing if there is none.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        line.map_or_else(String::new, |line| format!(": {}", one_line(line.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchan::ids::Claimant;
    use std::fs;
    use std::path::Path;

    const SILENT: Question = claim(ClaimCause::PrimarySilent);
    const WON: Answer = Answer::Won { term: Term(2) };

    const fn claim(cause: ClaimCause) -> Question {
        Question::Claim { term: Term(2), previous: Claimant(1), cause }
    }

    fn fence(command: String, limit_ms: u64) -> Fence {
        let (limit, lost_host) = (Duration::from_millis(limit_ms), String::from("the other"));
        let fence = Fence::new(FenceConfig { command, limit, vm: VmId(7), lost_host });
        Fence { pause: Duration::ZERO, ..fence }
    }

    /// A command that appends what it was told to `file`.
    fn tells(file: &Path) -> String {
        let names = "$UNDERSTUDY_VM $UNDERSTUDY_TERM $UNDERSTUDY_LOST_HOST";
        format!("echo \"{names}\" >>'{}'", file.display())
    }

    #[test]
    fn command_runs_once_for_each_term_taken_over_and_for_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let mut fence = fence(tells(&file), 60_000);
        for (question, answer) in [
            (claim(ClaimCause::BackupLost), WON),
            (claim(ClaimCause::HandedOver), WON),
            (Question::Boot { again: true, after: None }, WON),
            (Question::Confirm { term: Term(2), owner: Claimant(1) }, WON),
            (Question::Release { term: Term(1) }, WON),
            (SILENT, Answer::Lost { newest: Term(2) }),
            (SILENT, Answer::Unreachable),
        ] {
            assert_eq!(fence.require(question, answer), Ok(()), "{question:?} {answer:?}");
        }
        assert!(!file.exists());
        assert_eq!(fence.require(SILENT, WON), Ok(()));
        assert_eq!(fence.require(SILENT, WON), Ok(()), "the answer was not in time");
        assert_eq!(fs::read_to_string(&file).unwrap(), "7 2 the other\n");
        assert_eq!(fence.require(SILENT, Answer::Won { term: Term(3) }), Ok(()));
        assert_eq!(fs::read_to_string(&file).unwrap(), "7 2 the other\n7 3 the other\n");
    }

    #[test]
    fn command_that_fails_is_no_answer_and_runs_again_after_the_pause() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("told");
        let text = "printf '\\033[31m first\\n no\\033 switch\\n\\n' >&2; exit 3";
        let mut fence =
            Fence { pause: PAUSE, ..fence(format!("{}; {text}", tells(&file)), 60_000) };
        let runs = || fs::read_to_string(&file).unwrap().lines().count();
        for _ in 0..3 {
            let reason = fence.require(SILENT, WON).unwrap_err();
            assert!(reason.contains("exit status: 3: no  switch: this host"), "{reason}");
            assert!(!reason.contains(char::is_control) && !reason.contains("printf"), "{reason}");
            assert_eq!(runs(), 1);
        }
        fence.pause = Duration::ZERO;
        fence.require(SILENT, WON).unwrap_err();
        assert_eq!(runs(), 2);
        fence.config.command = tells(&file);
        assert_eq!((fence.require(SILENT, WON), runs()), (Ok(()), 3));
    }

    #[test]
    fn command_killed_by_a_signal_or_unknown_is_no_answer() {
        for (command, text) in [("kill -9 $$", "signal: 9"), ("/no/such/program", "127")] {
            let reason = fence(command.into(), 60_000).require(SILENT, WON).unwrap_err();
            assert!(reason.contains(text), "{reason}");
        }
    }

    /// Returns whether `process` runs. A zombie does not.
    fn is_running(process: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn command_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let sleeps = format!("sleep 1000 & echo $! >'{}'; wait", file.display());
        let reason = fence(sleeps, 500).require(SILENT, WON).unwrap_err();
        assert!(reason.contains("did not end in 0 s and was killed: this"), "{reason}");
        let child = fs::read_to_string(file).unwrap();
        while is_running(child.trim()) {
            std::thread::sleep(LOOK_EVERY);
        }
        let endless = fence("yes".into(), 200).require(SILENT, WON).unwrap_err();
        assert!(endless.contains("was killed: y: "), "{endless}");
    }

    /// The pipe stays open as long as one of them has it.
    #[test]
    fn children_that_go_on_delay_nothing() {
        let begin = Instant::now();
        let detached = "sleep 20 & exit 0";
        assert_eq!(fence(detached.into(), 60_000).require(SILENT, WON), Ok(()));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}
