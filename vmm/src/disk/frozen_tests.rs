//! Tests of disks that are saved and go on.

use super::tests::{Client, image, open, random_requests};
use super::*;
use replication::boundary::DiskStatus;
use std::fs;

/// Where the section begins in its file.
const AT: u64 = 8192;

/// Freezes the disk of `client`, and returns the section and the file with it.
fn freeze(mut client: Client) -> (Section, File) {
    let mut changes = client.disks.freeze();
    let section = changes[0].section().unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(AT + section.bytes().unwrap()).unwrap();
    changes[0].write(&section, &file, AT).unwrap();
    (section, file)
}

/// Opens the disk with the image `path` that was frozen.
fn restore(path: &Path, (section, file): &(Section, File)) -> Disks {
    let bytes = fs::metadata(path).unwrap().len();
    let frozen = Frozen::open(file, AT, section, bytes).unwrap();
    let info = DiskInfo { sectors: bytes / SECTOR_BYTES, read_only: false, serial: [b'x'; 20] };
    open_saved(path, (info, frozen), Writes::Overlay)
}

fn open_saved(path: &Path, saved: (DiskInfo, Frozen), writes: Writes) -> Disks {
    let options = [DiskOptions::new(path)];
    Disks::open_saved(&options, vec![saved], (writes, Kick::default())).unwrap()
}

fn digest_of(contents: &[u8]) -> u64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), contents).unwrap();
    open(file.path(), Writes::Overlay).digest(0).unwrap()
}

#[test]
fn saved_disk_goes_on_any_number_of_times_and_can_be_saved_again() {
    // The last block of the disk has three sectors.
    for (seed, sectors) in [(1, 800), (2, 803)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let (_folder, path, contents) = image(sectors, &mut random);
        let mut model = contents.clone();
        let mut saved = None;
        for generation in 0..3 {
            let disks = match &saved {
                None => open(&path, Writes::Overlay),
                Some(saved) => restore(&path, saved),
            };
            let mut client = Client::new(disks);
            if generation == 0 {
                random_requests(&mut client, &mut model, &mut random);
            } else {
                // Nearly everything is from the generation before.
                let sector = generation * 100 + 3;
                assert_eq!(client.write(sector as u64, &[generation as u8; 512]), DiskStatus::Done);
                model[sector * 512..][..512].fill(generation as u8);
            }
            saved = Some(freeze(client));
        }
        let saved = saved.unwrap();
        for _again in 0..2 {
            let mut disks = restore(&path, &saved);
            assert_eq!(disks.digest(0).unwrap(), digest_of(&contents), "the image is as it was");
            assert_eq!(disks.contents_digest(0).unwrap(), digest_of(&model));
            assert_eq!(disks.info()[0].serial, [b'x'; 20]);
            let mut client = Client::new(disks);
            let mut copy = model.clone();
            random_requests(&mut client, &mut copy, &mut random);
        }
        assert!(fs::read(&path).unwrap() == contents);
    }
}

#[test]
fn what_was_saved_is_written_into_the_image_of_a_pair() {
    for (seed, sectors) in [(6, 800), (7, 803)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let (_folder, path, mut model) = image(sectors, &mut random);
        let mut client = Client::new(open(&path, Writes::Overlay));
        random_requests(&mut client, &mut model, &mut random);
        let number = client.begin(DiskOperation::WriteZeroes, 8, 512 * 512, &[]);
        assert_eq!(client.end(number).0, DiskStatus::Done);
        model[8 * 512..][..512 * 512].fill(0);
        let last = sectors - 1;
        assert_eq!(client.write(last as u64, &[3; 512]), DiskStatus::Done);
        model[last * 512..].fill(3);
        let (section, file) = freeze(client);
        let bytes = fs::metadata(&path).unwrap().len();
        let frozen = Frozen::open(&file, AT, &section, bytes).unwrap();
        let info = DiskInfo { sectors: bytes / SECTOR_BYTES, read_only: false, serial: [0; 20] };
        let mut disks = open_saved(&path, (info, frozen), Writes::Mirrored(VmId(1)));
        disks.write_saved().unwrap();
        assert_eq!(disks.digest(0).unwrap(), digest_of(&model));
        assert_eq!(disks.contents_digest(0).unwrap(), digest_of(&model));
        // The guest goes on with requests of any number.
        let mut client = Client::new(disks);
        random_requests(&mut client, &mut model, &mut random);
        drop(client);
        assert!(fs::read(&path).unwrap() == model);
    }
}

#[test]
fn zeros_take_no_room_and_hide_the_image() {
    let mut random = fastrand::Rng::with_seed(3);
    let (_folder, path, contents) = image(2048, &mut random);
    let mut client = Client::new(open(&path, Writes::Overlay));
    let number = client.begin(DiskOperation::Discard, 8, 1024 * 512, &[]);
    assert_eq!(client.end(number).0, DiskStatus::Done);
    assert_eq!(client.write(1600, &[0; 4096]), DiskStatus::Done);
    assert_eq!(client.write(1700, &[7; 512]), DiskStatus::Done);
    let saved = freeze(client);
    assert_eq!(saved.0.blocks(), 1);
    let mut client = Client::new(restore(&path, &saved));
    for (sector, count) in [(8, 100), (1000, 32), (1600, 8)] {
        assert_eq!(client.read(sector, count * 512), (DiskStatus::Done, vec![0; count * 512]));
    }
    assert_eq!(client.read(0, 4096).1, contents[..4096]);
    assert_eq!(client.read(1032, 4096).1, contents[1032 * 512..][..4096]);
    let (_, block) = client.read(1696, 4096);
    assert!(block[..2048] == contents[1696 * 512..][..2048] && block[2048..2560] == [7; 512]);
}

#[test]
fn requests_in_flight_are_done_before_the_disk_is_frozen() {
    let mut random = fastrand::Rng::with_seed(4);
    let (_folder, path, mut model) = image(2048, &mut random);
    let mut client = Client::new(open(&path, Writes::Overlay));
    for number in 0..DISK_REQUESTS_MAX {
        client.begin(DiskOperation::Write, 8 * number as u64, 4096, &[9; 4096]);
        model[4096 * number..][..4096].fill(9);
    }
    let saved = freeze(client);
    assert_eq!(restore(&path, &saved).contents_digest(0).unwrap(), digest_of(&model));
}

#[test]
fn damage_is_refused_when_it_is_opened_or_an_error_when_it_is_read() {
    let mut random = fastrand::Rng::with_seed(5);
    let (_folder, path, _) = image(64, &mut random);
    let mut client = Client::new(open(&path, Writes::Overlay));
    assert_eq!(client.write(8, &[1; 4096]), DiskStatus::Done);
    assert_eq!(client.write(32, &[2; 4096]), DiskStatus::Done);
    let saved = freeze(client);
    let (section, file) = &saved;
    let change = |at: u64, value: u8| std::os::unix::fs::FileExt::write_all_at(file, &[value], at);
    let blocks = AT + section.bytes().unwrap() - 2 * 4096;
    for at in [AT, AT + 8, AT + 4096] {
        let mut old = [0];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut old, at).unwrap();
        change(at, !old[0]).unwrap();
        let opened = Frozen::open(file, AT, section, 64 * 512);
        assert!(matches!(opened, Err(FrozenError::Checksum)), "{at}: {opened:?}");
        change(at, old[0]).unwrap();
    }
    // Written over while a VM uses it: an error instead of other contents.
    let mut client = Client::new(restore(&path, &saved));
    change(blocks + 4096 + 100, 3).unwrap();
    assert_eq!(client.read(8, 4096), (DiskStatus::Done, vec![1; 4096]));
    assert_eq!(client.read(34, 512), (DiskStatus::Failed, vec![]));
    assert_eq!(client.disks.failed(0), 1);
    file.set_len(blocks).unwrap();
    assert_eq!(client.read(8, 4096).0, DiskStatus::Failed);
}

#[test]
fn section_that_does_not_fit_its_disk_is_refused() {
    let mut random = fastrand::Rng::with_seed(6);
    let (_folder, path, _) = image(64, &mut random);
    let mut client = Client::new(open(&path, Writes::Overlay));
    assert_eq!(client.write(56, &[1; 4096]), DiskStatus::Done);
    let (section, file) = freeze(client);
    assert!(Frozen::open(&file, AT, &section, 64 * 512).is_ok());
    let smaller = Frozen::open(&file, AT, &section, 56 * 512);
    assert!(matches!(smaller, Err(FrozenError::Malformed { .. })), "{smaller:?}");
}
