//! Disks: the reference guest's disk service in a VM that is run, recorded and replayed.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use testbed::{GUEST_ADDRESS, Standalone, TestbedError};
use tests::chain::{Client, append, chain};
use tests::load;
use tests::program::{fails, json, run};
use tests::recording::start_vm;

const SECTOR: u64 = 512;
const SECTORS: u64 = 2048;
/// Links of the chain of a VM that is saved.
const LINKS: u64 = 200;
/// Exit codes.
const USAGE: i32 = 2;
const DIVERGED: i32 = 8;
const DISK: i32 = 18;

/// A folder with an image of zeros.
struct Image {
    folder: TempDir,
    path: PathBuf,
}

impl Image {
    fn new() -> Image {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        std::fs::write(&path, vec![0; (SECTORS * SECTOR) as usize]).unwrap();
        Image { folder, path }
    }

    fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("disk.ulog")
    }

    fn beside(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn change_byte(&self, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
}

/// Runs `act` in the namespace of `vm`.
fn within<T: Send>(vm: &Standalone, act: impl FnOnce() -> T + Send) -> T {
    vm.namespace.enter(|| Ok::<T, TestbedError>(act())).unwrap()
}

fn start(command: &[&str]) -> Standalone {
    start_vm(command).unwrap()
}

/// Records the guest while it appends to its chain and reads it, and while it computes, so that requests are in flight
/// at mid-region stops.
fn record(image: &Image, extra: &[&str]) {
    let log = image.log();
    let options = ["record", "--log", log.to_str().unwrap(), "--disk", image.text()];
    let vm = start(&[&options[..], extra].concat());
    vm.namespace
        .enter(|| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let burning = scope.spawn(|| load::burn(GUEST_ADDRESS, &stop));
                let mut client = Client::connect();
                let (links, hash) = chain(&mut client);
                let hash = append(&mut client, links, hash, 30);
                assert_eq!(client.ask("chain"), format!("{} {hash:016x}", links + 30));
                assert_eq!(client.ask("write 2000 7"), "ok");
                assert_eq!(client.ask("flush"), "ok");
                assert!(client.ask("read 2000").len() == 16);
                stop.store(true, Ordering::Relaxed);
                burning.join().unwrap()
            })
        })
        .unwrap();
    let result = vm.stop().unwrap();
    assert!(result["checkpoints"].as_u64() > Some(1), "{result}");
}

fn replay(log: &Path, extra: &[&str]) -> (Option<i32>, String, String) {
    let report = format!("{}.divergence", log.display());
    let output =
        run(&[&["replay", log.to_str().unwrap(), "--json", "--report", &report], extra].concat());
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn chain_on_a_disk_continues_after_a_restart() {
    let image = Image::new();
    let disk = format!("{},serial=chain", image.text());
    let mut hash = 0;
    for restart in 0..3 {
        let vm = start(&["run", "--disk", &disk]);
        hash = within(&vm, || {
            let mut client = Client::connect();
            assert_eq!(client.ask("info"), format!("sectors {SECTORS} read-write"));
            assert_eq!(chain(&mut client), (10 * restart, hash));
            append(&mut client, 10 * restart, hash, 10)
        });
        let result = vm.stop().unwrap();
        assert_eq!(result["disks"][0]["failed"], 0, "{result}");
    }
    let bytes = std::fs::read(&image.path).unwrap();
    assert_eq!(bytes[..8], *b"USTDYCHN");
    assert_eq!(bytes[8..16], 30u64.to_le_bytes());
    let text = b"link 30";
    assert_eq!(bytes[30 * SECTOR as usize + 16..][..text.len()], *text);
}

#[test]
fn disk_service_makes_many_requests_at_once() {
    let image = Image::new();
    let vm = start(&["run", "--disk", image.text()]);
    within(&vm, || {
        let mut client = Client::connect();
        for depth in [1, 2, 16] {
            for order in ["sequential", "random"] {
                for what in ["write", "read", "flush"] {
                    let answer = client.ask(&format!("io {what} {order} {depth} 300 {depth}"));
                    assert_eq!(answer, "done 300", "{what} {order} {depth}");
                }
            }
        }
        for invalid in ["", "read random 17 1 1", "read random 0 1 1", "read random 1 0 1", "x"] {
            assert_eq!(client.ask(&format!("io {invalid}")), "what?");
        }
        // The service still does what it did.
        append(&mut client, 0, 0, 3);
    });
    vm.stop().unwrap();
    // The number of the last write to a block: all blocks were written one after the other.
    let bytes = std::fs::read(&image.path).unwrap();
    let written = bytes.chunks(4096).filter(|block| block[..8] != [0; 8]).count();
    assert!(written > 250, "{written} of 256 blocks");
}

#[test]
fn disk_service_reads_what_was_written_and_survives_bad_requests() {
    let image = Image::new();
    let vm = start(&["run", "--disk", image.text()]);
    within(&vm, || {
        let mut client = Client::connect();
        let empty = client.ask("read 9");
        assert_eq!(client.ask("write 9 200"), "ok");
        assert_ne!(client.ask("read 9"), empty);
        assert_eq!(client.ask("write 9 0"), "ok");
        assert_eq!(client.ask("read 9"), empty);
        for beyond in [SECTORS, u64::MAX / 512, u64::MAX] {
            assert_eq!(client.ask(&format!("read {beyond}")), "error");
            assert_eq!(client.ask(&format!("write {beyond} 1")), "error");
        }
        assert_eq!(client.ask(&format!("write {} 1", SECTORS - 1)), "ok");
    });
    vm.stop().unwrap();
    let bytes = std::fs::read(&image.path).unwrap();
    assert_eq!(bytes.len() as u64, SECTORS * SECTOR);
    assert_eq!(bytes[bytes.len() - 512..], [1; 512]);
}

#[test]
fn read_only_disk_refuses_to_be_written() {
    let image = Image::new();
    std::fs::set_permissions(&image.path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let vm = start(&["run", "--disk", &format!("{},readonly", image.text())]);
    within(&vm, || {
        let mut client = Client::connect();
        assert_eq!(client.ask("io write random 4 10 1"), "error 10");
        assert_eq!(client.ask("io read random 4 10 1"), "done 10");
        assert_eq!(client.ask("info"), format!("sectors {SECTORS} read-only"));
        assert_eq!(client.ask("write 1 1"), "error");
        assert_eq!(client.ask("append x"), "error");
        assert_eq!(client.ask("chain"), "0 0000000000000000");
    });
    vm.stop().unwrap();
    assert!(std::fs::read(&image.path).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn guest_without_a_disk_says_so() {
    let vm = start(&["run"]);
    within(&vm, || assert_eq!(Client::connect().ask("info"), "no disk"));
    vm.stop().unwrap();
}

#[test]
fn replay_of_a_disk_workload_is_equal_and_another_image_is_found() {
    let image = Image::new();
    let vm = start(&["run", "--disk", image.text()]);
    within(&vm, || append(&mut Client::connect(), 0, 0, 5));
    vm.stop().unwrap();
    let before = std::fs::read(&image.path).unwrap();

    record(&image, &[]);
    assert!(std::fs::read(&image.path).unwrap() == before, "a recording changes no image");
    let log = image.log();
    for _again in 0..2 {
        let (code, result, errors) = replay(&log, &["--disk", image.text()]);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(json(&result)["divergences"], 0, "{result}");
    }
    assert!(std::fs::read(&image.path).unwrap() == before, "a replay changes no image");
    fails(&["replay", log.to_str().unwrap()], USAGE, "--disk is given 0 times");

    // In the text of link 3, which the guest has read.
    image.change_byte(3 * SECTOR + 20);
    let (code, _, errors) = replay(&log, &["--disk", image.text()]);
    assert_eq!(code, Some(DISK), "{errors}");
    assert!(errors.contains(image.text()) && errors.contains("its digest is"), "{errors}");
    let (code, _, errors) = replay(&log, &["--no-disk-digest", "--disk", image.text()]);
    assert_eq!(code, Some(DIVERGED), "{errors}");
    assert!(errors.contains("disk 0") && errors.contains("is not the recorded one"), "{errors}");
}

#[test]
fn log_with_reads_replays_without_the_image() {
    let image = Image::new();
    record(&image, &["--log-reads", "--no-disk-digest"]);
    std::fs::remove_file(&image.path).unwrap();
    let (code, result, errors) = replay(&image.log(), &[]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(json(&result)["divergences"], 0, "{result}");
}

#[test]
fn disk_that_cannot_be_used_is_one_line() {
    let image = Image::new();
    let disk = image.text();
    let missing = format!("{disk}.missing");
    fails(&["run", "--disk", &missing], DISK, "does not exist");
    for option in ["state=/tmp/none", "accept"] {
        fails(&["run", "--disk", &format!("{disk},{option}")], DISK, "for a disk of a pair");
    }
    let five = [&["run"][..], &["--disk", disk].repeat(5)].concat();
    fails(&five, DISK, "");
    let in_use = start(&["run", "--disk", disk]);
    fails(&["run", "--disk", disk, "--for", "1"], DISK, "in use");
    in_use.stop().unwrap();
}

/// Saves a VM with a chain of 200 links on its disk, with requests in flight. Returns the hash of the last link.
fn save_in_mid_request(image: &Image, snapshot: &str) -> u64 {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        let vm = start(&["save", snapshot, "--disk", image.text()]);
        let hash = within(&vm, || {
            let mut client = Client::connect();
            let hash = append(&mut client, 0, 0, LINKS);
            // Reads link after link, while the VM is saved.
            client.tell("chain");
            hash
        });
        let result = vm.stop().unwrap();
        // Sector 0 and 200 links, and nothing else.
        assert_eq!(result["disk_blocks"], (LINKS + 1).div_ceil(8), "{result}");
        if result["disk_requests"].as_u64() > Some(0) {
            return hash;
        }
    }
    panic!("no request was in flight in {TRIES} saves");
}

#[test]
fn saved_vm_goes_on_with_its_disk_any_number_of_times() {
    let image = Image::new();
    let before = std::fs::read(&image.path).unwrap();
    let [first, second] = ["first.snap", "second.snap"].map(|name| image.beside(name));
    let hash = save_in_mid_request(&image, &first);
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);

    let goes_on = |command: &[&str], links: u64, hash: u64, count: u64| {
        let vm = start(&[command, &["--disk", image.text()]].concat());
        let hash = within(&vm, || {
            let mut client = Client::connect();
            assert_eq!(client.ask("info"), format!("sectors {SECTORS} read-write"));
            assert_eq!(chain(&mut client), (links, hash));
            append(&mut client, links, hash, count)
        });
        (hash, vm.stop().unwrap())
    };
    for _again in 0..2 {
        let (_, result) = goes_on(&["run", "--restore", &first], LINKS, hash, 3);
        assert_eq!(result["disks"][0]["failed"], 0, "{result}");
    }
    // Saved again, the second snapshot needs the image only, and not the first one.
    let (hash, _) = goes_on(&["save", &second, "--restore", &first], LINKS, hash, 5);
    std::fs::remove_file(&first).unwrap();
    goes_on(&["run", "--restore", &second], LINKS + 5, hash, 1);
    assert!(std::fs::read(&image.path).unwrap() == before, "no VM has changed the image");
}

#[test]
fn recording_of_a_saved_vm_with_a_disk_replays_with_the_snapshot() {
    let image = Image::new();
    let snapshot = image.beside("s.snap");
    let vm = start(&["save", &snapshot, "--disk", image.text()]);
    within(&vm, || append(&mut Client::connect(), 0, 0, 10));
    vm.stop().unwrap();
    record(&image, &["--restore", &snapshot]);
    let log = image.log();
    let disk = ["--disk", image.text()];
    let (code, result, errors) = replay(&log, &[&disk[..], &["--restore", &snapshot]].concat());
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(json(&result)["divergences"], 0, "{result}");
    // The image alone is not what the guest has found.
    let (code, _, errors) = replay(&log, &disk);
    assert_eq!(code, Some(DISK), "{errors}");
    let other = image.beside("other.snap");
    let vm = start(&["save", &other, "--disk", image.text()]);
    vm.stop().unwrap();
    let (code, _, errors) = replay(&log, &[&disk[..], &["--restore", &other]].concat());
    assert_eq!(code, Some(USAGE), "{errors}");
    assert!(errors.contains("did not start from this snapshot"), "{errors}");
}

#[test]
fn snapshot_without_the_image_it_was_made_with_is_one_line() {
    let image = Image::new();
    let snapshot = image.beside("s.snap");
    let vm = start(&["save", &snapshot, "--disk", image.text()]);
    within(&vm, || append(&mut Client::connect(), 0, 0, 1));
    vm.stop().unwrap();
    let restore = ["run", "--restore", &snapshot, "--for", "0.1", "--quiet"];
    let with = |disk| [&restore[..], &["--disk", disk]].concat();
    fails(&restore, USAGE, &format!("has the disks {}", image.text()));
    fails(&[&with(image.text())[..], &["--disk", image.text()]].concat(), USAGE, "given 2 times");
    let missing = format!("{}.missing", image.text());
    fails(&with(&missing), DISK, "does not exist");
    let smaller = image.beside("smaller.img");
    std::fs::write(&smaller, [0; 4096]).unwrap();
    fails(&with(&smaller), DISK, "it has 8 sectors, that one has 2048");
    let witness = image.folder.path().to_str().unwrap();
    let pair = ["primary", "--restore", &snapshot, "--interface", "lo", "--insecure"];
    let peer = ["--peer", "02:00:00:00:00:01", "--witness", witness];
    let refused = run(&[&pair[..], &peer].concat());
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(USAGE), "{errors}");
    assert!(errors.contains("--disk is given 0 times"), "{errors}");

    assert!(run(&with(image.text())).status.success());
    // Where the guest has never written.
    image.change_byte(1000 * SECTOR);
    fails(&with(image.text()), DISK, "is not the one of the snapshot: its digest is");
    let unchecked = run(&[&with(image.text())[..], &["--no-disk-digest"]].concat());
    assert!(unchecked.status.success());
}
