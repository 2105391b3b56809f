//! Tests of the system calls that the threads of disks make. In a copy of this test program, because a sandbox is for
//! good, and a call that it lacks ends the process.

use super::tests::{Client, open, random, random_requests};
use super::*;
use crate::sandbox::{self, CoreDumps, SandboxConfig};
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
        _ => Writes::Overlay,
    };
    sandbox::start(SandboxConfig { user: None, core_dumps: CoreDumps::Forbidden }).unwrap();
    let disks = open(Path::new(path), writes);
    let mut model = vec![0; disks.info()[0].sectors as usize * SECTOR_BYTES as usize];
    let mut client = Client::new(disks);
    random_requests(&mut client, &mut model, &mut random());
    assert_eq!(client.flush(), DiskStatus::Done);
    assert_eq!(client.disks.failed(0), 0);
}

/// Uses the image `path`, which has nothing but zeros, in a sandbox: first with an overlay, which leaves it so.
fn runs_in_the_sandbox(path: &Path) {
    for writes in ["overlay", "in-place"] {
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
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn thread_of_a_qcow2_image_works_in_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let mut made = Command::new("qemu-img");
    made.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("1M");
    assert!(made.status().unwrap().success());
    runs_in_the_sandbox(&path);
}
