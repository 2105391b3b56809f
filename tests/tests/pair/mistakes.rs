//! Mistakes with `understudy primary` and `understudy backup`: a one-line error message and a documented exit code.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;
use testbed::pair::{Host, LOG_LINK, PairEvent, Part};
use testbed::{TAP, TestbedError};
use tests::guests;
use tests::pair::{Process, Rig};
use tests::program::{json, run, understudy};
use tests::wait_for;
use vmm::link::key_file;

/// Starts primary and backup, each on its host, with `options`, which replace the default ones of the
/// same name. Requires exit code `code` and one line with `text`.
fn fails(rig: &Rig, options: &[&str], code: i32, text: &str) {
    fails_with(run, rig, options, code, text);
}

/// Like [`fails`], with a process started by `start`.
fn fails_with(
    start: impl Fn(&[&str]) -> Output + Sync,
    rig: &Rig,
    options: &[&str],
    code: i32,
    text: &str,
) {
    for (part, host) in [("primary", Host::A), ("backup", Host::B)] {
        let (key, witness, status) = (rig.path("key"), rig.path("witness"), rig.path("status"));
        let [key, witness, status] =
            [&key, &witness, &status].map(|path| path.to_str().expect("paths are UTF-8"));
        let common = [
            ("--tap", TAP),
            ("--interface", LOG_LINK),
            ("--peer", host.other().log_mac()),
            ("--key", key),
            ("--witness", witness),
            ("--status", status),
        ];
        let mut args = vec![part, "--quiet"];
        for (name, value) in common {
            if !options.contains(&name) {
                args.extend([name, value]);
            }
        }
        args.extend(options);
        let output =
            rig.scene.network.host(host).enter(|| Ok::<_, TestbedError>(start(&args))).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
        assert!(errors.starts_with("understudy: ") && errors.contains(text), "{args:?}: {errors}");
    }
}

#[test]
fn missing_option_is_named_in_one_line() {
    let rig = Rig::patient();
    fails(&rig, &["--tap", "tap9"], 4, "tap9");
    fails(&rig, &["--interface", "eth9"], 4, "interface eth9 does not exist");
    fails(&rig, &["--witness", "/no/such/folder"], 2, "witness /no/such/folder");
    fails(
        &rig,
        &["--witness", "/proc/version"],
        2,
        "give a folder on storage that both hosts reach",
    );
    fails(&rig, &["--key", "/no/such/key"], 12, "/no/such/key");
    fails(&rig, &["--guest", "/no/such/guest"], 5, "/no/such/guest");
    fails(&rig, &["--guest", "/proc/version"], 5, "/proc/version");
    fails(&rig, &["--memory", "1"], 2, "1 MiB of guest memory is too small");
    fails(&rig, &["--memory", "4096"], 2, "too large");
    fails(&rig, &["--vcpus", "2"], 2, "only one vCPU is supported");
    fails(&rig, &["--kvm", "/no/such/kvm"], 3, "/no/such/kvm");
}

#[test]
fn metrics_that_can_not_be_served_are_named_in_one_line() {
    let rig = Rig::patient();
    for address in ["0.0.0.0:9464", "10.77.0.1:9464", "[::]:9464"] {
        fails(&rig, &["--metrics", address], 2, "is no loopback address");
    }
    for text in ["9464", "localhost:9464", "metrics.sock"] {
        fails(&rig, &["--metrics", text], 2, "give 127.0.0.1:PORT, [::1]:PORT or the path");
    }
    fails(&rig, &["--metrics", "/proc/version"], 2, "it exists, and is not a socket");
    fails(&rig, &["--metrics", "/proc/none/metrics.sock"], 2, "/proc/none/metrics.sock: ");
    let path = rig.path("taken.sock");
    let taken = UnixListener::bind(&path).unwrap();
    let text = "another process listens there";
    fails(&rig, &["--metrics", path.to_str().unwrap()], 2, text);
    drop(taken);
    let ports = Host::ALL.map(|host| {
        let bind = || Ok::<_, TestbedError>(TcpListener::bind("127.0.0.1:9464").unwrap());
        rig.scene.network.host(host).enter(bind).unwrap()
    });
    fails(&rig, &["--metrics", "127.0.0.1:9464"], 2, text);
    drop(ports);
}

/// Such a backup would follow the log, and could not continue the VM.
#[test]
fn backup_with_another_machine_is_refused() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    for option in [["--memory", "32"], ["--mac", "52:54:00:77:00:03"]] {
        let mut backup = rig.start(Part::Backup, Host::B, &option);
        let refused = wait_for!(backup, PairEvent::PeerRefused { .. });
        let PairEvent::PeerRefused { reason } = refused.event else { unreachable!("awaited") };
        assert!(reason.contains("memory size, MAC address"), "{option:?}: {reason}");
        backup.signal(Signal::SIGTERM);
        backup.end();
    }
    assert_eq!(primary.count(|event| matches!(event, PairEvent::SyncBegun)), 0);
    let _backup = rig.start(Part::Backup, Host::B, &[]);
    wait_for!(primary, PairEvent::Protected);
}

#[test]
fn host_with_too_little_memory_is_reported() {
    let rig = Rig::patient();
    let meminfo = rig.path("meminfo");
    std::fs::write(&meminfo, "MemTotal: 65536 kB\nMemAvailable: 32768 kB\n").unwrap();
    // Simulates a small host in its own mount namespace.
    let on_small_host = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /proc/meminfo && exec \"$@\""]);
        command.arg(&meminfo).arg(understudy()).args(args).output().unwrap()
    };
    let text = "64 MiB of guest memory, but the host has only 32 MiB available";
    fails_with(on_small_host, &rig, &["--memory", "64"], 2, text);
}

#[test]
fn vm_that_was_booted_before_is_refused() {
    let rig = Rig::patient();
    let mut first = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(first, PairEvent::TermWon);
    let mut second = rig.start(Part::Primary, Host::B, &[]);
    // It may have connected to the first primary before the witness answered, and have reported that
    // too.
    let ended = second.end();
    assert_eq!(ended.code, Some(14), "{ended:?}");
    let last = ended.words.last().expect("it says why");
    assert!(last.contains("this VM was booted before (the witness has term 1)"), "{ended:?}");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.end().code, Some(0));
}

/// Runs `understudy witness check` on the rig's witness. Returns the exit code and the JSON object.
fn check_witness(rig: &Rig, options: &[&str]) -> (Option<i32>, Value) {
    let folder = rig.path("witness");
    let mut args = vec!["witness", "check", "--json", "--witness", folder.to_str().unwrap()];
    args.extend(options);
    let output = run(&args);
    assert!(output.stderr.is_empty(), "{output:?}");
    (output.status.code(), json(&String::from_utf8(output.stdout).unwrap()))
}

#[test]
fn witness_check_shows_identity_and_claims_and_what_is_wrong() {
    let rig = Rig::patient();
    let folder = rig.path("witness");
    let listing =
        || fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let (code, report) = check_witness(&rig, &[]);
    assert_eq!(
        (code, &report["usable"], &report["identity"]),
        (Some(0), &true.into(), &Value::Null)
    );
    assert!(listing().is_empty(), "a check leaves nothing behind");
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let (key, other_key) = (rig.path("key"), rig.path("other-key"));
    key_file::create(&other_key).unwrap();
    let [key, other_key] = [&key, &other_key].map(|path| path.to_str().unwrap());
    let before = listing();
    let identity = fs::read_to_string(folder.join("understudy-witness")).unwrap();
    for (options, authentic) in [(vec![], None), (vec!["--key", key], Some(true))] {
        let (code, report) = check_witness(&rig, &options);
        assert_eq!((code, &report["identity"]), (Some(0), &identity.trim().into()), "{report}");
        let claim = &report["claims"][0];
        assert_eq!((&claim["vm"], &claim["term"]), (&0.into(), &1.into()), "{report}");
        assert_eq!(claim["authentic"].as_bool(), authentic, "{report}");
    }
    let (code, report) = check_witness(&rig, &["--key", other_key]);
    assert_eq!((code, &report["usable"]), (Some(3), &false.into()), "{report}");
    assert!(report.to_string().contains("does not authenticate"), "{report}");
    assert_eq!(listing(), before);
    let fifo = folder.join("vm-0.term-9");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, report) = check_witness(&rig, &["--key", key]);
    assert!(code == Some(3) && report.to_string().contains("vm-0.term-9 is a FIFO"), "{report}");
    drop(primary);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let (code, report) = check_witness(&rig, &["--key", key]);
    assert!(code == Some(3) && report.to_string().contains("chmod o-w"), "{report}");
    fails(&rig, &[], 2, "chmod o-w");
    let output = run(&["witness", "check", "--witness", "/no/such/folder"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAIL  folder"), "{output:?}");
}

/// Starts a backup that does not match the primary and checks that both report it once, with `text`,
/// and that the VM continues.
fn require_mismatch(rig: &Rig, key: Option<&PathBuf>, options: &[&str], text: [&str; 2]) {
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(primary, PairEvent::TermWon);
    let mut backup = rig.start_with(Part::Backup, Host::B, key, options);
    backup.wait_for_words(text[1]);
    primary.wait_for_words(text[0]);
    let said = |process: &mut Process, text: &str| {
        process.words().iter().filter(|line| line.contains(text)).count()
    };
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((said(&mut primary, text[0]), said(&mut backup, text[1])), (1, 1), "said once");
    assert_eq!(primary.status()["role"], "alone");
    assert_eq!(backup.status()["role"], "seeking");
    for process in [&mut primary, &mut backup] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end().code, Some(0), "{}", process.transcript());
    }
}

#[test]
fn different_silence_timeout_is_reported() {
    let rig = Rig::patient();
    let other = (rig.silence_ms() - 200).to_string();
    require_mismatch(
        &rig,
        Some(&rig.path("key")),
        &["--silence-ms", &other],
        ["(--silence-ms)"; 2],
    );
}

#[test]
fn different_guest_image_is_reported() {
    let rig = Rig::patient();
    let guest = rig.path("guest.elf");
    std::fs::write(&guest, guests::HARD).unwrap();
    let options = ["--guest", guest.to_str().unwrap()];
    require_mismatch(&rig, Some(&rig.path("key")), &options, ["(--guest, "; 2]);
}

#[test]
fn different_key_is_reported() {
    let rig = Rig::patient();
    let other = rig.path("other");
    key_file::create(&other).unwrap();
    require_mismatch(&rig, Some(&other), &[], ["another key"; 2]);
}

#[test]
fn one_insecure_side_is_reported() {
    let rig = Rig::patient();
    require_mismatch(
        &rig,
        None,
        &[],
        ["one side runs with --insecure and the other one without"; 2],
    );
}

#[test]
fn absent_peer_is_reported_once() {
    let rig = Rig::patient();
    let mut primary = rig.start(Part::Primary, Host::A, &[]);
    primary.wait_for_words("no frame came from");
    primary.wait_for_role("alone");
    drop(primary);
    let mut backup = rig.start(Part::Backup, Host::B, &[]);
    backup.wait_for_words("no frame came from");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(backup.words().len(), 1, "{}", backup.transcript());
    assert_eq!(backup.status()["role"], "seeking");
}
