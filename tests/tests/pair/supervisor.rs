//! The supervisor of a process tells the other host at once when the process is gone. No time is compared with
//! anything but the silence timeout, which is long here.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;
use testbed::pair::{Host, LOG_LINK, PairEvent, Part, Why};
use testbed::{TestbedError, supervisor};
use tests::pair::{Clients, Process, Rig};
use tests::patience::wait_until;
use tests::program::understudy;
use tests::wait_for;
use vmm::kvm::pidfd;
use vmm::link::now;

/// Starts a protected VM: primary on A, backup on B, with additional `options`.
fn protected(rig: &Rig, options: &[&str]) -> [Process; 2] {
    let mut primary = rig.start(Part::Primary, Host::A, options);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start(Part::Backup, Host::B, options);
    wait_for!(primary, PairEvent::Protected);
    wait_for!(backup, PairEvent::Following);
    [primary, backup]
}

fn silence_ns(rig: &Rig) -> u64 {
    Duration::from_millis(rig.silence_ms()).as_nanos() as u64
}

/// Returns the supervisor of `process`, which must have one.
fn supervisor(process: &Process) -> Pid {
    wait_until("a supervisor", || supervisor::of(process.pid()).is_some());
    supervisor::of(process.pid()).expect("it had one just now")
}

fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status
        .rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.trim().chars().next(), None | Some('Z')))
}

/// Returns what the descriptors of a process refer to.
fn open_files(pid: Pid) -> Vec<String> {
    let link = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap_or_default();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    entries.flatten().map(|entry| link(entry).to_string_lossy().into_owned()).collect()
}

#[test]
fn killed_primary_is_replaced_long_before_the_silence_timeout() {
    let rig = Rig::patient();
    let [mut primary, mut backup] = protected(&rig, &[]);
    let most_ns = silence_ns(&rig) / 2;
    let ((), clients) = Clients::during(&rig, |clients| {
        let killed_ns = now().as_nanos();
        primary.signal(Signal::SIGKILL);
        wait_for!(backup, PairEvent::PrimaryGone { whole: true });
        let live_ns = wait_for!(backup, PairEvent::WentLive).t_ns;
        clients.wait_until_served();
        let served_ns = now().as_nanos();
        println!("live after {} us", (live_ns - killed_ns) / 1000);
        assert!(served_ns - killed_ns < most_ns, "an outage of {} ns", served_ns - killed_ns);
        assert_eq!(primary.end().code, None, "the signal ends the process that the user started");
    });
    assert_eq!(clients.host_sequence(), [Host::A, Host::B]);
    assert_eq!(backup.state().term, 2);
    // The notice of the dead process deposes nobody after this: its incarnation is gone.
    let mut next = rig.start(Part::Backup, Host::A, &[]);
    wait_for!(next, PairEvent::Following);
    wait_for!(backup, PairEvent::Protected);
    assert_eq!(backup.count(|event| matches!(event, PairEvent::BackupGone { .. })), 0);
}

#[test]
fn primary_goes_on_alone_long_before_the_silence_timeout_when_its_backup_is_killed() {
    let rig = Rig::patient();
    let [mut primary, backup] = protected(&rig, &[]);
    let most_ns = silence_ns(&rig) / 2;
    let ((), clients) = Clients::during(&rig, |clients| {
        let killed_ns = now().as_nanos();
        backup.signal(Signal::SIGKILL);
        wait_for!(primary, PairEvent::BackupGone { .. });
        let alone_ns = wait_for!(primary, PairEvent::TermWon).t_ns;
        clients.wait_until_served();
        println!("alone after {} us", (alone_ns - killed_ns) / 1000);
        let served_ns = now().as_nanos();
        assert!(served_ns - killed_ns < most_ns, "an outage of {} ns", served_ns - killed_ns);
    });
    assert_eq!(clients.host_sequence(), [Host::A]);
}

#[test]
fn vm_without_its_supervisor_goes_on_says_so_and_is_replaced_after_the_silence_timeout() {
    let rig = Rig::default();
    let [mut primary, mut backup] = protected(&rig, &[]);
    assert_eq!(primary.status()["supervisor"], "watching");
    let ((), _) = Clients::during(&rig, |clients| {
        kill(supervisor(&primary), Signal::SIGKILL).expect("it can be killed");
        let lost = wait_for!(primary, PairEvent::SupervisorLost { .. });
        let PairEvent::SupervisorLost { why } = lost.event else { unreachable!() };
        assert!(why.contains("signal: 9"), "{why}");
        wait_until("the status", || primary.status()["supervisor"] == "gone");
        primary.wait_for_words("the supervisor is gone");
        let lines = primary.words();
        let about = lines.iter().filter(|line| line.contains("the supervisor is gone"));
        assert_eq!(about.count(), 1, "{lines:?}");
        clients.wait_until_served();
        assert_eq!(primary.status()["role"], "protected");
        let killed_ns = now().as_nanos();
        primary.signal(Signal::SIGKILL);
        let noticed = wait_for!(backup, PairEvent::PrimarySilent { whole: true });
        assert!(noticed.t_ns - killed_ns > silence_ns(&rig) / 2, "only the silence tells");
        wait_for!(backup, PairEvent::WentLive);
        clients.wait_until_served();
    });
}

#[test]
fn vm_that_is_to_have_no_supervisor_has_none() {
    let rig = Rig::default();
    let [primary, mut backup] = protected(&rig, &["--no-supervisor"]);
    assert_eq!(primary.status()["supervisor"], "off");
    assert_eq!(supervisor::of(primary.pid()), None);
    primary.signal(Signal::SIGKILL);
    wait_for!(backup, PairEvent::PrimarySilent { whole: true });
    wait_for!(backup, PairEvent::WentLive);
}

#[test]
fn supervisor_has_no_descriptor_of_the_vm_and_no_terminal() {
    let rig = Rig::patient();
    let [primary, _backup] = protected(&rig, &[]);
    let pid = supervisor(&primary);
    let open = open_files(pid);
    // Standard input is the socket pair, standard output the pidfd, standard error the pipe; the packet socket;
    // and since Linux 6.9 the pidfd of the vCPU thread.
    let count = |part: &str| open.iter().filter(|target| target.contains(part)).count();
    let pidfds = count("pidfd");
    assert!((1..=2).contains(&pidfds), "{open:?}");
    assert_eq!((open.len(), count("socket:"), count("pipe:")), (3 + pidfds, 2, 1), "{open:?}");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    assert_eq!(fields[3], pid.to_string(), "a session of its own: {stat}");
    assert_eq!(fields[4], "0", "no terminal: {stat}");
}

/// Starts the supervisor of this process, as a VM's process does.
fn start_supervisor(rig: &Rig, socket: UnixDatagram, process: OwnedFd) -> Child {
    let mut command = Command::new(understudy());
    command.args(["supervise", "--interface", LOG_LINK, "--peer", Host::B.log_mac()]);
    command.args(["--vm-id", "0"]);
    command.stdin(OwnedFd::from(socket)).stdout(process);
    let start = || command.spawn().map_err(TestbedError::client("starting a supervisor"));
    rig.scene.network.host(Host::A).enter(start).expect("it starts")
}

/// The VM's process does not wait for its supervisor to be ready, and may itself have inherited descriptors.
#[test]
fn supervisor_that_is_told_of_the_thread_before_it_runs_ends_with_that_thread() {
    let rig = Rig::patient();
    for is_descriptor_inherited in [false, true] {
        let inherited = File::open("/dev/null").unwrap();
        if is_descriptor_inherited {
            fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        }
        let ((number, is_told), (end, may_end)) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            number.send(pidfd::this_thread()).unwrap();
            let _ = may_end.recv();
        });
        let number = is_told.recv().unwrap();
        // Before Linux 6.9, threads have no pidfd.
        if pidfd::of_thread(number).is_err() {
            return;
        }
        let (vm, socket) = UnixDatagram::pair().unwrap();
        vm.send(&[&[3], &number.to_le_bytes()[..]].concat()).unwrap();
        let mut supervisor = start_supervisor(&rig, socket, pidfd::of_this_process().unwrap());
        let pid = Pid::from_raw(supervisor.id().cast_signed());
        let sockets = || open_files(pid).iter().filter(|file| file.contains("socket:")).count();
        wait_until("the supervisor to be ready", || {
            supervisor.try_wait().unwrap().is_some() || sockets() == 2
        });
        assert_eq!(supervisor.try_wait().unwrap(), None, "the thread runs");
        drop(end);
        thread.join().unwrap();
        wait_until("the supervisor to end", || supervisor.try_wait().unwrap().is_some());
    }
}

#[test]
fn orderly_stop_of_all_processes_sends_no_notice_and_leaves_no_supervisor() {
    let rig = Rig::patient();
    let [mut primary, mut backup] = protected(&rig, &[]);
    let supervisors = [&primary, &backup].map(supervisor);
    // systemd sends the signal that ends a service to every process of it.
    for pid in supervisors {
        kill(pid, Signal::SIGTERM).expect("it runs");
    }
    primary.order("stop");
    wait_for!(backup, PairEvent::Halted { why: Why::PrimaryStopped, .. });
    assert_eq!([primary.end().code, backup.end().code], [Some(0), Some(0)]);
    wait_until("both supervisors to end", || !supervisors.into_iter().any(is_running));
    for process in [&mut primary, &mut backup] {
        let is_loss = |event: &PairEvent| {
            matches!(
                event,
                PairEvent::PrimaryGone { .. }
                    | PairEvent::BackupGone { .. }
                    | PairEvent::SupervisorLost { .. }
            )
        };
        assert_eq!(process.count(is_loss), 0, "{}", process.transcript());
    }
}

#[test]
fn supervisor_started_by_hand_says_that_it_is_not_for_users() {
    let peer = "02:00:00:00:00:01";
    let args = ["supervise", "--interface", "lo", "--peer", peer, "--vm-id", "0"];
    let output = tests::program::run(&args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("is started by 'understudy primary'"), "{text}");
}
