//! Tests with media of the host: block devices, and a file system that is full.

use super::tests::{Client, open, random, random_requests, with_storage};
use super::*;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use replication::boundary::DiskStatus;
use std::fs;
use std::process::Command;

/// A block device with the contents of a file (loop(4)).
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn new(file: &Path) -> LoopDevice {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        LoopDevice(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs root: --features host-tests")]
fn block_device_is_a_disk_and_is_not_taken_from_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let mut model = vec![0; 1 << 20];
    fs::write(&file, &model).unwrap();
    let device = LoopDevice::new(&file);
    let mut client = Client::new(open(&device.0, Writes::InPlace));
    assert_eq!(client.disks.info()[0].sectors, 2048);
    random_requests(&mut client, &mut model, &mut random());
    assert_eq!(client.flush(), DiskStatus::Done);
    drop(client);
    let read = fs::read(&device.0).unwrap();
    assert!(read == model);

    // As a mount has it.
    let mut exclusive = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(exclusive.read(true), libc::O_EXCL);
    let exclusive = exclusive.open(&device.0).unwrap();
    let options = [DiskOptions::new(&device.0)];
    let refused = Disks::open(&options, Writes::InPlace, Kick::default()).unwrap_err();
    assert!(matches!(refused.source, ImageError::Mounted), "{refused}");
    drop(Disks::open(&options, Writes::Overlay, Kick::default()).unwrap());
    drop(exclusive);
}

/// Runs `body` with the path of a tmpfs of 64 KiB, which nobody else sees.
fn with_small_tmpfs(body: impl FnOnce(&Path) + Send) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&Path>;
        mount(nothing, Path::new("/"), nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .unwrap();
        let tmpfs = Some(Path::new("tmpfs"));
        mount(tmpfs, path, tmpfs, MsFlags::empty(), Some(Path::new("size=64k"))).unwrap();
        body(path);
    };
    // The namespace is that of the thread, and ends with it.
    std::thread::scope(|scope| scope.spawn(in_namespace).join()).unwrap();
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs root: --features host-tests")]
fn full_file_system_fails_writes_until_there_is_room() {
    with_small_tmpfs(|folder| {
        let path = folder.join("disk");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let mut client = Client::new(open(&path, Writes::InPlace));
        let write = |client: &mut Client, block: u64| client.write(8 * block, &[1; 4096]);
        let done = (0..256).take_while(|&block| write(&mut client, block) == DiskStatus::Done);
        let done = done.count() as u64;
        assert!((1..=16).contains(&done), "{done}");
        assert_eq!(write(&mut client, 200), DiskStatus::Failed);
        assert_eq!(client.read(8 * 200, 4096), (DiskStatus::Done, vec![0; 4096]));
        assert_eq!(client.read(8 * (done - 1), 4096), (DiskStatus::Done, vec![1; 4096]));
        assert_eq!(client.flush(), DiskStatus::Done);
        let number = client.begin(DiskOperation::Discard, 0, 8192, &[]);
        assert_eq!(client.end(number).0, DiskStatus::Done);
        assert_eq!(write(&mut client, 200), DiskStatus::Done);
        assert_eq!(client.disks.failed(0), 2);
    });
}

#[test]
#[cfg_attr(not(feature = "host-tests"), ignore = "needs root: --features host-tests")]
fn private_file_without_room_fails_writes_and_loses_nothing() {
    with_small_tmpfs(|folder| {
        let path = folder.join("disk");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let base = FileStorage::new(image::open(&path, Use::Read).unwrap());
        let file = tempfile::tempfile_in(folder).unwrap();
        file.set_len(1 << 20).unwrap();
        let overlay = Overlay::new(Box::new(base), None, FileStorage::empty(file, 1 << 20));
        let mut client = Client::new(with_storage(Box::new(overlay), &path));
        let mut done = 0;
        while client.write(8 * done + 1, &[2; 512]) == DiskStatus::Done {
            done += 1;
        }
        assert!((1..=16).contains(&done), "{done}");
        for block in 0..done {
            let expected = [vec![0; 512], vec![2; 512], vec![0; 3072]].concat();
            assert_eq!(client.read(8 * block, 4096), (DiskStatus::Done, expected));
        }
        assert_eq!(client.read(8 * done, 4096), (DiskStatus::Done, vec![0; 4096]));
    });
}
