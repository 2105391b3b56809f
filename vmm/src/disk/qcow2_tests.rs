//! Tests with images that `qemu-img` makes and checks.

use super::tests::{Client, open, random, random_requests};
use super::*;
use replication::boundary::DiskStatus;
use std::fs;
use std::process::Command;

/// Runs `qemu-img` in `folder`, and returns whether it ended well and what it said.
fn qemu_img(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("qemu-img").current_dir(folder).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn made(folder: &Path, arguments: &[&str]) {
    let (ended_well, text) = qemu_img(folder, arguments);
    assert!(ended_well, "{arguments:?}: {text}");
}

/// Returns the contents of the image `name`, as qemu-img reads it.
fn contents(folder: &Path, name: &str) -> Vec<u8> {
    made(folder, &["check", name]);
    made(folder, &["convert", "-f", "qcow2", "-O", "raw", name, "converted"]);
    fs::read(folder.join("converted")).unwrap()
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn image_with_backing_files_is_read_and_written_and_stays_valid() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // The raw file is shorter than the images above it, whose ends are then zeros.
    let mut model = vec![0; 3 << 20];
    random.fill(&mut model);
    fs::write(at.join("base"), &model).unwrap();
    model.resize(4 << 20, 0);
    made(at, &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "middle", "4M"]);
    made(at, &["create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "top.qcow2"]);
    let backing = ["base", "middle"].map(|name| (name, fs::read(at.join(name)).unwrap()));

    let mut client = Client::new(open(&at.join("top.qcow2"), Writes::InPlace));
    random_requests(&mut client, &mut model, &mut random);
    assert_eq!(client.flush(), DiskStatus::Done);
    drop(client);
    assert!(contents(at, "top.qcow2") == model);
    for (name, before) in backing {
        assert!(fs::read(at.join(name)).unwrap() == before, "{name} has changed");
    }

    // With an overlay, the image stays as it is, too.
    let before = fs::read(at.join("top.qcow2")).unwrap();
    let mut client = Client::new(open(&at.join("top.qcow2"), Writes::Overlay));
    random_requests(&mut client, &mut model, &mut random);
    drop(client);
    assert!(fs::read(at.join("top.qcow2")).unwrap() == before);
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn flushed_write_is_in_the_file_while_the_image_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    made(at, &["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    let mut client = Client::new(open(&at.join("a.qcow2"), Writes::InPlace));
    assert_eq!(client.write(100, &[7; 1024]), DiskStatus::Done);
    assert_eq!(client.flush(), DiskStatus::Done);
    // What a power cut would leave.
    fs::copy(at.join("a.qcow2"), at.join("copy")).unwrap();
    let copy = contents(at, "copy");
    assert_eq!(copy[100 * 512..102 * 512], [7; 1024]);
    drop(client);
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn snapshot_inside_an_image_keeps_its_contents() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut model = vec![0; 2 << 20];
    random.fill(&mut model);
    fs::write(at.join("raw"), &model).unwrap();
    made(at, &["convert", "-q", "-O", "qcow2", "raw", "a.qcow2"]);
    made(at, &["snapshot", "-c", "before", "a.qcow2"]);
    let mut client = Client::new(open(&at.join("a.qcow2"), Writes::InPlace));
    random_requests(&mut client, &mut model, &mut random);
    drop(client);
    assert!(contents(at, "a.qcow2") == model);
    made(at, &["convert", "-q", "-l", "before", "-O", "raw", "a.qcow2", "before"]);
    assert!(fs::read(at.join("before")).unwrap() == fs::read(at.join("raw")).unwrap());
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn digest_is_that_of_a_raw_image_with_the_same_contents() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut raw = vec![0; 3 << 20];
    raw[1 << 20..][..100].fill(3);
    fs::write(at.join("raw"), &raw).unwrap();
    made(at, &["convert", "-q", "-O", "qcow2", "raw", "a.qcow2"]);
    made(at, &["convert", "-q", "-c", "-O", "qcow2", "raw", "compressed.qcow2"]);
    let digest = |name: &str| open(&at.join(name), Writes::InPlace).digest(0).unwrap();
    let expected = digest("raw");
    assert_eq!([digest("a.qcow2"), digest("compressed.qcow2")], [expected; 2]);
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn wrong_backing_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let refused = |name: &str| {
        let options = [DiskOptions::new(at.join(name))];
        Disks::open(&options, Writes::InPlace, Kick::default()).unwrap_err().to_string()
    };
    fs::write(at.join("base"), [0; 1024]).unwrap();
    made(at, &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top.qcow2"]);
    let writer =
        Disks::open(&[DiskOptions::new(at.join("base"))], Writes::InPlace, Kick::default());
    assert!(refused("top.qcow2").contains("base: in use by"), "{}", refused("top.qcow2"));
    drop(writer);
    made(at, &["create", "-q", "-f", "qcow2", "-u", "-b", "none", "-F", "raw", "none.qcow2", "1M"]);
    assert!(refused("none.qcow2").contains("none: does not exist"));
    made(
        at,
        &["create", "-q", "-f", "qcow2", "-u", "-b", "./me.qcow2", "-F", "qcow2", "me.qcow2", "1M"],
    );
    assert!(refused("me.qcow2").contains("in use by"), "it is locked");
    made(
        at,
        &["create", "-q", "-f", "qcow2", "-u", "-b", "/dev/zero", "-F", "raw", "z.qcow2", "1M"],
    );
    assert!(refused("z.qcow2").contains("neither"));
    made(at, &["create", "-q", "-f", "qcow2", "-o", "data_file=data", "data.qcow2", "1M"]);
    assert!(refused("data.qcow2").contains("another file"));
    let secret = ["--object", "secret,id=key,data=abc", "-o"];
    let luks = ["encrypt.format=luks,encrypt.key-secret=key", "luks.qcow2", "1M"];
    made(at, &[&["create", "-q", "-f", "qcow2"], &secret[..], &luks[..]].concat());
    assert!(refused("luks.qcow2").contains("encrypted"));
    made(at, &["create", "-q", "-f", "qcow2", "huge.qcow2", "17T"]);
    assert!(refused("huge.qcow2").contains("16 TiB"));
    fs::write(at.join("no.qcow2"), [1; 1 << 16]).unwrap();
    assert!(refused("no.qcow2").contains("not a qcow2 image"));
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs qemu-img: --features host-tests")]
fn damaged_image_causes_errors_and_no_panic_of_this_thread() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    made(at, &["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    let mut client = Client::new(open(&at.join("a.qcow2"), Writes::InPlace));
    for sector in (0..2048).step_by(128) {
        assert_eq!(client.write(sector, &[1; 512]), DiskStatus::Done);
    }
    drop(client);
    let good = fs::read(at.join("a.qcow2")).unwrap();
    for _ in 0..20 {
        let mut bad = good.clone();
        for _ in 0..random.usize(1..4) {
            // The header, and the tables in the first clusters.
            let byte = if random.bool() { random.usize(..112) } else { random.usize(..5 << 16) };
            bad[byte] = random.u8(..);
        }
        fs::write(at.join("b.qcow2"), bad).unwrap();
        let options = [DiskOptions::new(at.join("b.qcow2"))];
        let Ok(disks) = Disks::open(&options, Writes::InPlace, Kick::default()) else { continue };
        let sectors = disks.info()[0].sectors;
        let mut client = Client::new(disks);
        for sector in (0..sectors.min(2048)).step_by(64) {
            let _ = (client.read(sector, 512), client.write(sector, &[2; 512]));
        }
        // Whole clusters, so that they are freed.
        for sector in (0..sectors.min(2048) / 128 * 128).step_by(256) {
            let number = client.begin(DiskOperation::Discard, sector, 128 * 512, &[]);
            let _ = client.end(number);
        }
        let _ = client.flush();
    }
}
