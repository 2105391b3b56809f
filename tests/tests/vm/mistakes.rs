//! Wrong options and unsuitable hosts: a one-line error message and a documented exit code.

use logchan::host_profile::HostProfile;
use logchan::log_header::LogHeader;
use std::fs;
use testbed::{Namespace, command};
use tests::patience::wait_until;
use tests::program::{fails, json, run, write_private};
use tests::schema;
use vmm::boot::cpu_features::ModelName;
use vmm::boot::image::GuestImage;
use vmm::boot::sweep::sweep;

#[test]
fn missing_or_wrong_kvm_device_names_the_remedy() {
    fails(&["run", "--kvm", "/dev/no-kvm"], 3, "load KVM");
    fails(&["run", "--kvm", "/dev/null"], 3, "can't be used as KVM");
    let output = run(&["doctor", "--kvm", "/dev/no-kvm"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAIL"));
}

#[test]
fn kvm_without_permission_names_the_remedy() {
    // Run without privileges: setpriv(1) of util-linux drops root's.
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("kvm");
    fs::write(&node, b"").unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(&node, permissions).unwrap();
    let program = folder.path().join("understudy");
    fs::copy(tests::program::understudy(), &program).unwrap();
    let readable: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), readable.clone()).unwrap();
    fs::set_permissions(&program, readable).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
        .arg(&program)
        .args(["run", "--kvm"])
        .arg(&node)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("no permission to open"), "{errors}");
}

#[test]
fn invalid_vm_sizes_are_usage_errors() {
    fails(&["run", "--vcpus", "2"], 2, "not replayable");
    fails(&["run", "--memory", "1"], 2, "too small");
    fails(&["run", "--memory", "9999999"], 2, "too large");
    fails(&["run", "--for=-1"], 2, "positive");
}

#[test]
fn missing_busy_or_wrong_tap_names_the_remedy() {
    fails(&["run", "--tap", "no-such-tap0"], 4, "ip tuntap add");
    fails(&["run", "--tap", "lo"], 4, "not a tap");
    let namespace = Namespace::new("busy").unwrap();
    namespace.add_tap("tap0", None).unwrap();
    namespace
        .enter(|| {
            let program = tests::program::understudy();
            let first = testbed::VmProcess::spawn(&program, &["run", "--tap", "tap0", "--quiet"])?;
            wait_until("the first VM's carrier", || {
                let shown = command("ip", &["link", "show", "tap0"]).unwrap();
                shown.contains("LOWER_UP")
            });
            fails(&["run", "--tap", "tap0"], 4, "tap tap0 is in use by process");
            first.finish()
        })
        .unwrap();
}

#[test]
fn files_that_are_not_guests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest");
    let path_text = path.to_str().unwrap();
    fs::write(&path, b"#!/bin/sh\n").unwrap();
    fails(&["run", "--guest", path_text], 5, "ELF");
    let own = tests::program::understudy();
    fails(&["run", "--guest", own.to_str().unwrap()], 5, "guest image");
    fails(&["run", "--guest", "/no/such/file"], 5, "/no/such/file");
}

#[test]
fn forbidden_instruction_is_refused_with_name_and_address() {
    // Replaces the reference guest's RDTSC by RDRAND RAX.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.elf");
    let mut image = vmm::cli::options::reference_guest().to_vec();
    let report = sweep(&GuestImage::from_bytes("reference", image.clone()).unwrap(), ModelName::V1);
    let rdtsc = report.findings.iter().find(|found| found.mnemonic.eq_ignore_ascii_case("rdtsc"));
    let rdtsc = rdtsc.expect("the reference guest has an RDTSC");
    let at = rdtsc.file_offset as usize;
    image[at..at + 4].copy_from_slice(&[0x48, 0x0F, 0xC7, 0xF0]);
    fs::write(&path, &image).unwrap();
    let output = run(&["run", "--guest", path.to_str().unwrap(), "--for", "0.1"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{errors}");
    let address = format!("{:#x}", rdtsc.address);
    assert!(errors.contains("rdrand") && errors.contains(&address), "{errors}");
    assert!(errors.contains("--forbidden warn"), "{errors}");
}

#[test]
fn files_that_are_not_logs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("x.ulog");
    let text = log.to_str().unwrap();
    fails(&["replay", "/no/such.ulog"], 6, "/no/such.ulog");
    write_private(&log, b"this is no log at all, but long enough to be looked at as one");
    fails(&["replay", text], 6, text);
    fails(&["log", "stat", text], 6, text);
    fails(&["log", "dump", text], 6, text);
    write_private(&log, b"");
    fails(&["replay", text], 6, "");

    fails_with_header(&log, |bytes| bytes[8] = 99, 6, "version");
    fails_with_header(&log, |bytes| bytes[20] ^= 1, 6, "");
    fails_with_header(&log, |bytes| bytes.truncate(30), 6, "");
    fails(&["record", "--log", text, "--for", "0.1"], 6, "exists");
}

/// Edits the header of a short recording with `edit`, replays it and requires exit code `code` and
/// `text`.
fn fails_with_header(log: &std::path::Path, edit: impl Fn(&mut Vec<u8>), code: i32, text: &str) {
    let mut bytes = Vec::new();
    header().encode(&mut bytes);
    edit(&mut bytes);
    write_private(log, &bytes);
    fails(&["replay", log.to_str().unwrap()], code, text);
}

fn header() -> LogHeader {
    LogHeader {
        recorded_at_unix_s: 1,
        memory_bytes: 64 << 20,
        vcpus: 1,
        machine_schema: vmm::checkpoint::MACHINE_SCHEMA,
        nic_mac: [2, 0, 0, 0, 0, 1],
        guest_digest: 1,
        cpu_digest: 1,
        host_profile: HostProfile::UNKNOWN,
        disks: Vec::new(),
        guest_name: String::from("guest"),
        cpu_name: String::from("Some Other CPU"),
    }
}

/// Returns the digest of the CPU model v1, as `doctor` prints it: PROCESSOR (DIGEST).
fn cpu_digest_of_this_host() -> u64 {
    let checks = json(&String::from_utf8_lossy(&run(&["doctor", "--json"]).stdout));
    let model =
        checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == "cpu model v1");
    let found = model.unwrap()["found"].as_str().unwrap();
    let digest = found.rsplit_once('(').unwrap().1.trim_end_matches(')');
    u64::from_str_radix(digest, 16).unwrap()
}

#[test]
fn cpu_model_runs_or_is_refused_in_one_line_as_doctor_says() {
    let doctor = run(&["doctor", "--json"]);
    let doctor = json(&String::from_utf8_lossy(&doctor.stdout));
    schema::fits("doctor", std::slice::from_ref(&doctor));
    for name in ModelName::ALL.map(ModelName::as_str) {
        let row = format!("cpu model {name}");
        let checks = doctor["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == row.as_str()).unwrap();
        let arguments = ["run", "--cpu-model", name, "--for", "0.2", "--quiet"];
        if check["status"] == "ok" {
            let output = run(&arguments);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        } else {
            fails(&arguments, 7, &format!("this host does not offer CPU model {name}: it"));
        }
    }
    fails(&["run", "--cpu-model", "v4"], 2, "v1, v2, v3");
}

#[test]
fn log_of_another_cpu_model_kind_of_host_or_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("x.ulog");
    fails_with_header(&log, |_bytes| (), 7, "Some Other CPU");
    fails_with_header(&log, |_bytes| (), 7, "but this host offers v1: ");
    let theirs = LogHeader { cpu_digest: cpu_digest_of_this_host(), ..header() };
    let mut bytes = Vec::new();
    theirs.encode(&mut bytes);
    write_private(&log, &bytes);
    let why = "another kind of host: KVM emulates kernel code: unknown there, ";
    fails(&["replay", log.to_str().unwrap()], 7, why);
    let mut bytes = Vec::new();
    LogHeader { machine_schema: 999, ..header() }.encode(&mut bytes);
    write_private(&log, &bytes);
    fails(&["replay", log.to_str().unwrap()], 6, "schema 999");
}
