use super::super::image::ImageView;
use super::*;
use crate::files::output::Draft;

const MEMORY_BYTES: u64 = 16 << 20;

/// Writes a snapshot of a few pages of memory, without a real machine, and returns its path in `folder`.
fn write_snapshot(folder: &Path) -> std::path::PathBuf {
    let ram = crate::mem::allocate(MEMORY_BYTES).unwrap();
    for page in [3, 4, 5, 900] {
        ram.write_slice(&[page as u8 | 1; 100], GuestAddress(page * PAGE + 7)).unwrap();
    }
    let devices =
        Devices::new(&crate::devices::DeviceConfig { mac: [2; 6], disks: [None; 4] }).save();
    let image = ImageView {
        full: true,
        vcpu: &[1, 2, 3],
        devices: &super::super::schema::encode(&devices),
        pages: &[],
        ram: &ram,
    };
    let identity = SnapshotIdentity {
        guest_digest: 1,
        guest_name: String::from("guest"),
        cpu_digest: 2,
        host_profile: HostProfile { sysenter_bits: 64, ..HostProfile::UNKNOWN },
        cpu_name: String::from("cpu"),
        nic_mac: [2; 6],
    };
    let path = folder.join("s.snap");
    let before = std::fs::read(&path).ok();
    let mut draft = Draft::create(&path, Access::Owner).unwrap();
    assert_eq!(std::fs::read(&path).ok(), before, "the file appears only when it is complete");
    let saved = save(draft.file(), &identity, &image, Vec::new()).unwrap();
    assert_eq!(saved, Saved { pages: 4, disk_blocks: 0, disk_requests: 0 });
    draft.finish().unwrap();
    path
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn memory_equals_the_saved_and_writes_do_not_reach_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_snapshot(folder.path());
    let snapshot = Snapshot::open(&path, Access::Owner).unwrap();
    assert_eq!(snapshot.memory_bytes(), MEMORY_BYTES);
    assert_eq!(snapshot.identity().guest_name, "guest");
    let ram = snapshot.load_memory().unwrap();
    assert_eq!(dirty::nonzero(&ram), [3, 4, 5, 900]);
    ram.write_slice(&[9; 4096], GuestAddress(900 * PAGE)).unwrap();
    ram.write_slice(&[9; 4096], GuestAddress(1)).unwrap();
    assert_eq!(dirty::take(&ram, &[0; 64]), [0, 1, 900]);
    let again = Snapshot::open(&path, Access::Owner).unwrap().load_memory().unwrap();
    assert_eq!(dirty::nonzero(&again), [3, 4, 5, 900]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn loaded_memory_does_not_depend_on_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_snapshot(folder.path());
    let ram = Snapshot::open(&path, Access::Owner).unwrap().load_memory().unwrap();
    std::fs::write(&path, "").unwrap();
    assert_eq!(dirty::nonzero(&ram), [3, 4, 5, 900]);
}

#[test]
fn snapshot_that_is_cut_short_while_it_is_loaded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_snapshot(folder.path());
    let snapshot = Snapshot::open(&path, Access::Owner).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(matches!(snapshot.load_memory(), Err(SnapshotError::Io(_))));
}

#[test]
fn file_is_sparse() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let data = std::fs::metadata(write_snapshot(folder.path())).unwrap();
    assert!(data.len() > MEMORY_BYTES);
    assert!(data.blocks() * 512 < MEMORY_BYTES / 8, "{} blocks", data.blocks());
}

#[test]
fn damage_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_snapshot(folder.path());
    let good = std::fs::read(&path).unwrap();
    let refused = |damage: &dyn Fn(&mut Vec<u8>)| {
        std::fs::write(&path, &good).unwrap();
        change(&path, damage);
        let error = match Snapshot::open(&path, Access::Owner) {
            Ok(snapshot) => snapshot.load_memory().unwrap_err(),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    assert_eq!(refused(&|f| f.clear()), "not a snapshot");
    assert_eq!(refused(&|f| f[0] = b'u'), "not a snapshot");
    assert!(refused(&|f| f[8] = 9).contains("snapshot version 9"));
    assert!(refused(&|f| f[16..24].fill(0xFF)).contains("cut short"));
    assert!(refused(&|f| f[40] ^= 1).contains("checksum of its head"));
    assert!(refused(&|f| f.truncate(100)).contains("cut short"));
    assert!(refused(&|f| f.truncate(f.len() - 1)).contains("cut short"));
    assert!(refused(&|f| f.push(0)).contains("cut short or damaged"));
    let last_page = good.len() - (MEMORY_BYTES - 900 * PAGE) as usize;
    assert!(refused(&|f| f[last_page + 50] ^= 1).contains("checksum of its memory"));
    // Pages outside the runs are zero, whatever the file has there.
    let memory = good.len() - MEMORY_BYTES as usize;
    change(&path, |f| *f = good.clone());
    change(&path, |f| f[memory + (901 * PAGE) as usize] ^= 1);
    let ram = Snapshot::open(&path, Access::Owner).unwrap().load_memory().unwrap();
    assert_eq!(dirty::nonzero(&ram), [3, 4, 5, 900]);
    std::fs::write(&path, &good).unwrap();
    Snapshot::open(&path, Access::Owner).unwrap().load_memory().expect("a copy without holes");
}

#[test]
fn malformed_head_with_a_valid_checksum_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_snapshot(folder.path());
    let good = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(good[16..24].try_into().unwrap()) as usize;
    let head: Head = postcard::from_bytes(&good[32..32 + length]).unwrap();
    let refused = |head: &Head| read_head(&encode(head)).unwrap_err().to_string();
    assert!(refused(&Head { schema: 999, ..head.clone() }).contains("schema 999"));
    assert!(refused(&Head { memory_at: 1, ..head.clone() }).contains("memory's offset"));
    assert!(refused(&Head { memory_at: 0, ..head.clone() }).contains("memory's offset"));
    for runs in [vec![(0, 5000)], vec![(5, 1), (5, 1)], vec![(1, 0)], vec![(u64::MAX, 2)]] {
        assert!(refused(&Head { runs, ..head.clone() }).contains("runs of pages"));
    }
    for memory_bytes in [0, PAGE, MEMORY_BYTES + 1, MEMORY_MAX + PAGE, 1 << 62, u64::MAX] {
        let runs = vec![(0, memory_bytes / PAGE)];
        assert!(refused(&Head { memory_bytes, runs, ..head.clone() }).contains("memory's size"));
    }
    let name = "x".repeat(NAME_BYTES_MAX + 1);
    let identity = SnapshotIdentity { cpu_name: name, ..head.identity.clone() };
    assert!(refused(&Head { identity, ..head.clone() }).contains("name's length"));
    for seed in 1..=2000u64 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut bytes = good[32..32 + length].to_vec();
        for _ in 0..dice.usize(1..6) {
            let at = dice.usize(..bytes.len());
            bytes[at] = dice.u8(..);
        }
        bytes.truncate(dice.usize(..=bytes.len()));
        let _ = read_head(&bytes);
    }
}
