//! Tests of superblocks with real images and the threads of their disks.

use super::copy_tests::until;
use super::superblock::{FILE_BYTES, SuperblockFile, path_of};
use super::tests::Client;
use super::*;
use logchan::ids::{Claimant, Term};
use replication::boundary::DiskStatus;
use replication::witness::{Ending, LastClaim};
use std::fs;
use tempfile::TempDir;

const VM: VmId = VmId(9);
const US: Claimant = Claimant(1);
const CLAIM: Generation = Generation { term: Term(4), owner: US };

fn options(path: &Path) -> DiskOptions {
    DiskOptions::new(path)
}

fn try_open(options: &DiskOptions) -> Result<Disks, DiskError> {
    Disks::open(std::slice::from_ref(options), Writes::Mirrored(VM), Kick::default())
}

fn mirrored(path: &Path) -> Disks {
    try_open(&options(path)).unwrap()
}

fn image(bytes: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, vec![1; bytes]).unwrap();
    (folder, path)
}

fn stored(path: &Path) -> superblock::Superblock {
    let path = path_of(path);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), FILE_BYTES);
    SuperblockFile::read(File::open(&path).unwrap(), &bytes).unwrap().1
}

fn is_kept(disks: &Disks) {
    until(|| disks.keep_state() != KeepState::Pending);
    assert_eq!(disks.keep_state(), KeepState::Done);
}

fn last(ending: Ending) -> Option<LastClaim> {
    Some(LastClaim { generation: CLAIM, ending })
}

#[test]
fn image_boots_with_the_newest_claim_and_not_after_another_one() {
    let (_folder, path) = image(1 << 20);
    let mut disks = mirrored(&path);
    assert!(disks.may_boot(last(Ending::None)).is_err(), "nothing is known about it");
    disks.may_boot(None).unwrap();
    disks.hold(US, None);
    is_kept(&disks);
    drop(disks);
    let disks = mirrored(&path);
    disks.may_boot(last(Ending::Released)).unwrap();
    let other = Generation { term: Term(5), owner: Claimant(2) };
    let newer = Some(LastClaim { generation: other, ending: Ending::None });
    let refused = disks.may_boot(newer).unwrap_err().to_string();
    let name = path.display().to_string();
    assert!(refused.starts_with(&name) && refused.contains("is outdated"), "{refused}");
    drop(disks);
    let accept = DiskOptions { word: Word::Accept, ..options(&path) };
    try_open(&accept).unwrap().may_boot(newer).unwrap();
}

#[test]
fn image_that_is_copied_to_boots_only_when_it_is_sealed() {
    let (_folder, path) = image(1 << 20);
    let mut disks = mirrored(&path);
    disks.begin_receive();
    is_kept(&disks);
    drop(disks);
    let mut disks = mirrored(&path);
    let refused = disks.may_boot(last(Ending::None)).unwrap_err().to_string();
    assert!(refused.contains("only a part"), "{refused}");
    assert_eq!(disks.base, None);
    disks.begin_receive();
    disks.seal(Claimant(3), CLAIM);
    is_kept(&disks);
    drop(disks);
    let mut disks = mirrored(&path);
    disks.may_boot(last(Ending::None)).unwrap();
    assert!(disks.may_boot(last(Ending::Released)).is_err(), "the end of the log may be missing");
    assert_eq!(disks.base, Some(CLAIM));
    // Its backup has read other data than the primary, and dies.
    disks.distrust();
    is_kept(&disks);
    drop(disks);
    let disks = mirrored(&path);
    let refused = disks.may_boot(last(Ending::None)).unwrap_err().to_string();
    assert!(refused.contains("or differs from it"), "{refused}");
    assert_eq!(disks.base, None);
}

#[test]
fn changed_extent_is_known_after_a_crash_before_it_is_changed() {
    let (_folder, path) = image(8 << 20);
    let mut client = Client::new(mirrored(&path));
    assert_eq!(client.write(40 * 128 + 3, &[2; 512]), DiskStatus::Done);
    // What a crash leaves.
    let left = stored(&path);
    let expected = left.extents.blocks(8 << 20);
    assert_eq!((expected.count(), expected.has(40)), (1, true));
    drop(client);
    let disks = mirrored(&path);
    assert!(disks.disks[0].changed.has(40) && disks.disks[0].changed.count() == 1);
}

#[test]
fn confirmed_backup_has_everything_but_what_changed_since() {
    let (_folder, path) = image(8 << 20);
    let mut client = Client::new(mirrored(&path));
    assert_eq!(client.write(0, &[2; 512]), DiskStatus::Done);
    client.disks.begin_copy();
    client.disks.copy_closed();
    assert_eq!(client.write(128, &[2; 512]), DiskStatus::Done);
    client.disks.peer_in_sync(CLAIM);
    is_kept(&client.disks);
    assert_eq!(client.write(256, &[2; 512]), DiskStatus::Done);
    let left = stored(&path);
    let changed = left.extents.blocks(8 << 20);
    assert_eq!([0, 1, 2].map(|block| changed.has(block)), [false, true, true]);
    assert_eq!(left.base, Some(CLAIM));
}

#[test]
fn superblock_that_says_nothing_or_of_another_vm_is_refused_by_name() {
    let (folder, path) = image(1 << 20);
    let superblock = path_of(&path);
    drop(mirrored(&path));
    let other = Disks::open(&[options(&path)], Writes::Mirrored(VmId(8)), Kick::default()).unwrap();
    for refused in [other.may_boot(None), other.may_receive()] {
        let line = refused.unwrap_err().to_string();
        assert!(line.contains("another VM") && line.contains(path.to_str().unwrap()), "{line}");
    }
    drop(other);
    mirrored(&path).may_receive().unwrap();
    for contents in [&[][..], &[0; FILE_BYTES], &[7; 100]] {
        fs::write(&superblock, contents).unwrap();
        let refused = try_open(&options(&path)).unwrap_err().to_string();
        assert!(refused.contains(&superblock.display().to_string()), "{refused}");
        assert!(refused.contains("damaged"), "{refused}");
    }
    fs::remove_file(&superblock).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &superblock).unwrap();
    assert!(try_open(&options(&path)).is_err());
    let elsewhere = folder.path().join("elsewhere");
    drop(try_open(&DiskOptions { state: Some(elsewhere.clone()), ..options(&path) }).unwrap());
    assert_eq!(fs::metadata(&elsewhere).unwrap().len(), FILE_BYTES as u64);
    // One file is of one disk.
    let other = folder.path().join("other.img");
    fs::write(&other, vec![1; 1 << 20]).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    let both = [&path, &other].map(|path| {
        let state = Some(elsewhere.clone());
        DiskOptions { state, ..options(path) }
    });
    let refused = Disks::open(&both, Writes::Mirrored(VM), Kick::default()).unwrap_err();
    assert!(refused.to_string().contains("in use by"), "{refused}");
}

#[test]
fn disks_in_another_order_are_refused_on_either_host() {
    let folder = tempfile::tempdir().unwrap();
    let both = ["a", "b"].map(|name| {
        let path = folder.path().join(name);
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        options(&path)
    });
    let open = |both: &[DiskOptions]| Disks::open(both, Writes::Mirrored(VM), Kick::default());
    let mut disks = open(&both).unwrap();
    disks.hold(US, None);
    is_kept(&disks);
    drop(disks);
    let [a, b] = both;
    let swapped = open(&[b, a]).unwrap();
    for refused in [swapped.may_boot(last(Ending::Released)), swapped.may_receive()] {
        let line = refused.unwrap_err().to_string();
        assert!(line.contains("is disk 1 of the VM, and given as disk 0"), "{line}");
    }
}
