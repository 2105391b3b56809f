//! Tests of the system calls that the threads of disks make. In a copy of this test program, because a sandbox is for
//! good, and a call that it lacks ends the process.

use super::copy_tests::until;
use super::tests::{Client, open, random, random_requests};
use super::*;
use crate::sandbox::{self, CoreDumps, SandboxConfig};
use logchan::disk_copy::DiskCopy;
use logchan::ids::Claimant;
use replication::boundary::DiskStatus;
use std::fs;
use std::process::Command;

/// Tells a copy of this test program which image to use, and how.
const IMAGE: &str = "UNDERSTUDY_TEST_IMAGE";

/// The copy's part; in the test program itself it does nothing.
#[test]
fn requests_in_a_copy_of_this_program() {
    let Ok(text) = std::env::var(IMAGE) else { return };
    let (writes, path) = text.split_once(' ').unwrap();
    let writes = match writes {
        "in-place" => Writes::InPlace,
        "mirrored" => Writes::Mirrored(VmId(1)),
        _ => Writes::Overlay,
    };
    sandbox::start(SandboxConfig { user: None, core_dumps: CoreDumps::Forbidden }).unwrap();
    let disks = open(Path::new(path), writes);
    let mut model = vec![0; disks.info()[0].sectors as usize * SECTOR_BYTES as usize];
    let mut client = Client::new(disks);
    random_requests(&mut client, &mut model, &mut random());
    assert_eq!(client.flush(), DiskStatus::Done);
    assert_eq!(client.disks.failed(0), 0);
    if let Writes::Mirrored(_) = writes {
        client.disks.hold(Claimant(1), None);
        client.disks.begin_copy();
        let had = DiskCopy::Have { disk: 0, generation: None, extents: &[0; 512] };
        client.disks.copy_in(&had).unwrap();
        until(|| matches!(client.disks.copy_out(), Some(DiskCopy::Digests { .. })));
        until(|| client.disks.keep_state() == KeepState::Done);
    }
}

/// Uses the image `path`, which has nothing but zeros, in a sandbox: first with an overlay, which leaves it so.
fn runs_in_the_sandbox(path: &Path) {
    run_in_the_sandbox(path, &["overlay", "in-place"]);
}

fn run_in_the_sandbox(path: &Path, ways: &[&str]) {
    for writes in ways {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::sandbox_tests::requests_in_a_copy_of_this_program"])
            .env(IMAGE, format!("{writes} {}", path.display()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{writes}: {}: {text}", output.status);
    }
}

#[test]
fn thread_of_a_raw_image_works_in_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    runs_in_the_sandbox(&path);
}

#[test]
fn thread_of_a_mirrored_image_works_in_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    run_in_the_sandbox(&path, &["mirrored"]);
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn thread_of_a_qcow2_image_works_in_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let mut made = Command::new("qemu-img");
    made.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("1M");
    assert!(made.status().unwrap().success());
    runs_in_the_sandbox(&path);
}
