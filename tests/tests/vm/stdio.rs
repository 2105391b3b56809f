//! Commands whose standard streams cannot be written: no panic, and a documented exit code.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::OpenOptions;
use std::io::{Read, pipe};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use testbed::{Namespace, TestbedError};
use tests::fifo::Fifo;
use tests::patience::Waiting;
use tests::program::{json, run, understudy};

/// Runs the program with its streams redirected in shell syntax, for example `>/dev/full`.
fn redirected(args: &[&str], redirections: &str) -> Output {
    let script = format!("exec \"$0\" \"$@\" {redirections}");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(understudy()).args(args).output().unwrap()
}

/// Makes a short recording at `log`.
fn record(log: &Path) {
    let output = run(&["record", "--log", text(log), "--for", "0.3", "--quiet"]);
    assert!(output.status.success(), "{output:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns one of each command that prints a result and exits. Its files are in `folder`; `log` is a
/// VM's log.
fn commands(folder: &Path, log: &Path) -> Vec<Vec<String>> {
    let (log, made) = (text(log), folder.join("made"));
    let made = text(&made);
    let lines = [
        "doctor".to_string(),
        "doctor --json".to_string(),
        format!("log stat {log}"),
        format!("log stat --json {log}"),
        format!("log dump {log}"),
        format!("replay {log}"),
        format!("replay --json {log}"),
        "run --for 0.2 --quiet".to_string(),
        format!("record --for 0.2 --quiet --force --log {made}.ulog"),
        format!("save --for 0.2 --quiet {made}.snap"),
        format!("key {made}.key"),
        "inspect /bin/true".to_string(),
        "inspect --json /bin/true".to_string(),
        "--help".to_string(),
        "run --help".to_string(),
        "help replay".to_string(),
        "--version".to_string(),
    ];
    lines.map(|line| line.split(' ').map(String::from).collect()).into()
}

/// Runs each of [`commands`] with `start`. `check` also receives the exit code of an undisturbed run.
fn each_command(start: impl Fn(&[&str]) -> Output, check: impl Fn(&[&str], Option<i32>, &Output)) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    record(&log);
    for command in commands(folder.path(), &log) {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let usual = run(&command);
        let _ = std::fs::remove_file(folder.path().join("made.key"));
        let output = start(&command);
        let _ = std::fs::remove_file(folder.path().join("made.key"));
        check(&command, usual.status.code(), &output);
    }
}

#[test]
fn full_standard_output_fails_in_one_line() {
    let line =
        "understudy: can't write to standard output: No space left on device (os error 28)\n";
    each_command(
        |command| redirected(command, ">/dev/full"),
        |command, usual, output| {
            // The exit code of the command's own result takes precedence: `doctor` on an unsuitable
            // host.
            let code = if usual == Some(0) { Some(1) } else { usual };
            assert_eq!((output.status.code(), &*errors(output)), (code, line), "{command:?}");
        },
    );
}

#[test]
fn closed_output_pipe_is_no_error() {
    let without_reader = |command: &[&str]| {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        Command::new(understudy())
            .args(command)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap()
    };
    each_command(without_reader, |command, usual, output| {
        assert_eq!((output.status.code(), &*errors(output)), (usual, ""), "{command:?}");
    });
}

#[test]
fn nonblocking_output_pipe_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    record(&log);
    let whole = run(&["log", "dump", text(&log)]).stdout;
    let (mut reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let pipe_bytes = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    assert!(
        whole.len() > 2 * pipe_bytes as usize,
        "the log fits into a pipe of {pipe_bytes} bytes"
    );
    // Drop the command at once, and with it our writing end of the pipe.
    let mut dump = Command::new(understudy())
        .args(["log", "dump", text(&log)])
        .stdout(writer)
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert!(dump.wait().unwrap().success());
    assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
}

#[test]
fn full_standard_error_does_not_change_the_exit_code() {
    let wrong: [(&[&str], i32); 7] = [
        (&["run", "--memory", "x"], 2),
        (&["run", "--vcpus", "2"], 2),
        (&["run", "--no-such-option"], 2),
        (&["run", "--kvm", "/dev/null"], 3),
        (&["run", "--guest", "/no/such/guest"], 5),
        (&["replay", "/no/such.ulog"], 6),
        (&["status", "--socket", "/no/such.sock"], 15),
    ];
    for (args, code) in wrong {
        let output = redirected(args, "2>/dev/full");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert_eq!(redirected(args, ">/dev/full 2>&1").status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn vm_runs_when_console_and_warnings_cannot_be_written() {
    let namespace = Namespace::new("full").unwrap();
    // A tap that is down causes a warning.
    namespace.ip("tuntap add dev tap0 mode tap").unwrap();
    let args = ["run", "--tap", "tap0", "--for", "0.5", "--json"];
    let [normal, full] = ["", "2>/dev/full"].map(|redirections| {
        namespace.enter(|| Ok::<_, TestbedError>(redirected(&args, redirections))).unwrap()
    });
    assert!(errors(&normal).contains("tap0") && errors(&normal).lines().count() > 1, "{normal:?}");
    assert_eq!(full.status.code(), Some(0), "{full:?}");
    let result = json(&String::from_utf8_lossy(&full.stdout));
    assert!(result["seconds"].as_f64().is_some_and(|seconds| seconds > 0.4), "{result}");
}

#[test]
fn streams_closed_at_the_start_are_not_reused_for_files() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.ulog");
    let output = redirected(&["record", "--log", text(&log), "--for", "0.3"], "<&- >&- 2>&-");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // If the log's file had a standard stream's descriptor, the guest's console output would be in it.
    let output = run(&["replay", text(&log), "--json"]);
    assert!(output.status.success(), "{output:?}");
    let replayed = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!((&replayed["complete"], &replayed["divergences"]), (&true.into(), &0.into()));
}

/// Runs the program, which must end, with standard error redirected to `errors`.
fn ends(args: &[&str], errors: Stdio) -> Output {
    let mut command = Command::new(understudy());
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
    let waiting = Waiting::default();
    while child.try_wait().unwrap().is_none() {
        if waiting.is_over() {
            child.kill().unwrap();
            panic!("{args:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn vm_whose_standard_error_stalls_runs_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = Fifo::new(folder.path().join("pipe"));
    pipe.fill();
    let log = folder.path().join("run.ulog");
    for command in [&["run"][..], &["record", "--log", text(&log)]] {
        let args = [command, &["--for", "0.5", "--json"]].concat();
        let errors = OpenOptions::new().write(true).open(pipe.path()).unwrap();
        let output = ends(&args, errors.into());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let result = json(&String::from_utf8_lossy(&output.stdout));
        assert!(result["natural_exits"].as_f64().is_some_and(|exits| exits > 0.0), "{result}");
    }
    assert!(run(&["replay", text(&log)]).status.success());
}

#[test]
fn vm_whose_pcap_file_stalls_runs_to_its_end() {
    let namespace = Namespace::new("pcap").unwrap();
    namespace.add_tap("tap0", Some("10.77.0.1/24")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pipe = Fifo::new(folder.path().join("pipe"));
    pipe.fill();
    let args = ["run", "--tap", "tap0", "--pcap", pipe.path(), "--for", "1", "--quiet"];
    let client =
        namespace.enter(|| Ok::<_, TestbedError>(UdpSocket::bind("10.77.0.1:0").unwrap())).unwrap();
    // Frames for the capture, until this test ends.
    let (_test, test_ends) = mpsc::channel::<()>();
    let pause = Duration::from_millis(20);
    std::thread::spawn(move || {
        while test_ends.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            // An error means that the VM has no network.
            let _ = client.send_to(b"echo", "10.77.0.2:7");
        }
    });
    let output = namespace.enter(|| Ok::<_, TestbedError>(ends(&args, Stdio::piped()))).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let errors = errors(&output);
    assert!(errors.contains("frames are missing in"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
