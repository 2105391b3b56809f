//! Tests with an image that is made here, of which bytes are changed.

use super::*;
use crate::disk::tests::{Client, random};
use crate::disk::{DiskOptions, Disks, Kick, Writes};
use replication::boundary::{DiskOperation, DiskStatus};
use std::fs;
use std::io::Cursor;
use std::path::Path;

/// The smallest cluster, so that random damage meets the tables.
const CLUSTER: usize = 512;

/// Where the clusters of the image are.
const REFCOUNT_TABLE: usize = CLUSTER;
const REFCOUNT_BLOCK: usize = 2 * CLUSTER;
const L1: usize = 3 * CLUSTER;
const L2: usize = 4 * CLUSTER;
const DATA: usize = 5 * CLUSTER;
const ZERO: usize = 6 * CLUSTER;
const COMPRESSED: usize = 7 * CLUSTER;
const SNAPSHOTS: usize = 9 * CLUSTER;
const SNAPSHOT_L1: usize = 10 * CLUSTER;
const END: usize = 11 * CLUSTER;

/// Sectors of the disk: those of two L2 tables, of which the second is not there.
const SECTORS: u64 = 128;

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..][..bytes.len()].copy_from_slice(bytes);
}

fn put_u64(image: &mut [u8], offset: usize, value: usize) {
    put(image, offset, &(value as u64).to_be_bytes());
}

/// Returns an image with a data cluster, an allocated cluster of zeros, two compressed clusters that share one, and
/// a snapshot without contents.
fn good() -> Vec<u8> {
    let mut image = vec![0; END];
    let image32 = [(4, 3), (20, 9), (36, 2), (56, 1), (60, 1), (96, 4), (100, 104)];
    put(&mut image, 0, b"QFI\xfb");
    for (offset, value) in image32 {
        put(&mut image, offset, &u32::to_be_bytes(value));
    }
    put_u64(&mut image, 24, SECTORS as usize * 512);
    put_u64(&mut image, 40, L1);
    put_u64(&mut image, 48, REFCOUNT_TABLE);
    put_u64(&mut image, 64, SNAPSHOTS);
    put_u64(&mut image, REFCOUNT_TABLE, REFCOUNT_BLOCK);
    for cluster in 0..END / CLUSTER {
        let refcount = if cluster * CLUSTER == COMPRESSED { 2 } else { 1 };
        put(&mut image, REFCOUNT_BLOCK + 2 * cluster, &u16::to_be_bytes(refcount));
    }
    let copied = 1 << 63;
    put_u64(&mut image, L1, L2 | copied);
    put_u64(&mut image, L2, DATA | copied);
    put_u64(&mut image, L2 + 8, ZERO | copied | 1);
    // The second one ends in the next cluster: one unit more.
    put_u64(&mut image, L2 + 16, COMPRESSED | 1 << 62);
    put_u64(&mut image, L2 + 24, (COMPRESSED + 100) | 1 << 62 | 1 << 61);
    put_u64(&mut image, SNAPSHOTS, SNAPSHOT_L1);
    put(&mut image, SNAPSHOTS + 8, &u32::to_be_bytes(2));
    image
}

fn checked(image: &[u8]) -> Result<(), String> {
    let mut file = Cursor::new(image);
    check(&mut file, image.len() as u64).map_err(|error| error.to_string())
}

/// Opens the image `path` to write it, or returns why that is refused.
fn opened(path: &Path) -> Result<Disks, String> {
    let options = [DiskOptions::new(path)];
    Disks::open(&options, Writes::InPlace, Kick::default()).map_err(|error| error.to_string())
}

#[test]
fn valid_image_is_accepted_and_damage_is_named() {
    assert_eq!(checked(&good()), Ok(()));
    let refused = |offset: usize, value: usize, expected: &str| {
        let mut image = good();
        put_u64(&mut image, offset, value);
        let error = checked(&image).unwrap_err();
        assert!(error.contains(expected), "{offset:#x}, {value:#x}: {error}");
    };
    refused(L1, L2 + 1, "an entry of the L1 table is 0x801");
    refused(L1, END, "the L2 table at 0x1600 is not in the file");
    refused(L1 + 8, L2, "the L2 table at 0x800 has the place of a table");
    refused(L1, REFCOUNT_BLOCK, "the L2 table at 0x400 has the place of a table");
    refused(L2, L2 | 2, "an entry of the L2 table is 0x802");
    refused(L2, L1, "the data cluster at 0x600 has the place of a table");
    refused(L2, ZERO, "the cluster at 0xc00 has refcount 1, and references: 2");
    refused(L2, SNAPSHOT_L1, "the snapshot's L1 table at 0x1400 has the place of a table");
    refused(L2 + 16, END | 1 << 62, "the compressed cluster at 0x1600 is not in the file");
    refused(L2 + 16, (END - 1) | 3 << 61, "the compressed cluster at 0x1400 is not in the file");
    refused(REFCOUNT_TABLE, 0, "the cluster at 0x0 has no refcount");
    refused(REFCOUNT_TABLE, REFCOUNT_BLOCK + 8, "an entry of the refcount table is 0x408");
    refused(REFCOUNT_TABLE, usize::MAX << 9, "the refcount block at 0xfffffffffffffe00 is not");
    refused(REFCOUNT_BLOCK, 1, "the cluster at 0x0 has refcount 0, and references: 1");
    refused(40, L1 + 8, "the L1 table at 0x608 is not aligned");
    refused(48, usize::MAX << 9, "the refcount table at 0xfffffffffffffe00 is not in the file");
    refused(64, END, "the snapshot table at 0x1600 is not in the file");
    refused(56, usize::MAX, "the refcount table has 274877906880 entries");
    refused(60, usize::MAX, "4294967295 snapshots");
    refused(SNAPSHOTS + 8, 1 << 63, "the snapshot's L1 table has 2147483648 entries");
}

#[test]
fn cluster_in_an_area_without_refcounts_is_refused() {
    // 256 clusters are an area. imago would end the process when the guest discards the cluster.
    let mut image = good();
    image.resize(300 * CLUSTER, 0);
    put_u64(&mut image, L2, (1 << 63) | (270 * CLUSTER));
    assert_eq!(checked(&image).unwrap_err(), "the cluster at 0x21c00 has no refcount");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    fs::write(&path, &image).unwrap();
    let error = opened(&path).unwrap_err();
    let expected = "disk.qcow2: is damaged: the cluster at 0x21c00 has no refcount: \
                    see 'qemu-img check -r all FILE'";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn image_with_too_many_clusters_is_refused_without_memory_for_them() {
    let image = good();
    let bytes = (QCOW2_CLUSTERS_MAX + 1) * CLUSTER as u64;
    assert!(matches!(check(Cursor::new(&image), bytes), Err(Unfit::TooLarge)));
}

#[test]
fn refcounts_of_all_widths_are_read() {
    let block = [0b1110_0100, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
    let read = |order| (0..4).map(|index| refcount(&block, index, order)).collect::<Vec<_>>();
    assert_eq!(read(0), [0, 0, 1, 0]);
    assert_eq!(read(1), [0, 1, 2, 3]);
    assert_eq!(read(2), [4, 14, 2, 1]);
    assert_eq!(read(3), [0xe4, 0x12, 0x34, 0x56]);
    assert_eq!(read(4), [0xe412, 0x3456, 0x789a, 0xbcde]);
    assert_eq!(refcount(&block, 1, 5), 0x789a_bcde);
    assert_eq!(refcount(&block, 0, 6), 0xe412_3456_789a_bcde);
}

#[test]
fn random_bytes_cause_no_panic() {
    let mut random = random();
    for _ in 0..20_000 {
        let mut image = good();
        let whole = image.len();
        // The header often, whose fields decide what is read.
        let end = if random.bool() { HEADER_BYTES } else { whole };
        for _ in 0..random.usize(1..8) {
            image[random.usize(8..end)] = random.u8(..);
        }
        if random.u8(..) < 16 {
            random.fill(&mut image[HEADER_BYTES..]);
        }
        image.truncate(whole - random.usize(..whole) * random.usize(..2));
        let _ = checked(&image);
    }
}

#[test]
fn accepted_image_with_random_damage_stays_one_that_is_accepted() {
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let mut used = 0;
    for _ in 0..100 {
        let mut image = good();
        for _ in 0..random.usize(..3) {
            image[random.usize(..END)] ^= 1 << random.u8(..8);
        }
        fs::write(&path, &image).unwrap();
        let Ok(disks) = opened(&path) else { continue };
        used += 1;
        let sectors = disks.info()[0].sectors.min(SECTORS);
        let mut client = Client::new(disks);
        for _ in 0..100 {
            let sector = random.u64(..sectors);
            let _ = match random.u8(..3) {
                0 => client.write(sector, &random.u64(..).to_be_bytes().repeat(64)),
                1 => client.read(sector, 512).0,
                _ => {
                    let number = client.begin(DiskOperation::Discard, sector, 512, &[]);
                    client.end(number).0
                }
            };
        }
        let flushed = client.flush();
        drop(client);
        let image = fs::read(&path).unwrap();
        if flushed == DiskStatus::Done {
            assert_eq!(checked(&image), Ok(()));
        }
    }
    assert!(used > 20, "{used}");
}
