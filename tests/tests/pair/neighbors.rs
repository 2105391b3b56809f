//! Several VMs on one host: what only one of them may have is refused to another one, and the message names who has it.

use nix::sys::signal::Signal;
use std::path::Path;
use testbed::pair::{Host, LOG_LINK, PairEvent, PairVm, Part};
use testbed::{TAP, TestbedError};
use tests::pair::Rig;
use tests::program::{json, run};
use tests::schema;
use tests::wait_for;

/// Starts a second VM on host A with these options, and requires that it is refused with exit code 4 and one line with
/// `text`.
fn is_refused(rig: &Rig, [id, tap, mac, status]: [&str; 4], text: &str) {
    let (key, witness) = (rig.path("key"), rig.path("witness"));
    let [key, witness] = [&key, &witness].map(|path| path.to_str().expect("paths are UTF-8"));
    let args = [
        "primary",
        "--quiet",
        "--interface",
        LOG_LINK,
        "--peer",
        Host::B.log_mac(),
        "--key",
        key,
        "--witness",
        witness,
        "--vm-id",
        id,
        "--tap",
        tap,
        "--mac",
        mac,
        "--status",
        status,
    ];
    let start = || Ok::<_, TestbedError>(run(&args));
    let output = rig.scene.network.host(Host::A).enter(start).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{args:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
    assert!(errors.starts_with("understudy: ") && errors.contains(text), "{args:?}: {errors}");
}

#[test]
fn what_another_vm_has_is_refused_and_its_process_is_named() {
    let rig = Rig::patient();
    let second = PairVm::first(2).last().expect("two");
    rig.scene.network.add_vm(second).unwrap();
    let mut first = rig.start(Part::Primary, Host::A, &[]);
    wait_for!(first, PairEvent::TermWon);
    let (mac, own) = (PairVm::default().mac().to_string(), rig.path("own.sock"));
    let (tap, other_mac, own) = (second.tap(), second.mac().to_string(), own.to_str().unwrap());
    let holder = format!("is in use by process {} (VM 0)", first.pid());
    let text = |what: &str| format!("{what} {holder}");
    let of_id = text(&format!("VM 0 (--vm-id) on the log interface {LOG_LINK}"));
    is_refused(&rig, ["0", &tap, &other_mac, own], &of_id);
    let socket = first.socket().to_owned();
    // The process that has opened the socket is the VM's opener.
    let of_socket = format!("{socket} (--status) is in use by process ");
    is_refused(&rig, ["1", &tap, &other_mac, &socket], &of_socket);
    is_refused(&rig, ["1", TAP, &other_mac, own], &text(&format!("tap {TAP}")));
    is_refused(&rig, ["1", &tap, &mac, own], &text("on the bridge of this VM's tap"));
    // None of this has changed anything for the first one, and what it had is free once it was killed.
    first.wait_for_role("alone");
    first.signal(Signal::SIGKILL);
    let mut again = rig.start(Part::Backup, Host::A, &[]);
    again.wait_for_words("no frame came from");
    assert_eq!(again.status()["role"], "seeking");
}

/// Runs `understudy list --json` for the sockets in `folder`.
fn list(folder: &Path) -> (Option<i32>, serde_json::Value) {
    let output = run(&["list", "--json", folder.to_str().unwrap()]);
    (output.status.code(), json(&String::from_utf8(output.stdout).unwrap()))
}

#[test]
fn list_shows_vms_that_run_stand_still_and_are_gone() {
    let rig = Rig::patient();
    let folder = rig.path("run");
    let socket = folder.join("vm-0.sock");
    let mut primary = rig.start(Part::Primary, Host::A, &["--status", socket.to_str().unwrap()]);
    wait_for!(primary, PairEvent::TermWon);
    let state = |expected: &str, code| {
        let (found, report) = list(&folder);
        schema::fits("list", std::slice::from_ref(&report));
        assert_eq!((found, &report["vms"][0]["state"]), (Some(code), &expected.into()), "{report}");
        report["vms"][0].clone()
    };
    let running = state("running", 0);
    assert_eq!(running["vm_id"], 0, "{running}");
    primary.signal(Signal::SIGSTOP);
    state("silent", 15);
    primary.signal(Signal::SIGCONT);
    primary.signal(Signal::SIGKILL);
    primary.end();
    state("stale", 0);
}
